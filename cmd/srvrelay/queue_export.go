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

// exportFormat is the first field of every exported record.
const exportFormat = "srvrelay export 1"

// exported is ID.json of an export: the message as it is stored, its bytes aside.
type exported struct {
	Format string `json:"format"`
	queue.Message
}

// exportSink is where an export goes: two files a message.
type exportSink interface {
	message(id queue.ID, record []byte, size int64, body io.Reader) error
	close() error
}

func exportCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "export -o DIR|FILE.tar|- [ID...]", Short: "Write messages and their state to files", Args: cobra.ArbitraryArgs,
		Long: `For each message that is chosen, ID.eml gets its bytes and ID.json its envelope and the
state of each recipient: in a folder, or in one tar file (- is a tar on standard
output). The queue is not changed. To move mail to another relay: hold, export,
import there, delete here.`,
		Example: `  srvrelay queue export -o saved --domain example.org
  srvrelay queue export -o - --all | ssh other srvrelay queue import -`,
	}
	s := addSelection(c)
	to := c.Flags().StringP("output", "o", "", "a folder, a file that ends in .tar, or -")
	show := c.Flags().Bool("progress", false, "show how far it is, even if this is no terminal")
	c.RunE = withQueue(func(c *cobra.Command, client *admin.Client, names []string) error {
		sel, err := s.selection(c, names)
		if err != nil {
			return err
		}
		sink, err := openSink(*to, c.OutOrStdout())
		if err != nil {
			return err
		}
		p := newProgress(c, *show, func() (int, error) { return client.Count(c.Context()) })
		n, gone := 0, 0
		missing, err := client.Records(c.Context(), sel, func(m *queue.Message) error {
			err := exportOne(c.Context(), client, sink, m)
			if errors.Is(err, queue.ErrNotFound) { // delivered meanwhile
				gone++
				return nil
			}
			if err == nil {
				n++
				p.at(n)
			}
			return err
		})
		p.end()
		err = errors.Join(err, sink.close())
		if err == nil && gone > 0 {
			fmt.Fprintf(c.ErrOrStderr(), "%s %s left the queue meanwhile\n", count(gone), plural(gone, "message"))
		}
		fmt.Fprintf(c.ErrOrStderr(), "%s %s exported\n", count(n), plural(n, "message"))
		if err == nil && len(missing) > 0 {
			err = &exitError{exitData, fmt.Errorf("%s: %w", named(missing), errGone)}
		}
		return err
	})
	return c
}

func exportOne(ctx context.Context, client *admin.Client, sink exportSink, m *queue.Message) error {
	body, err := client.Body(ctx, m.ID)
	if err != nil {
		return err
	}
	defer body.Close()
	record, err := json.MarshalIndent(exported{exportFormat, *m}, "", "  ")
	if err != nil {
		return err
	}
	return sink.message(m.ID, append(record, '\n'), m.Size, body)
}

func openSink(to string, stdout io.Writer) (exportSink, error) {
	switch {
	case to == "":
		return nil, usage(errors.New("export needs to know where to: -o DIR, -o FILE.tar or -o -"))
	case to == "-":
		return tarSink{tar.NewWriter(stdout), io.NopCloser(nil)}, nil
	case strings.HasSuffix(to, ".tar"):
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, &exitError{exitData, fmt.Errorf("export: %w", err)}
		}
		return tarSink{tar.NewWriter(f), f}, nil
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return nil, &exitError{exitData, fmt.Errorf("export: %w", err)}
	}
	return folderSink(to), nil
}

type folderSink string

// message writes the record last: an .eml without one is not complete.
func (d folderSink) message(id queue.ID, record []byte, size int64, body io.Reader) error {
	err := d.write(id, ".eml", func(w io.Writer) error {
		n, err := io.Copy(w, body)
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes of %d", n, size)
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.write(id, ".json", func(w io.Writer) error { _, err := w.Write(record); return err })
}

func (d folderSink) write(id queue.ID, ext string, fill func(io.Writer) error) error {
	name := filepath.Join(string(d), string(id)+ext)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return &exitError{exitData, fmt.Errorf("export: %s is there already: choose another folder", name)}
	}
	if err == nil {
		err = errors.Join(fill(f), f.Close())
	}
	if err != nil {
		return fmt.Errorf("export: %s: %w", name, err)
	}
	return nil
}

func (folderSink) close() error { return nil }

type tarSink struct {
	*tar.Writer
	file io.Closer
}

// message writes the record first: an import reads the stream as it comes.
func (t tarSink) message(id queue.ID, record []byte, size int64, body io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: string(id) + ".json", Mode: 0o600, Size: int64(len(record))}); err != nil {
		return err
	}
	if _, err := t.Write(record); err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: string(id) + ".eml", Mode: 0o600, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(t, body)
	return err
}

func (t tarSink) close() error { return errors.Join(t.Close(), t.file.Close()) }
