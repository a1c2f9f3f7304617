package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
)

// restoreFolder is in data_dir while a backup is being put back.
const restoreFolder = "restore.tmp"

func restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use: "restore DIR", Short: "Put a backup back, where no data is yet", Args: args(cobra.ExactArgs(1)),
		Long: `Puts what srvrelay backup has written into data_dir, which must be empty or not there:
nothing is ever mixed or overwritten. Every file is compared with its checksum, and the
queue is opened once, before anything counts. As root, the files get the owner of
data_dir. Stop the relay first, and its sockets where systemd has them open for it, or the
next client starts it; start it afterwards.

What was delivered after the backup was made goes out again.

Exit code: 0 it is there, 65 DIR is no whole backup, or data_dir is not empty, 78 another
version of srvrelay has made it, whose format this one does not read.`,
		Example: `  systemctl stop 'srvrelay*.socket' srvrelay
  mv /var/lib/srvrelay /var/lib/srvrelay.old
  install -d -o srvrelay -g srvrelay -m 700 /var/lib/srvrelay
  srvrelay restore /var/backups/srvrelay/2026-11-01
  systemctl start srvrelay`,
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			b, n, err := restore(c.Context(), a[0], cfg.DataDir)
			if errors.Is(err, queue.ErrFormat) {
				return &exitError{exitConfig, fmt.Errorf("restore: %s: %w", a[0], err)}
			}
			if err != nil {
				return &exitError{exitData, fmt.Errorf("restore: %w", err)}
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s and the rest of %s, as of %s, in %s\n",
				count(n), plural(n, "message"), b, b.Made.Local().Format("2006-01-02 15:04:05"), cfg.DataDir)
			return nil
		},
	}
}

// restore puts a backup into a data directory that is empty, and returns how
// many messages are in it.
func restore(ctx context.Context, from, to string) (b backupOf, messages int, err error) {
	if b, err = readBackup(from); err != nil {
		return b, 0, err
	}
	if err := pebblestore.CheckFormat(b.QueueFormat); err != nil {
		return b, 0, err
	}
	_, missing := os.Stat(to)
	if err := emptyData(to); err != nil {
		return b, 0, err
	}
	tmp := filepath.Join(to, restoreFolder)
	defer func() {
		_ = os.RemoveAll(tmp)
		if err != nil && missing != nil {
			_ = os.Remove(to)
		}
	}()
	for _, f := range b.Files {
		if err := errors.Join(restoreFile(from, tmp, f), ctx.Err()); err != nil {
			return b, 0, fmt.Errorf("%w\nNothing was changed", err)
		}
	}
	if messages, err = countMessages(ctx, filepath.Join(tmp, "queue")); err != nil {
		return b, 0, fmt.Errorf("%w\nNothing was changed", err)
	}
	return b, messages, moveIn(tmp, to)
}

// emptyData makes the data directory, or wants it to be empty.
func emptyData(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range there {
		if e.Name() != "lost+found" {
			return fmt.Errorf("data_dir %s is not empty (%s is there). Stop the relay, move the folder away, and try again", dir, e.Name())
		}
	}
	return nil
}

// restoreFile copies one file, and compares it with the record.
func restoreFile(from, to string, f backupFile) error {
	if !filepath.IsLocal(f.Name) {
		return fmt.Errorf("the record of the backup names %q, which is no file of it", f.Name)
	}
	in, err := os.Open(filepath.Join(from, f.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the backup is not whole: %s is missing", f.Name)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	sum, err := writeSynced(filepath.Join(to, f.Name), in)
	if err == nil && sum != f.SHA256 {
		err = fmt.Errorf("the backup is damaged: %s is not what was written", f.Name)
	}
	return err
}

// countMessages opens a queue once to see that it can be.
func countMessages(ctx context.Context, dir string) (int, error) {
	store, err := pebblestore.Open(pebblestore.Options{Dir: dir, ReadOnly: true})
	if err != nil {
		return 0, err
	}
	n, err := store.Count(ctx, "")
	return n, errors.Join(err, store.Close())
}

// moveIn gives what is in one folder to another, and to its owner.
func moveIn(tmp, to string) error {
	if err := giveTo(to, tmp); err != nil {
		return err
	}
	there, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	// The queue first: a relay that was started meanwhile has made one, and then
	// nothing is changed.
	slices.SortStableFunc(there, func(a, b os.DirEntry) int {
		switch "queue" {
		case a.Name():
			return -1
		case b.Name():
			return 1
		}
		return 0
	})
	for _, e := range there {
		name := filepath.Join(to, e.Name())
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("somebody else has made %s meanwhile: stop the relay and its sockets, move the folder away, and try again", name)
		}
		if err := os.Rename(filepath.Join(tmp, e.Name()), name); err != nil {
			return err
		}
	}
	return syncFolder(to)
}

// giveTo makes everything below a folder belong to the owner of another, if we may.
func giveTo(owner, dir string) error {
	info, err := os.Stat(owner)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}
