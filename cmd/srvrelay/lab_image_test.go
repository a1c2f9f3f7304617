//go:build linux

package main

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// image is what the Dockerfile makes: a root and how to start in it.
type image struct {
	root       string
	env        []string
	user       syscall.Credential
	entrypoint []string
	cmd        []string
}

// process is a command of the program in a copy of the root.
func (i *image) process(root string, args ...string) *exec.Cmd {
	cmd := exec.Command(i.entrypoint[0], append(i.entrypoint[1:], args...)...)
	cmd.Env, cmd.Dir = i.env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &i.user, Setsid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// dockerfile does the steps of a Dockerfile without Docker: this machine plays
// the image that it builds in, and /src and /out there are folders here.
type dockerfile struct {
	t      testing.TB
	stage  int
	build  *strings.Replacer // of paths in the first stage
	src    string
	dir    string
	result image
}

// buildImage does every step of the source's Dockerfile; one that it does not
// know fails the test.
func buildImage(t testing.TB) *image {
	t.Helper()
	if os.Getuid() != 0 {
		unable(t, "changing the root directory needs root")
	}
	tmp := peerDir(t)
	src, out := filepath.Join(tmp, "src"), filepath.Join(tmp, "out")
	d := &dockerfile{t: t, build: strings.NewReplacer("/src", src, "/out", out), src: src, result: image{root: filepath.Join(tmp, "root")}}
	if err := os.Mkdir(d.result.root, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for n, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			if err := d.step(line); err != nil {
				t.Fatalf("Dockerfile:%d: %s: %v", n+1, line, err)
			}
		}
	}
	return &d.result
}

func (d *dockerfile) step(line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	words := strings.Fields(rest)
	switch verb + "/" + strconv.Itoa(d.stage) {
	case "FROM/0":
		d.stage++
		return d.compiler(words[0])
	case "FROM/1":
		d.stage++
		if rest != "scratch" {
			return fmt.Errorf("want scratch: nothing but what is copied")
		}
	case "WORKDIR/1":
		d.dir = d.build.Replace(rest)
		return os.MkdirAll(d.dir, 0o755)
	case "RUN/1":
		return d.run(rest)
	case "COPY/1":
		return d.copyContext(words)
	case "COPY/2":
		return d.copyOut(words)
	case "ENV/2":
		d.result.env = append(d.result.env, words...)
	case "USER/2":
		uid, gid, _ := strings.Cut(rest, ":")
		u, err := strconv.ParseUint(uid, 10, 32)
		g, err2 := strconv.ParseUint(gid, 10, 32)
		if err != nil || err2 != nil || u == 0 || g == 0 {
			return fmt.Errorf("want numbers, and not root's")
		}
		d.result.user = syscall.Credential{Uid: uint32(u), Gid: uint32(g)}
	case "ENTRYPOINT/2":
		return yamlUnmarshal(rest, &d.result.entrypoint)
	case "CMD/2":
		return yamlUnmarshal(rest, &d.result.cmd)
	case "VOLUME/2", "EXPOSE/2": // change nothing in the root
	default:
		return fmt.Errorf("the test does not know this step")
	}
	return nil
}

// compiler wants the image to have the Go that go.mod asks for.
func (d *dockerfile) compiler(from string) error {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		return err
	}
	version, ok := strings.CutPrefix(from, "golang:")
	if !ok || !strings.Contains(string(mod), "\ngo "+version) {
		return fmt.Errorf("want golang with the version in go.mod")
	}
	return nil
}

func (d *dockerfile) run(script string) error {
	if script == "go mod download" {
		return nil // fills a layer of Docker's cache and nothing else
	}
	cmd := exec.Command("sh", "-ec", d.build.Replace(script))
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// copyContext copies from the source, less what .dockerignore leaves out.
func (d *dockerfile) copyContext(words []string) error {
	ignored, err := dockerIgnore()
	if err != nil {
		return err
	}
	for _, from := range words[:len(words)-1] {
		err := filepath.WalkDir(filepath.Join("../..", from), func(p string, e fs.DirEntry, err error) error {
			rel, _ := filepath.Rel("../..", p)
			switch {
			case err != nil:
				return err
			case ignored(rel) && e.IsDir():
				return fs.SkipDir
			case ignored(rel):
				return nil
			case e.IsDir():
				return os.MkdirAll(filepath.Join(d.dir, rel), 0o755)
			}
			return copyFile(p, filepath.Join(d.dir, rel))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dockerIgnore knows whole names at the top, and **/ before a pattern of base names.
func dockerIgnore() (func(rel string) bool, error) {
	text, err := os.ReadFile("../../.dockerignore")
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return func(rel string) bool {
		return slices.ContainsFunc(lines, func(l string) bool {
			if base, deep := strings.CutPrefix(l, "**/"); deep {
				hit, _ := path.Match(base, filepath.Base(rel))
				return hit
			}
			return rel == l
		})
	}, err
}

// copyOut copies one path from the first stage into the image.
func (d *dockerfile) copyOut(words []string) error {
	uid, gid := 0, 0
	for strings.HasPrefix(words[0], "--") {
		switch key, value, _ := strings.Cut(words[0], "="); key {
		case "--from":
		case "--chown":
			if _, err := fmt.Sscanf(value, "%d:%d", &uid, &gid); err != nil {
				return err
			}
		default:
			return fmt.Errorf("the test does not know %s", key)
		}
		words = words[1:]
	}
	to := filepath.Join(d.result.root, words[1])
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-rL", "--preserve=mode", d.build.Replace(words[0]), to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Chown(to, uid, gid)
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	return err
}

// checkImage looks at what Docker would ship.
func checkImage(t *testing.T, i *image) {
	out, err := i.process(i.root, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "srvrelay ") {
		t.Errorf("version: %v\n%s", err, out)
	}
	// Where crypto/x509 looks first on Linux.
	pem, err := os.ReadFile(filepath.Join(i.root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		t.Errorf("no roots to verify certificates with: %v", err)
	}
	var files []string
	_ = filepath.WalkDir(i.root, func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, strings.TrimPrefix(p, i.root))
		}
		return err
	})
	if want := []string{"/etc/ssl/certs/ca-certificates.crt", "/srvrelay"}; !slices.Equal(files, want) {
		t.Errorf("files in the image: %q, want %q", files, want)
	}
}
