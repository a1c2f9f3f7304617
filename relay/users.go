package relay

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

// Users is a users file: lines of "name:hash" or "name:hash:keys", blank lines
// and # comments. The hash is argon2id in PHC form, the keys are SCRAM-SHA-256
// in the form of RFC 5803. Changes to the file apply to the next check.
type Users struct {
	path  string
	spare []byte // secret of stand-ins, for a file without one

	mu    sync.Mutex
	stamp fileStamp
	userTable
	err error // of the newest version of the file; the one before stays in force
}

// userTable is what a users file says.
type userTable struct {
	hashes map[string]Hash
	scram  map[string]ScramKeys
	secret []byte // of stand-ins for SCRAM; nil = none
}

// secretLine begins the comment that has the secret of stand-ins. It is in the
// file because another secret after a restart would show them to be none.
const secretLine = "#scram-stand-ins:"

const secretLen = 16 // bytes

// fileStamp tells versions of a file apart. An atomic replace changes the inode.
type fileStamp struct {
	mtime time.Time
	size  int64
	inode uint64
}

func stampOf(fi fs.FileInfo) fileStamp {
	s := fileStamp{mtime: fi.ModTime(), size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// LoadUsers reads a users file. A file that is not there is an error
// (fs.ErrNotExist): AddUser creates it.
func LoadUsers(path string) (*Users, error) {
	u := &Users{path: path, spare: newSecret()}
	if err := u.reload(); err != nil {
		return nil, err
	}
	return u, u.err
}

// Authenticate checks a name and password. It costs the same for a name that
// does not exist. When the file cannot be read, the error says so; when it has
// a mistake, the version before it stays in force (see Problem).
func (u *Users) Authenticate(name, password string) (bool, error) {
	u.mu.Lock()
	err := u.reload()
	h, known := u.hashes[name]
	if !known {
		h = u.standIn()
	}
	u.mu.Unlock()
	if err != nil {
		return false, err
	}
	return h.Matches(password) && known, nil
}

// IsUser tells whether there is a user of that name.
func (u *Users) IsUser(name string) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.reload()
	_, is := u.hashes[name]
	return is && err == nil, err
}

// OffersScram tells whether all users have SCRAM keys: clients take the best
// that is offered, and a user without keys would fail with a good password.
func (u *Users) OffersScram() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reload() == nil && len(u.scram) > 0 && len(u.scram) == len(u.hashes)
}

// ScramKeys returns the keys of a user, or false and a stand-in.
func (u *Users) ScramKeys(name string) (ScramKeys, bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.reload(); err != nil {
		return ScramKeys{}, false, err
	}
	secret := u.secret
	if secret == nil {
		secret = u.spare
	}
	stranger := scramStandIn(secret, name) // also made for those who are none: it takes time
	if k, known := u.scram[name]; known {
		return k, true, nil
	}
	return stranger, false, nil
}

// WithoutScram returns the users of a file who have no SCRAM keys, sorted.
func (u *Users) WithoutScram() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var names []string
	for n := range u.hashes {
		if _, has := u.scram[n]; !has {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func newSecret() []byte {
	b := make([]byte, secretLen)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// Problem returns what is wrong with the newest version of the file, or nil.
func (u *Users) Problem() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.reload(); err != nil {
		return err
	}
	return u.err
}

// Exposed tells whether the file can be read by others than its owner and
// group: worth a warning.
func (u *Users) Exposed() bool {
	fi, err := os.Stat(u.path)
	return err == nil && fi.Mode().Perm()&0o007 != 0
}

// standIn is a hash as costly as those of real users. mu is held.
func (u *Users) standIn() Hash {
	for _, h := range u.hashes {
		h.key = make([]byte, len(h.key)) // no password is known to give it, and Authenticate would not take it
		return h
	}
	return Hash{memory: hashMemory, time: hashTime, threads: hashThreads, salt: make([]byte, saltLen), key: make([]byte, keyLen)}
}

// reload reads the file if it has changed. mu is held (or u is new).
func (u *Users) reload() error {
	f, err := os.Open(u.path)
	if err != nil {
		return fmt.Errorf("users file: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("users file: %w", err)
	}
	if stampOf(fi) == u.stamp {
		return nil
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		return fmt.Errorf("users file: %w", err)
	}
	table, err := parseUsers(u.path, b.Bytes())
	u.stamp, u.err = stampOf(fi), err
	if err == nil {
		u.userTable = table
	}
	return nil
}

// parseUsers reads the lines of a users file; all mistakes are in the error.
func parseUsers(path string, data []byte) (userTable, error) {
	out := userTable{hashes: make(map[string]Hash), scram: make(map[string]ScramKeys)}
	var errs []error
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		if err := out.add(sc.Text()); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", path, n, err))
		}
	}
	if err := sc.Err(); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", path, err))
	}
	return out, errors.Join(errs...)
}

// add reads a line.
func (t *userTable) add(line string) error {
	if text, ok := strings.CutPrefix(strings.TrimSpace(line), secretLine); ok {
		if b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err == nil && len(b) >= secretLen {
			t.secret = b
		} // else it is a comment as any other
		return nil
	}
	name, secrets, ok := userLine(line)
	if !ok {
		return nil
	}
	hash, keys, scram := strings.Cut(secrets, ":")
	h, err := ParseHash(hash)
	if err == nil {
		err = CheckUserName(name)
	}
	if _, twice := t.hashes[name]; err == nil && twice {
		err = fmt.Errorf("user %q is there twice", name)
	}
	t.hashes[name] = h
	if err == nil && scram {
		t.scram[name], err = ParseScramKeys(keys)
	}
	return err
}

// userLine splits a line; false for a blank line or a comment.
func userLine(line string) (name, secrets string, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", "", false
	}
	name, secrets, _ = strings.Cut(line, ":")
	return name, secrets, true
}

// CheckUserName says what is wrong with a user's name, or nil.
func CheckUserName(name string) error {
	switch {
	case name == "":
		return errors.New("a user needs a name")
	case len(name) > maxName:
		return fmt.Errorf("user name longer than %d bytes", maxName)
	case !utf8.ValidString(name) || printable(name) != nil:
		return fmt.Errorf("user name %q has a control character or is not UTF-8", name)
	case strings.ContainsAny(name, ": \t") || name[0] == '#':
		return fmt.Errorf("user name %q must not contain a colon or a space, or begin with #", name)
	}
	return nil
}

// AddUser adds a user, or gives an existing one a new password, for all
// mechanisms. It creates the file, readable by its owner only, when there is none.
func AddUser(path, name, password string) error {
	if err := CheckUserName(name); err != nil {
		return err
	}
	h, err := NewHash(password)
	if err != nil {
		return err
	}
	keys, err := NewScramKeys(password)
	if err != nil {
		return err
	}
	entry := name + ":" + h.String() + ":" + keys.String()
	return editUsers(path, true, func(lines []string) ([]string, error) {
		if t, _ := parseUsers(path, []byte(strings.Join(lines, "\n"))); t.secret == nil {
			lines = append(lines, secretLine+base64.StdEncoding.EncodeToString(newSecret()))
		}
		if i := findUser(lines, name); i >= 0 {
			lines[i] = entry
			return lines, nil
		}
		return append(lines, entry), nil
	})
}

// ErrNoUser: there is no user of that name.
var ErrNoUser = errors.New("no such user")

// RemoveUser removes a user (ErrNoUser).
func RemoveUser(path, name string) error {
	return editUsers(path, false, func(lines []string) ([]string, error) {
		i := findUser(lines, name)
		if i < 0 {
			return nil, fmt.Errorf("%w: %q", ErrNoUser, name)
		}
		return slices.Delete(lines, i, i+1), nil
	})
}

// ListUsers returns the names in a users file, sorted.
func ListUsers(path string) ([]string, error) {
	u, err := LoadUsers(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for n := range u.hashes {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func findUser(lines []string, name string) int {
	return slices.IndexFunc(lines, func(l string) bool {
		n, _, ok := userLine(l)
		return ok && n == name
	})
}

// editUsers changes the lines of a users file and replaces it atomically.
// Others who edit it this way wait: the folder is locked meanwhile.
func editUsers(path string, create bool, edit func([]string) ([]string, error)) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // replace the file, not a link to it
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("users file: %w", err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("users file: lock %s: %w", dir.Name(), err)
	}
	data, err := os.ReadFile(path)
	if err != nil && (!create || !errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("users file: %w", err)
	}
	if _, err := parseUsers(path, data); err != nil {
		return fmt.Errorf("not changed, mend it first: %w", err)
	}
	var lines []string
	if text := strings.TrimRight(string(data), "\n"); text != "" {
		lines = strings.Split(text, "\n")
	}
	if lines, err = edit(lines); err != nil {
		return err
	}
	text := strings.Join(lines, "\n")
	if text != "" {
		text += "\n"
	}
	return replaceFile(path, []byte(text))
}

// replaceFile writes a file so that readers, and a power cut, see the old or
// the new one whole. Where that is allowed, a file that exists keeps its owner
// and group, and a new one gets those of its folder; its mode becomes 0600, or
// 0640 when its group could read it.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-"+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing to remove
	defer f.Close()
	if old, err := os.Stat(path); err == nil {
		if giveTo(f, old) && old.Mode().Perm()&0o040 != 0 {
			_ = f.Chmod(0o640)
		}
	} else if folder, err := os.Stat(filepath.Dir(path)); err == nil {
		giveTo(f, folder)
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// giveTo makes a new file belong to whom another belongs: an administrator
// makes or changes it, and the relay's own user must still read it. It tells
// whether it is so; it cannot be for all but root, whose file it then is anyway.
func giveTo(f *os.File, like fs.FileInfo) bool {
	st, ok := like.Sys().(*syscall.Stat_t)
	return ok && f.Chown(int(st.Uid), int(st.Gid)) == nil
}
