package doctor

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestLocal: what is wrong with this machine's files and disk, the worst first,
// without a question to the resolver and without a write.
func TestLocal(t *testing.T) {
	w := newWorld(t, "", "auth: { users_file: DIR/users }", nil)
	w.Resolver, w.Plan, w.Dial = nil, nil, nil // a question would be a panic
	w.Machine.Disk = func(string) (Disk, error) { return Disk{Free: w.Config.Limits.MinFree + 1}, nil }
	if err := os.MkdirAll(w.Config.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(w.dir, "users")
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found := Local(context.Background(), w.Env); len(found) != 1 || found[0].Check != "disk" || found[0].Level != Warning {
		t.Errorf("little space: %+v", found)
	}
	if err := os.Chmod(users, 0o666); err != nil {
		t.Fatal(err)
	}
	if found := Local(context.Background(), w.Env); len(found) != 2 || found[0].Check != "secrets" || found[0].Level != Error {
		t.Errorf("and a users file for everybody: %+v", found)
	}
	if files, err := os.ReadDir(w.Config.DataDir); err != nil || len(files) != 0 {
		t.Errorf("%v, %v", files, err)
	}
}
