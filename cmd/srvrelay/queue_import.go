package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/admin"
)

// maxRecord bounds ID.json of an import.
const maxRecord = 64 << 20

func importCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "import PATH...", Short: "Take exported messages into the queue of the running relay", Args: args(cobra.MinimumNArgs(1)),
		Long: `PATH is what export has written: a folder, a tar file (- is a tar on standard input),
or ID.json beside its ID.eml. Messages come back with their id, time of arrival,
states and times; what was delivered or has failed is not sent again. A message
whose id is queued already is refused. (One that was delivered since its export is
not known any more, and would be sent twice.)`,
		Example: `  srvrelay queue import saved
  srvrelay queue import backup.tar`,
	}
	show := c.Flags().Bool("progress", false, "show how far it is, even if this is no terminal")
	c.RunE = withClient(func(c *cobra.Command, client *admin.Client, paths []string) error {
		in := &importer{client: client}
		in.progress = newProgress(c, *show, func() (int, error) { return 0, nil })
		var err error
		for _, path := range paths {
			if err = in.path(c.Context(), path, c.InOrStdin()); err != nil {
				break
			}
		}
		in.progress.end()
		fmt.Fprintf(c.OutOrStdout(), "%s %s taken into the queue\n", count(in.taken), plural(in.taken, "message"))
		switch {
		case errors.Is(err, context.Canceled):
			return &exitError{exitTempFail, errors.New("stopped; run it again for the rest: what is queued already is refused")}
		case err != nil:
			return err
		case len(in.twice) > 0:
			return &exitError{exitData, fmt.Errorf("%s: queued already", named(in.twice))}
		}
		return nil
	})
	return c
}

type importer struct {
	client   *admin.Client
	progress *progress
	taken    int
	twice    []queue.ID
}

// path imports a folder, a tar file or one message.
func (in *importer) path(ctx context.Context, path string, stdin io.Reader) error {
	if path == "-" {
		return in.archive(ctx, "standard input", stdin)
	}
	if strings.HasSuffix(path, ".json") {
		return in.file(ctx, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return &exitError{exitData, fmt.Errorf("import: %w", err)}
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return in.archive(ctx, path, f)
	}
	found := false
	for {
		entries, err := f.ReadDir(1000) // there may be a million
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json") {
				found = true
				if err := in.file(ctx, filepath.Join(path, e.Name())); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	if !found {
		return &exitError{exitData, fmt.Errorf("import: %s holds no ID.json of an export", path)}
	}
	return nil
}

// file imports ID.json and the ID.eml beside it.
func (in *importer) file(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return &exitError{exitData, fmt.Errorf("import: %w", err)}
	}
	defer f.Close()
	m, err := readRecord(path, f)
	if err != nil {
		return err
	}
	body, err := os.Open(strings.TrimSuffix(path, ".json") + ".eml")
	if err != nil {
		return &exitError{exitData, fmt.Errorf("import: %w", err)}
	}
	defer body.Close()
	return in.message(ctx, path, m, body)
}

// archive imports a tar in which each ID.json is followed by its ID.eml.
func (in *importer) archive(ctx context.Context, name string, r io.Reader) error {
	t := tar.NewReader(r)
	var m *queue.Message
	for {
		h, err := t.Next()
		switch {
		case err == io.EOF && m == nil:
			return nil
		case err == io.EOF:
			return &exitError{exitData, fmt.Errorf("import: %s ends before %s.eml", name, m.ID)}
		case err != nil:
			return &exitError{exitData, fmt.Errorf("import: %s is neither a folder nor a tar file of an export: %w", name, err)}
		}
		where := name + ": " + queue.Safe(h.Name, 100)
		switch {
		case strings.HasSuffix(h.Name, ".json") && m == nil:
			if m, err = readRecord(where, t); err != nil {
				return err
			}
		case m != nil && filepath.Base(h.Name) == string(m.ID)+".eml":
			if err := in.message(ctx, where, m, t); err != nil {
				return err
			}
			m = nil
		case h.FileInfo().IsDir():
		default:
			return &exitError{exitData, fmt.Errorf("import: %s: not what an export writes here", where)}
		}
	}
}

func readRecord(name string, r io.Reader) (*queue.Message, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	var e exported
	if err == nil && len(b) > maxRecord {
		err = fmt.Errorf("larger than %s", bytesText(maxRecord))
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err == nil && e.Format != exportFormat {
		err = fmt.Errorf("its format is %q, not %q", queue.Safe(e.Format, 40), exportFormat)
	}
	if err != nil {
		return nil, &exitError{exitData, fmt.Errorf("import: %s: %w", name, err)}
	}
	return &e.Message, nil
}

func (in *importer) message(ctx context.Context, where string, m *queue.Message, body io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := in.client.Import(context.WithoutCancel(ctx), m, body)
	switch {
	case errors.Is(err, queue.ErrExists):
		in.twice = append(in.twice, m.ID)
		return nil
	case errors.Is(err, admin.ErrNotRunning), errors.Is(err, admin.ErrNotAllowed):
		return err
	case err != nil:
		return &exitError{exitData, fmt.Errorf("import: %s: %w", where, err)}
	}
	in.taken++
	in.progress.at(in.taken)
	return nil
}
