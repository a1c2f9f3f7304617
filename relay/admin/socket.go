package admin

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
)

// Listen opens the socket, which is for root, the relay's own user and one
// group: the named one or, for "", the process's own. Its folder is made if it
// is not there, and lets in the owner only (0700) or, where a group is named,
// that too. A socket file that nobody listens on is replaced.
func Listen(path, group string) (net.Listener, error) {
	gid, err := groupID(group)
	if err != nil {
		return nil, err
	}
	made, err := makeFolder(filepath.Dir(path), group != "", gid)
	if err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("admin socket %s: another process listens on it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := open0660(path, gid); err != nil {
		l.Close()
		return nil, err
	}
	m := &membersOnly{Listener: l, made: made && group != ""}
	m.gid.Store(int64(gid))
	return m, nil
}

// GiveSocket gives a socket that Listen has opened to another group.
func GiveSocket(path string, l net.Listener, group string) error {
	gid, err := groupID(group)
	if err != nil {
		return err
	}
	m, ok := l.(*membersOnly)
	if !ok || m.gid.Load() == int64(gid) {
		return nil
	}
	if err := open0660(path, gid); err != nil {
		return errors.Join(err, open0660(path, int(m.gid.Load())))
	}
	if m.made { // so it was the other group's
		if err := giveGroup(filepath.Dir(path), gid); err != nil {
			return fmt.Errorf("admin.group: %w", err)
		}
	}
	m.gid.Store(int64(gid))
	return nil
}

// open0660 gives the socket to a group, and only then opens it to that.
func open0660(path string, gid int) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	if err := giveGroup(path, gid); err != nil {
		return fmt.Errorf("admin.group: the socket cannot be given to group %d: %w (the user that runs the relay must be a member of it)", gid, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	return nil
}

// giveGroup gives a file to a group, unless it has it: a sandbox may not let us
// even ask.
func giveGroup(path string, gid int) error {
	if info, err := os.Stat(path); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Gid) == gid {
			return nil
		}
	}
	return os.Chown(path, -1, gid)
}

// groupID finds a group by its name or number.
func groupID(name string) (int, error) {
	if name == "" {
		return os.Getegid(), nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("admin.group: there is no group %.64q on this machine: make it with groupadd, or leave it out", name)
	}
	return strconv.Atoi(g.Gid)
}

// makeFolder makes the folder of the socket. One that is there is left as it is.
func makeFolder(dir string, shared bool, gid int) (made bool, err error) {
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil || !shared {
		return true, err
	}
	if err := giveGroup(dir, gid); err != nil {
		return true, fmt.Errorf("admin.group: %w", err)
	}
	return true, os.Chmod(dir, 0o750)
}

// membersOnly refuses peers that are neither root, nor the relay's own user,
// nor in the group. The socket's mode says so already; this holds even when
// somebody has loosened it.
type membersOnly struct {
	net.Listener
	gid  atomic.Int64
	made bool // the folder, for a group
}

func (l *membersOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		gid := uint32(l.gid.Load())
		if cred, err := peerCred(c); err == nil && (mayAdmin(cred.Uid) || cred.Gid == gid || slices.Contains(peerGroups(c), gid)) {
			return c, nil
		}
		c.Close()
	}
}

func mayAdmin(uid uint32) bool { return uid == 0 || int(uid) == os.Getuid() }
