package admin

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestGroup: who is in the group gets an answer, by whatever way he is in it,
// and who is not gets none, even when the mode lets everybody come.
func TestGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to run programs as other users")
	}
	const group, user = 54321, 54322
	dir, err := os.MkdirTemp("", "group") // t.TempDir is root's only
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "run", "admin.sock")
	l, err := Listen(path, strconv.Itoa(group))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go http.Serve(l, http.NotFoundHandler())
	ask := func(gid uint32, groups ...uint32) bool {
		c := exec.Command("curl", "-s", "--unix-socket", path, "http://srvrelay/")
		c.Dir, c.SysProcAttr = dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: gid, Groups: groups}}
		out, _ := c.Output()
		return strings.Contains(string(out), "not found")
	}
	if ask(user) || !ask(group) || !ask(user, 1, 2, group) {
		t.Error("not the members, or others too")
	}
	if err := GiveSocket(path, l, strconv.Itoa(group+2)); err != nil {
		t.Fatal(err)
	}
	if ask(group) || !ask(group+2) {
		t.Error("given to another group: not its members, or the old ones too")
	}
	if err := GiveSocket(path, l, strconv.Itoa(group)); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{filepath.Dir(path): 0o777, path: 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	if ask(user, 1, 2, group+1) || !ask(user, group) {
		t.Error("with a loose mode: not the members, or others too")
	}
	if err := GiveSocket(path, l, strconv.Itoa(group+1)); err != nil {
		t.Fatal(err)
	}
	if ask(group) || !ask(group+1) {
		t.Error("given to another group: not its members, or the old ones too")
	}
	if _, err := Listen(filepath.Join(dir, "x"), "no-such-group"); err == nil || !strings.Contains(err.Error(), "groupadd") {
		t.Error(err)
	}
}

// TestPID: whose limits to look at.
func TestPID(t *testing.T) {
	if pid, err := start(t, &shelf{}, nil).PID(); err != nil || pid != os.Getpid() {
		t.Errorf("got %d, %v, want %d", pid, err, os.Getpid())
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).PID(); err == nil {
		t.Error("a pid although nobody listens")
	}
}
