package relay

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestUsersFile(t *testing.T) {
	path := tempFile(t, "users")
	if _, err := LoadUsers(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadUsers of nothing: %v", err)
	}
	if err := AddUser(path, "alice", "one"); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	u, err := LoadUsers(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name, password string, want bool) {
		t.Helper()
		if ok, err := u.Authenticate(name, password); ok != want || err != nil {
			t.Errorf("%s %s: %v, %v", name, password, ok, err)
		}
	}
	check("alice", "one", true)
	check("alice", "two", false)
	check("Alice", "one", false)
	check("bob", "one", false)
	// Changes apply at once.
	for _, err := range []error{AddUser(path, "alice", "two"), AddUser(path, "bob@x.example", "b")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	check("alice", "one", false)
	check("alice", "two", true)
	check("bob@x.example", "b", true)
	if names, err := ListUsers(path); err != nil || fmt.Sprint(names) != "[alice bob@x.example]" {
		t.Errorf("%v, %v", names, err)
	}
	if err := RemoveUser(path, "alice"); err != nil {
		t.Fatal(err)
	}
	check("alice", "two", false)
	if err := RemoveUser(path, "alice"); !errors.Is(err, ErrNoUser) {
		t.Errorf("RemoveUser twice: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*tmp*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if ok, err := u.Authenticate("bob@x.example", "b"); ok || err == nil {
		t.Errorf("without a file: %v, %v", ok, err)
	}
}

func TestUsersFileKeepsWhatPeopleWrote(t *testing.T) {
	path := tempFile(t, "users")
	h, _ := NewHash("x")
	before := "# our users\n#scram-stand-ins:MDEyMzQ1Njc4OWFiY2RlZg==\n\nalice:" + h.String() + "\n# the end\n"
	if err := os.WriteFile(path, []byte(before), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := AddUser(path, "bob", "y"); err != nil {
		t.Fatal(err)
	}
	if err := RemoveUser(path, "bob"); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(path); string(after) != before {
		t.Errorf("%q became %q", before, after)
	}
}

func TestUsersFileMistakes(t *testing.T) {
	path := tempFile(t, "users")
	h, _ := NewHash("x")
	good := h.String()
	text := "ok:" + good + "\nplain:secret\n\nok:" + good + "\n:" + good + "\na b:" + good + "\n"
	if err := os.WriteFile(path, []byte("ok:"+good+"\n"), 0o604); err != nil {
		t.Fatal(err)
	}
	u, err := LoadUsers(path)
	if err != nil || u.Problem() != nil {
		t.Fatal(err, u.Problem())
	}
	if !u.Exposed() {
		t.Error("a world-readable file is not noticed")
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = LoadUsers(path)
	for _, n := range []int{2, 4, 5, 6} {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s:%d: ", path, n)) {
			t.Errorf("line %d is not in %v", n, err)
		}
	}
	if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), good) {
		t.Errorf("the error tells a secret: %v", err)
	}
	// The version before stays in force.
	if ok, err := u.Authenticate("ok", "x"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	if u.Problem() == nil {
		t.Error("no problem is told")
	}
	if err := AddUser(path, "new", "x"); err == nil || !strings.Contains(err.Error(), "not changed") {
		t.Errorf("AddUser on a broken file: %v", err)
	}
}

func TestUserNamesAndPasswords(t *testing.T) {
	path := tempFile(t, "users")
	for _, name := range []string{"", "a:b", "a b", "#a", "a\nb", "a\x00", "a\u202eb", "\xff", strings.Repeat("x", 256)} {
		if err := AddUser(path, name, "x"); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, password := range []string{"", "a\x00b", strings.Repeat("x", maxPassword+1)} {
		if err := AddUser(path, "a", password); err == nil {
			t.Errorf("password %q was taken", password)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a refused user made a file")
	}
}

func TestUsersEditedAtOnce(t *testing.T) {
	path := tempFile(t, "users")
	h, _ := NewHash("x")
	const editors, edits = 8, 10
	var wg sync.WaitGroup
	for i := range editors {
		wg.Go(func() {
			for j := range edits {
				if err := editUsers(path, true, func(lines []string) ([]string, error) {
					return append(lines, fmt.Sprintf("user%d-%d:%s", i, j, h)), nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if names, err := ListUsers(path); err != nil || len(names) != editors*edits {
		t.Errorf("%d of %d users, %v", len(names), editors*edits, err)
	}
}

// TestUnknownNameCostsTheSame: the stand-in has the real hashes' parameters.
func TestUnknownNameCostsTheSame(t *testing.T) {
	h := Hash{memory: 64, time: 3, threads: 2, salt: make([]byte, 8), key: make([]byte, 16)}
	u := &Users{userTable: userTable{hashes: map[string]Hash{"a": h}}}
	if s := u.standIn(); s.memory != 64 || s.time != 3 || s.threads != 2 || len(s.key) != 16 {
		t.Errorf("%+v", s)
	}
	if s := (&Users{}).standIn(); s.memory != hashMemory || s.time != hashTime {
		t.Errorf("%+v", s)
	}
}

func TestParseHash(t *testing.T) {
	// Made by the reference implementation: echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1
	// (the test vector of its own test suite).
	h, err := ParseHash("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	if err != nil || !h.Matches("password") || h.Matches("Password") {
		t.Errorf("reference hash: %+v, %v", h, err)
	}
	for _, bad := range []string{
		"", "secret", "$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=2,p=0$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=2,p=1,x=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=2$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=2,p=1$$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$!",
	} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			return
		}
		again, err := ParseHash(h.String())
		if err != nil || again.String() != h.String() {
			t.Errorf("%q: %v, %v", s, h, err)
		}
	})
}

func FuzzParseUsers(f *testing.F) {
	f.Add([]byte("# x\na:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		users, err := parseUsers("users", data)
		for name := range users.hashes {
			if err == nil && CheckUserName(name) != nil {
				t.Errorf("took the name %q", name)
			}
		}
	})
}
