package admin

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPID: whose limits to look at.
func TestPID(t *testing.T) {
	if pid, err := start(t, &shelf{}, nil).PID(); err != nil || pid != os.Getpid() {
		t.Errorf("got %d, %v, want %d", pid, err, os.Getpid())
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).PID(); err == nil {
		t.Error("a pid although nobody listens")
	}
}
