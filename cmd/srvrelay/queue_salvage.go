package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
)

// partialFormat is the first field of the note about what is left of a message.
const partialFormat = "srvrelay partial 1"

func salvageCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "salvage [DIR]", Short: "Get the messages out of a damaged queue", Args: args(cobra.MaximumNArgs(1)),
		Long: `For a queue that does not open, or of which something cannot be read. It goes through
the files one by one and writes every message that is whole into the folder OUT, as
export does; what is left of the others goes into OUT/partial, with a note about what
is missing. The damaged folder (DIR, else that of the configuration) is only read; OUT
needs twice its space for a while. Stop the relay first.

Then move the damaged folder away, start the relay, and: srvrelay queue import OUT.
A message whose delivery was noted in what is lost goes out a second time.

Exit code: 0 all that was found is whole, 64 OUT has files already, 65 something is
damaged or lost (the rest is in OUT), 70 OUT cannot be written, 75 a relay works with
the queue.`,
		Example: `  srvrelay queue salvage -o saved
  srvrelay queue salvage -o saved /mnt/old/srvrelay/queue`,
	}
	to := c.Flags().StringP("output", "o", "", "a new folder, `OUT`")
	show := c.Flags().Bool("progress", false, "show how far it is, even if this is no terminal")
	c.RunE = func(c *cobra.Command, a []string) error {
		if *to == "" {
			return usage(errors.New("salvage needs to know where to: -o DIR"))
		}
		dir, err := salvageFrom(c, a)
		if err != nil {
			return err
		}
		s := &salvager{c: c, dir: dir, out: folderSink(*to), partial: filepath.Join(*to, "partial")}
		s.progress = newProgress(c, *show, func() (int, error) { return 0, nil })
		return s.run()
	}
	return c
}

// salvageFrom is the folder of the queue: named, or the data directory above
// it, or that of the configuration.
func salvageFrom(c *cobra.Command, a []string) (string, error) {
	if len(a) == 0 {
		cfg, err := askingConfig(c)
		if err != nil {
			return "", err
		}
		return filepath.Join(cfg.DataDir, "queue"), nil
	}
	if below := filepath.Join(a[0], "queue"); isFolder(below) {
		return below, nil
	}
	if !isFolder(a[0]) {
		return "", &exitError{exitData, fmt.Errorf("salvage: there is no folder %s", a[0])}
	}
	return a[0], nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// salvager is a salvage under way.
type salvager struct {
	c        *cobra.Command
	dir      string
	out      folderSink
	partial  string
	progress *progress

	files, whole, short, parts int
}

func (s *salvager) run() error {
	if err := os.MkdirAll(string(s.out), 0o700); err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	there, err := os.ReadDir(string(s.out))
	if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	if len(there) > 0 { // an import would take it too: mail of the last time, delivered since
		return usage(fmt.Errorf("salvage: %s is not empty: choose another folder", string(s.out)))
	}
	scratch, err := os.MkdirTemp(string(s.out), ".scratch-")
	if err != nil {
		return fmt.Errorf("salvage: %w", err)
	}
	defer os.RemoveAll(scratch)
	v, err := pebblestore.OpenSalvage(pebblestore.SalvageOptions{Dir: s.dir, Scratch: scratch, Read: func(string) { s.files++ }})
	if errors.Is(err, queue.ErrLocked) {
		return &exitError{exitTempFail, fmt.Errorf("%w\nStop the relay first", err)}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return &exitError{exitData, err}
	}
	if err != nil { // not 65, which says that all that can be read is in OUT
		return err
	}
	err = v.Each(s.c.Context(), s.message)
	s.progress.end()
	err = errors.Join(err, v.Close())
	if err != nil {
		return err
	}
	return s.report(v.Damage())
}

// message writes one message: to be imported if it can be, and a note about
// what is missing.
func (s *salvager) message(m *pebblestore.Salvaged) error {
	defer func() { s.progress.at(s.whole + s.short + s.parts) }()
	if m.Importable {
		body, err := m.Body()
		if err != nil {
			return err
		}
		defer body.Close()
		record, err := json.MarshalIndent(exported{exportFormat, m.Message}, "", "  ")
		if err == nil {
			err = s.out.message(m.ID, append(record, '\n'), m.Size, body)
		}
		if err != nil || len(m.Missing) == 0 {
			s.whole++
			return err
		}
		s.short++
		return s.note(m)
	}
	s.parts++
	if err := s.note(m); err != nil {
		return err
	}
	body, err := m.Body()
	if err != nil {
		return err
	}
	defer body.Close()
	return folderSink(s.partial).write(m.ID, ".eml", func(w io.Writer) error { _, err := io.Copy(w, body); return err })
}

// note writes what is known of a message that is not all there. An import does
// not take it.
func (s *salvager) note(m *pebblestore.Salvaged) error {
	if err := os.MkdirAll(s.partial, 0o700); err != nil {
		return err
	}
	missing := m.Missing
	if len(missing) == 0 {
		missing = []string{"nothing; but none of its recipients waits or is held"}
	}
	record, err := json.MarshalIndent(struct {
		Format  string   `json:"format"`
		Missing []string `json:"missing"`
		queue.Message
	}{partialFormat, missing, m.Message}, "", "  ")
	if err != nil {
		return err
	}
	return folderSink(s.partial).write(m.ID, ".partial", func(w io.Writer) error { _, err := w.Write(append(record, '\n')); return err })
}

// report prints the table at the end.
func (s *salvager) report(damage []pebblestore.Damage) error {
	w := s.c.OutOrStdout()
	for _, d := range damage {
		if d.File != "" {
			d.Text = d.File + ": " + d.Text
		}
		fmt.Fprintf(w, "damaged  %s\n", d.Text)
	}
	fmt.Fprintf(w, "%8s %s read in %s\n", count(s.files), plural(s.files, "file"), s.dir)
	fmt.Fprintf(w, "%8s %s whole, in %s\n", count(s.whole), plural(s.whole, "message"), string(s.out))
	fmt.Fprintf(w, "%8s whole, but for recipients that are lost; notes in %s\n", count(s.short), s.partial)
	fmt.Fprintf(w, "%8s in part only, in %s\n", count(s.parts), s.partial)
	if s.whole+s.short > 0 {
		fmt.Fprintf(w, "Move %s away, start the relay, and: srvrelay queue import %s\n", s.dir, string(s.out))
	}
	if len(damage)+s.short+s.parts > 0 {
		fmt.Fprintln(w, "What was noted in the damaged places is lost: a message may go out a second time.")
		return &exitError{Code: exitData}
	}
	return nil
}
