package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestAdminSocket: it is known in spite of mistakes elsewhere, and never guessed.
func TestAdminSocket(t *testing.T) {
	file := filepath.Join(t.TempDir(), "srvrelay.yaml")
	for _, c := range []struct {
		text, want string
		environ    []string
	}{
		{"hostname: relay.example.net\ndata_dir: /q\nrotues: []\nlisteners: 3\n", "/q/admin.sock", nil},
		{"data_dir: /q\nadmin: { socket: /run/s }\nrotues: []\n", "/run/s", nil},
		{"rotues: []\n", "/q/admin.sock", []string{"SRVRELAY_DATA_DIR=/q"}},
		{"data_dri: /q\n", "", nil},                                 // the default would be another relay's
		{"data_dir: q\n", "", nil},                                  // not absolute
		{"data_dir: /q\nadmin: { sokcet: /run/s }\n", "", nil},      // a mistyped socket
		{"data_dir: /q\nadmin: /run/s\n", "", nil},                  // a socket in the wrong place
		{"data_dir: /q\nroutes: [\n", "", nil},                      // no YAML
		{"data_dir: /q\ndata_dir: /p\n", "", nil},                   // which one?
		{"data_dir: /q\nadmin: { socket: run/s }\nx: 1\n", "", nil}, // not absolute
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := AdminSocket(file, nil, c.environ); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}
