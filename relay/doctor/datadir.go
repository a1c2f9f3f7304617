package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// checkDataDir looks at the folder of the queue: that it is there, and that it
// belongs to one user with all that is in it.
func checkDataDir(_ context.Context, e *Env) []Finding {
	dir := e.Config.DataDir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{{
			Level: Note, What: fmt.Sprintf("%s does not exist yet", dir),
			Why: "The relay makes it when it starts, if its user may; with systemd, StateDirectory=srvrelay does.",
			Fix: fmt.Sprintf("install -d -m 0750 -o srvrelay %s   # the user of the service", dir),
		}}
	case errors.Is(err, fs.ErrPermission):
		return []Finding{notForUs(e, dir)}
	case err != nil:
		return []Finding{{Level: Error, What: err.Error(), Why: "The queue is kept there.", Fix: "correct data_dir"}}
	case !info.IsDir():
		return []Finding{{Level: Error, What: dir + " is not a folder", Why: "The queue is kept there.", Fix: "correct data_dir"}}
	}
	var found []Finding
	if info.Mode().Perm()&0o002 != 0 {
		found = append(found, Finding{
			Level: Error, What: fmt.Sprintf("every user of the machine may write to %s", dir),
			Why: "They can put another queue, other users or another key there.", Fix: "chmod o-w " + dir,
		})
	}
	found = append(found, owners(e, dir, info)...)
	if len(found) == 0 {
		found = append(found, ok("%s belongs to %s", dir, ownerName(info)))
	}
	return found
}

// owners finds what somebody else than the folder's owner has left in it, such
// as root, who had started the relay by hand.
func owners(e *Env, dir string, info fs.FileInfo) []Finding {
	for _, folder := range []string{dir, filepath.Join(dir, "queue"), filepath.Join(dir, "queue", "bodies")} {
		entries, err := os.ReadDir(folder)
		if errors.Is(err, fs.ErrPermission) {
			return []Finding{notForUs(e, folder)}
		}
		for _, entry := range entries {
			fi, err := entry.Info()
			if err != nil || ownerOf(fi) == ownerOf(info) || strings.HasPrefix(entry.Name(), tempPrefix) {
				continue
			}
			return []Finding{{
				Level: Error,
				What:  fmt.Sprintf("%s belongs to %s, and the folder to %s", filepath.Join(folder, entry.Name()), ownerName(fi), ownerName(info)),
				Why:   "The relay cannot use what belongs to another user. It happens when it was started by hand as root once.",
				Fix:   fmt.Sprintf("chown -R %s: %s   # while the relay is stopped", ownerName(info), dir),
			}}
		}
	}
	return nil
}

func notForUs(e *Env, path string) Finding {
	return Finding{
		Level: Skipped, What: fmt.Sprintf("%s cannot be looked at by %s", path, userName(e.Machine.UID)),
		Why: "It is for the relay's own user alone, as it should be.", Fix: "sudo srvrelay doctor",
	}
}

func ownerOf(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func ownerName(fi fs.FileInfo) string { return userName(ownerOf(fi)) }

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", uid)
}
