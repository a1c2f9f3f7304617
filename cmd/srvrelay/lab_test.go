//go:build linux

package main

import (
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the commands print into docs/lab.md")

const labPage = "../../docs/lab.md"

// TestLab builds the image that the Dockerfile describes, runs the services of
// docker-compose.yml from it in network namespaces, and follows docs/lab.md to
// the letter.
func TestLab(t *testing.T) {
	t.Parallel()
	image := buildImage(t)
	t.Run("image", func(t *testing.T) { checkImage(t, image) })
	t.Run("walk", func(t *testing.T) { newLab(t, image).walk() })
}

// TestComposeFile: Debian's docker-compose accepts the file.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("docker-compose"); err != nil {
		unable(t, "docker-compose is not installed")
	}
	out, err := exec.Command("docker-compose", "--file", "../../docker-compose.yml", "config", "--quiet").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("docker-compose config: %v\n%s", err, out)
	}
}

// walk does what the page's console blocks say, and compares what comes.
func (l *lab) walk() {
	page, err := os.ReadFile(labPage)
	if err != nil {
		l.Fatal(err)
	}
	var written strings.Builder
	commands := 0
	text, inside := string(page), false
	for part := range strings.SplitSeq(text, "```") {
		body, console := strings.CutPrefix(part, "console\n")
		if console && inside {
			part = "console\n"
			for _, step := range strings.Split("\n"+body, "\n$ ")[1:] {
				command, want, _ := strings.Cut(step, "\n")
				got := l.step(command, want)
				part += "$ " + command + "\n" + got
				commands++
			}
		}
		if inside {
			part = "```" + part + "```"
		}
		written.WriteString(part)
		inside = !inside
	}
	if commands < 15 {
		l.Errorf("only %d commands found in %s", commands, labPage)
	}
	if *update {
		if err := os.WriteFile(labPage, []byte(written.String()), 0o644); err != nil {
			l.Fatal(err)
		}
	}
}

// settling is how long what a command shows may take to be what the page says.
const settling = 20 * time.Second

// step does one command. What comes from looking is looked at until it is what
// the page shows, as a person would.
func (l *lab) step(command, want string) string {
	l.Helper()
	begin := time.Now()
	got, looks := l.compose(command)
	if *update && looks { // the page shows what things come to
		time.Sleep(settling)
		got, _ = l.compose(command)
		return got
	}
	shown := func() bool { return plain(got) == plain(want) }
	again := func() bool {
		if !shown() {
			got, _ = l.compose(command)
		}
		return shown()
	}
	if looks {
		_ = until(again, func() error { return nil }) // the words are below
	}
	if !*update && !shown() {
		l.Fatalf("$ %s\n%s\n%s shows:\n%s\n(go test -run TestLab -update writes the page anew)", command, plain(got), labPage, plain(want))
	}
	l.Logf("%5d ms  $ %s", time.Since(begin).Milliseconds(), command)
	return got
}

// compose does what docker compose would; looks: doing it again changes nothing.
func (l *lab) compose(command string) (output string, looks bool) {
	l.Helper()
	words := strings.Fields(command)
	if len(words) < 3 || words[0] != "docker" || words[1] != "compose" {
		l.Fatalf("the test does not know how to do: %s", command)
	}
	verb, rest := words[2], words[3:]
	switch {
	case verb == "up" && strings.Join(rest, " ") == "--build --detach":
		for _, name := range []string{"dns", "primary", "backup", "relay"} { // depends_on
			l.services[name].start()
		}
		l.publishedPorts()
		return "", false
	case verb == "down":
		for _, c := range l.services {
			c.stop()
		}
		return "", false
	case verb == "start" && len(rest) == 1:
		l.service(rest[0]).start()
		return "", false
	case verb == "stop" && len(rest) == 1:
		l.service(rest[0]).stop()
		return "", false
	case verb == "logs" && len(rest) == 2 && rest[0] == "--no-log-prefix":
		return l.service(rest[1]).log.String(), true
	case verb == "exec" && len(rest) > 2 && rest[1] == "srvrelay":
		return l.service(rest[0]).exec(rest[2:]...), rest[2] != "lab"
	}
	l.Fatalf("the test does not know how to do: %s", command)
	return "", false
}

func (l *lab) service(name string) *container {
	l.Helper()
	if l.services[name] == nil {
		l.Fatalf("no service %q in docker-compose.yml", name)
	}
	return l.services[name]
}

// publishedPorts: who comes through a port on the machine's loopback, which
// Docker makes come from the network's gateway, may submit.
func (l *lab) publishedPorts() {
	n := 0
	for name, c := range l.services {
		for _, addr := range c.published {
			n++
			if err := l.gateway.do(func() error { return offer(addr) }); err != nil {
				l.Errorf("%s from the machine itself: %v", name, err)
			}
		}
	}
	if n == 0 {
		l.Error("no port is published: the page says that other programs can hand in mail")
	}
}

// offer goes as far as a recipient.
func offer(addr string) error {
	c, err := dialSMTP(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.command(250, "MAIL FROM:<me@lab.example>"); err != nil {
		return err
	}
	return c.command(250, "RCPT TO:<you@lab.example>")
}

// patterns find what is another at every run: ids, times, sizes, padding.
var patterns = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`), "ID"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\b`), "TIME"},
	{regexp.MustCompile(`\((in [0-9smh ]+|now|[0-9smh ]+ ago)\)`), "(WHEN)"},
	{regexp.MustCompile(`\b\d+(\.\d)? (B|KiB|s|ms)\b`), "N $2"},
	{regexp.MustCompile(`\b\d+×`), "N×"},
	// Which of the two depends on what the host's neighbour table has noticed.
	{regexp.MustCompile(`no connection: no route to host`), "no answer to the connection request"},
	{regexp.MustCompile(` +`), " "},
}

// plain is text without what varies.
func plain(text string) string {
	text = strings.TrimSpace(text)
	for _, p := range patterns {
		text = p.find.ReplaceAllString(text, p.put)
	}
	return text
}
