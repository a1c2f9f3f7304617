package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/queue/pebblestore"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

const (
	backupFormat = "srvrelay backup 1"
	backupRecord = "srvrelay-backup.json" // the last file of a backup: without it, it is not complete
	backupFolder = "backup.tmp"           // in data_dir, while a backup is being made
)

// backupOf is the record of a backup.
type backupOf struct {
	Format      string       `json:"format"`
	Version     string       `json:"version"` // of the program that made it
	Made        time.Time    `json:"made"`
	Hostname    string       `json:"hostname"`
	QueueFormat string       `json:"queue_format"`
	Files       []backupFile `json:"files"`
}

// backupFile is one file of it, by its name in data_dir.
type backupFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func backupCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "backup DIR", Short: "Copy the queue and the relay's other data while it runs", Args: args(cobra.ExactArgs(1)),
		Long: `Writes what is in data_dir into the new folder DIR: the queue as it is at one moment,
certificates that were fetched, keys, bans and counters. The relay goes on meanwhile, and
everything that it had acknowledged is in it. The configuration is not: save
/etc/srvrelay too. DIR holds mail and keys, and is for its owner alone.

srvrelay restore DIR puts it back. What was delivered after the backup goes out again
then. To move mail to a relay that has some already: srvrelay queue export.

Exit code: 0 DIR is complete, 65 DIR cannot be used, 69 no relay is running (then copy
data_dir as it is).`,
		Example: `  srvrelay backup /var/backups/srvrelay/$(date +%F)`,
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := askingConfig(c)
			if err != nil {
				return err
			}
			made, err := newFolder(a[0], cfg.DataDir)
			if err != nil {
				return &exitError{exitData, fmt.Errorf("backup: %w", err)}
			}
			b, err := takeBackup(c.Context(), admin.NewClient(adminSocket(cfg)), a[0])
			if errors.Is(err, admin.ErrNotRunning) {
				if made {
					_ = os.Remove(a[0]) // which is empty
				}
				return &exitError{exitUnavailable, fmt.Errorf("%w\nThen data_dir may be copied as it is, with its owner and modes: cp -a", err)}
			}
			if err != nil {
				return fmt.Errorf("backup: %w\n%s is not complete", err, a[0])
			}
			fmt.Fprintf(c.OutOrStdout(), "%s in %s\n", b, a[0])
			return nil
		},
	}
	return c
}

// String is a backup for people.
func (b backupOf) String() string {
	var size int64
	for _, f := range b.Files {
		size += f.Size
	}
	return fmt.Sprintf("%s %s, %s", count(len(b.Files)), plural(len(b.Files), "file"), bytesText(size))
}

// newFolder makes a folder for its owner alone outside of the data, or takes one
// that is empty.
func newFolder(dir, data string) (made bool, err error) {
	inside, err := isBelow(dir, data)
	if err == nil && inside {
		err = fmt.Errorf("%s is in data_dir, and each backup would have all earlier ones in it: choose another folder", dir)
	}
	if err != nil {
		return false, err
	}
	_, err = os.Stat(dir)
	made = errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("%s is not empty: choose another folder", dir)
	}
	if err == nil && !made {
		err = os.Chmod(dir, 0o700)
	}
	return made, err
}

// isBelow tells whether a folder, which need not be there yet, is another or in it.
func isBelow(dir, other string) (bool, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return false, err
	}
	there, err := os.Stat(other)
	if err != nil {
		return false, nil // the relay may see it; it is not where we are
	}
	for ; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && os.SameFile(info, there) {
			return true, nil
		}
		if dir == filepath.Dir(dir) {
			return false, nil
		}
	}
}

// takeBackup writes the relay's backup into an empty folder.
func takeBackup(ctx context.Context, client *admin.Client, dir string) (b backupOf, err error) {
	stream, err := client.Backup(ctx)
	if err != nil {
		return b, err
	}
	defer stream.Close()
	in := tar.NewReader(stream)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return b, errors.New("the relay did not come to the end; its log may say why")
		}
		if err != nil {
			return b, err
		}
		if !filepath.IsLocal(h.Name) || h.Typeflag != tar.TypeReg {
			return b, fmt.Errorf("the relay sent %q, which is no file of a backup", h.Name)
		}
		sum, err := writeSynced(filepath.Join(dir, h.Name), in)
		if err != nil {
			return b, err
		}
		if h.Name == backupRecord {
			whole, err := readBackup(dir)
			if err == nil && !slices.Equal(whole.Files, b.Files) {
				err = errors.New("what came is not what the relay has sent")
			}
			return whole, err
		}
		b.Files = append(b.Files, backupFile{h.Name, h.Size, sum})
	}
}

// writeSynced writes a new file, durably, and returns the checksum of what is in it.
func writeSynced(name string, from io.Reader) (sum string, err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), syncFolder(filepath.Dir(name))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readBackup reads the record of a complete backup.
func readBackup(dir string) (b backupOf, err error) {
	text, err := os.ReadFile(filepath.Join(dir, backupRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return b, fmt.Errorf("%s is no complete backup: there is no %s in it", dir, backupRecord)
	}
	if err == nil {
		err = json.Unmarshal(text, &b)
	}
	if err == nil && b.Format != backupFormat {
		err = fmt.Errorf("its format is %q, and this version reads %q", queue.Safe(b.Format, 80), backupFormat)
	}
	if err != nil {
		return b, fmt.Errorf("%s: %w", filepath.Join(dir, backupRecord), err)
	}
	return b, nil
}

// forgetBackup deletes what a backup has left that a crash has cut off. Nobody
// else makes one: the queue is ours.
func (s *service) forgetBackup(cfg *config.Config) {
	if err := os.RemoveAll(filepath.Join(cfg.DataDir, backupFolder)); err != nil {
		s.log.Warn("what is left of a backup cannot be deleted", "error", err)
	}
}

// backup writes a copy of data_dir as a tar stream, the record of it last.
func (s *service) backup(ctx context.Context, w io.Writer) error {
	if !s.copy.TryLock() {
		return fmt.Errorf("another backup is being made: %w", queue.ErrExists)
	}
	defer s.copy.Unlock()
	cfg := s.now.Load().cfg
	begin, dir := time.Now(), filepath.Join(cfg.DataDir, backupFolder)
	s.forgetBackup(cfg)
	defer s.forgetBackup(cfg)
	if err := errors.Join(noLinks(cfg.DataDir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	if err := s.store.Backup(filepath.Join(dir, "queue")); err != nil {
		return err
	}
	held := time.Since(begin)
	b := backupWriter{ctx: ctx, out: tar.NewWriter(w), record: backupOf{
		Format: backupFormat, Version: version, Made: begin.UTC().Round(time.Second), Hostname: cfg.Hostname, QueueFormat: pebblestore.Format,
	}}
	err := errors.Join(b.folder(dir), b.folder(cfg.DataDir, "queue", backupFolder, backupRecord))
	if err == nil {
		err = b.finish()
	}
	if err != nil {
		s.log.Error("a backup failed", "error", err)
		return err
	}
	s.log.Info("backup", "files", len(b.record.Files), "held", held, "duration", time.Since(begin))
	return nil
}

// noLinks wants no link in a folder: what is behind it would be missing. The queue,
// which is read by the store, may be one.
func noLinks(dir string) error {
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case name == filepath.Join(dir, "queue") && err == nil && e.IsDir():
			return fs.SkipDir
		case err == nil && e.Type()&fs.ModeSymlink != 0 && name != filepath.Join(dir, "queue"):
			return fmt.Errorf("%s is a link, and what is behind it would be missing: have the file itself there, or mount the folder", name)
		case errors.Is(err, fs.ErrNotExist):
			return nil
		}
		return err
	})
}

// backupWriter writes files into a tar stream and remembers them.
type backupWriter struct {
	ctx    context.Context
	out    *tar.Writer
	record backupOf
}

// folder writes all regular files below a folder but for some names in it. A file
// that goes meanwhile is not there.
func (b *backupWriter) folder(dir string, but ...string) error {
	root := os.DirFS(dir)
	return fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case slices.Contains(but, name) && e.IsDir():
			return fs.SkipDir
		case slices.Contains(but, name):
			return nil
		case err == nil && e.Type().IsRegular() && filepath.Base(name) != "LOCK":
			err = b.file(root, name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, b.ctx.Err())
	})
}

func (b *backupWriter) file(root fs.FS, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.out.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime()}); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(b.out, h), io.LimitReader(f, info.Size())) // one that grows is as it was
	if err == nil && n != info.Size() {
		err = fmt.Errorf("%s became shorter while it was read", name)
	}
	b.record.Files = append(b.record.Files, backupFile{name, n, hex.EncodeToString(h.Sum(nil))})
	return err
}

func (b *backupWriter) finish() error {
	text, err := json.MarshalIndent(b.record, "", "  ")
	if err != nil {
		return err
	}
	err = b.out.WriteHeader(&tar.Header{Name: backupRecord, Mode: 0o600, Size: int64(len(text)) + 1, ModTime: b.record.Made})
	if err == nil {
		_, err = b.out.Write(append(text, '\n'))
	}
	return errors.Join(err, b.out.Close())
}
