package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// SystemFile is read when neither --config nor $SRVRELAY_CONFIG names a file.
const SystemFile = "/etc/srvrelay/srvrelay.yaml"

// maxFile bounds what is read: no configuration is that long, but /dev/zero is.
const maxFile = 1 << 20

// Find is the file to load: the flag --config, else $SRVRELAY_CONFIG, else
// SystemFile if it exists, else "" for the embedded default. It never looks in
// the working directory: what a relay does must not depend on where it is
// started.
func Find(flag string, environ []string) string {
	return find(flag, environ, SystemFile)
}

func find(flag string, environ []string, system string) string {
	if flag != "" {
		return flag
	}
	if path := getenv(environ, EnvFile); path != "" {
		return path
	}
	// Anything but "not there" is for Load to complain about.
	if _, err := os.Lstat(system); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return system
}

// machine is what the defaults take from the machine.
type machine struct {
	hostname string
	root     bool
}

func thisMachine() machine {
	name, _ := os.Hostname() // without one, the default for that is used
	return machine{hostname: name, root: os.Geteuid() == 0}
}

// Load reads the file at path ("" for none), then the variables SRVRELAY_* of
// environ, then the flags of AddFlags that were given (nil for none), and
// checks the result. The error is of the type Problems: all that is wrong, at
// once. Files that the configuration names are looked at by CheckFiles only.
func Load(path string, flags *pflag.FlagSet, environ []string) (*Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, Problems{{File: path, Message: err.Error()}}
	}
	return load(source{path, text, flags, environ, thisMachine()})
}

// source is all that a configuration is made of.
type source struct {
	path    string
	text    []byte
	flags   *pflag.FlagSet
	environ []string
	machine machine
}

// AdminSocket is where a relay with this configuration is asked, whatever else
// is wrong in it; "" if that is not sure: a mistyped data_dir must not lead to
// another relay of this machine.
func AdminSocket(path string, flags *pflag.FlagSet, environ []string) string {
	text, err := readFile(path)
	if err != nil {
		return ""
	}
	c, problems, whole := read(source{path, text, flags, environ, thisMachine()})
	_, named := c.origins["admin.socket"]
	if _, folder := c.origins["data_dir"]; folder {
		named = true
	}
	about := func(p Problem) bool { return p.Path == "data_dir" || strings.HasPrefix(p.Path, "admin") }
	if !whole || !named || slices.ContainsFunc(problems, about) {
		return ""
	}
	return c.Admin.Socket
}

func load(s source) (*Config, error) {
	c, problems, whole := read(s)
	if whole { // else all is defaults, and the rest would be noise
		problems = append(problems, c.validate(problems)...)
	}
	if len(problems) > 0 {
		return nil, problems.Sorted()
	}
	return c, nil
}

// read puts the layers on top of each other, without a look at what the values
// mean together. Whole: what has no problem of its own in c can be used.
func read(s source) (c *Config, problems Problems, whole bool) {
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	c = &Config{File: s.path, origins: origins{}}
	c.getenv = func(name string) string { return getenv(s.environ, name) }
	for _, n := range schema().leaves() {
		v.SetDefault(n.viperKey(), defaultOf(n))
	}

	r := &reader{file: s.path, origins: c.origins}
	if s.path != "" {
		if err := v.MergeConfigMap(r.readYAML(s.text)); err != nil {
			return c, Problems{{File: s.path, Message: err.Error()}}, false
		}
	}
	problems = r.problems

	env, wrong := readEnv(s.environ)
	problems = append(problems, wrong...)
	given, wrong := readFlags(s.flags)
	problems = append(problems, wrong...)
	for _, set := range append(env, given...) { // later ones win
		v.Set(set.key.viperKey(), set.value)
		c.origins[set.key.Path] = origin{File: set.source}
	}

	if err := decode(v, c); err != nil {
		return c, append(problems, Problem{File: s.path, Message: err.Error()}), false
	}
	c.fillIn(s.machine, s.environ)
	return c, problems, !r.broken
}

// decode fills c from the layers. All texts have been checked by now, so an
// error is a mistake in this package; it is reported all the same.
func decode(v *viper.Viper, c *Config) error {
	err := v.UnmarshalExact(c, func(d *mapstructure.DecoderConfig) {
		d.TagName = "key"
		d.WeaklyTypedInput = false // else 30 would be 30 ns
		d.DecodeHook = func(from, to reflect.Type, data any) (any, error) {
			text, ok := data.(string)
			if !ok || to.Kind() == reflect.Slice || to.Kind() == reflect.Pointer { // asked again for what is in it
				return data, nil
			}
			return parse(to, text)
		}
	})
	if err != nil {
		return fmt.Errorf("the configuration cannot be read: %w", err)
	}
	return nil
}

// defaultOf is the default of a key as the file would have it.
func defaultOf(n *node) any {
	switch n.Kind {
	case list:
		words := []any{}
		for _, w := range strings.Fields(n.Default) {
			words = append(words, w)
		}
		return words
	case objects:
		if n.Path == "listeners" { // one door for programs on this machine
			return []any{map[string]any{"address": "127.0.0.1:2525", "mode": Submission, "tls": TLSNone}}
		}
		if n.Path == "submission.limits" {
			return defaultLimits()
		}
		return []any{}
	}
	return n.Default
}

func readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("does not exist (--config FILE or $SRVRELAY_CONFIG names the configuration)")
	} else if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", underlying(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("is a folder, want a file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", underlying(err))
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("is longer than %s, which no configuration is", FormatSize(maxFile))
	}
	return text, nil
}

// underlying is the cause without the operation and path, which the line says.
func underlying(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	var e *exec.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

func getenv(environ []string, name string) string {
	value := ""
	for _, entry := range environ { // the last one counts, as for os/exec
		if k, v, _ := strings.Cut(entry, "="); k == name {
			value = v
		}
	}
	return value
}

// fillIn sets the defaults that depend on the machine or on other keys.
func (c *Config) fillIn(m machine, environ []string) {
	if c.Hostname == "" {
		c.Hostname = "localhost"
		if name, err := domain(m.hostname); err == nil {
			c.Hostname = name
		}
	}
	if c.DataDir == "" {
		c.DataDir = defaultDataDir(m.root, getenv(environ, "XDG_STATE_HOME"), getenv(environ, "HOME"))
	}
	if c.Auth.UsersFile == "" {
		c.Auth.UsersFile = filepath.Join(c.DataDir, "users")
	}
	if c.Admin.Socket == "" {
		c.Admin.Socket = filepath.Join(c.DataDir, "admin.sock")
	}
	for i := range c.Routes {
		c.Routes[i].complete()
	}
	for i := range c.Fetch {
		c.Fetch[i].complete()
	}
}

// systemDataDir is for a relay of the whole machine; the packages make it the home
// of the user that the service runs as.
const systemDataDir = "/var/lib/srvrelay"

// defaultDataDir follows the XDG base directory specification, in which a
// relative $XDG_STATE_HOME is to be ignored. It is "" when there is no home. The
// service and root, who asks it, mean the same folder.
func defaultDataDir(root bool, state, home string) string {
	switch {
	case root || home == systemDataDir:
		return systemDataDir
	case filepath.IsAbs(state):
		return filepath.Join(state, "srvrelay")
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local", "state", "srvrelay")
	}
	return ""
}
