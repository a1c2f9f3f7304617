package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"srvrelay/relay/sink"
)

// TestLabCommandLine: what people type wrong, and what becomes of a message.
func TestLabCommandLine(t *testing.T) {
	t.Parallel()
	srv, err := sink.Start("127.0.0.1:0", sink.Options{Script: "rcpt nobody@* 550 5.1.1 no such user\nrcpt later@* 451 4.3.0 not \\x1b[31mnow\n"})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte("this is nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no zone", []string{"dns"}, exitUsage, "--zone FILE"},
		{"no such zone", []string{"dns", "--zone", wrong + "er"}, exitData, "no such file"},
		{"a wrong zone", []string{"dns", "--zone", wrong}, exitData, wrong + ": zone: "},
		{"a wrong script", []string{"sink", "--script", wrong}, exitData, `line 1: "this is nothing": unknown directive`},
		{"an address in use", []string{"dns", "--zone", os.DevNull, "--listen", srv.Addr()}, exitUnavailable, "Another program listens there"},
		{"no recipient", []string{"send"}, exitUsage, "--to ADDRESS"},
		{"no server", []string{"send", "--to", "a@b.test", "--server", "127.0.0.1:1"}, exitUnavailable, "connection refused"},
		{"refused", []string{"send", "--to", "nobody@b.test", "--server", srv.Addr()}, exitData, "refused: 550 no such user"},
		{"refused for now", []string{"send", "--to", "later@b.test", "--server", srv.Addr()}, exitTempFail, "refused: 451 not ?[31mnow"},
		{"taken", []string{"send", "--to", "a@b.test", "--to", "c@b.test", "--server", srv.Addr(), "--subject", "one\r\ntwo: three"}, 0, "250 "},
	} {
		code, out := invoke(t, "", "", append([]string{"lab"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", c.name, code, c.code, c.want, out)
		}
	}
	if got := srv.Messages(); len(got) != 1 || len(got[0].Rcpts) != 2 || !strings.Contains(string(got[0].Data), "Subject: one  two: three\r\n") {
		t.Errorf("arrived: %+v", got)
	}
}

// TestLabSink: a message is one line, whatever it says of itself, and SIGTERM
// ends the server well.
func TestLabSink(t *testing.T) {
	t.Parallel()
	var log lineBuffer
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	cmd := command(ctx, "", "lab", "sink", "--listen", "127.0.0.1:0", "--name", "primary")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	poll(t, waitLimit, "it is ready", func() bool { return log.count("ready on ") == 1 })
	addr := strings.TrimSpace(strings.SplitAfter(log.String(), "ready on ")[1])

	message := "From: <me@lab.test>\nSubject: =?utf-8?q?=1B[31mgr=C3=BC=C3=9Fe=0Aprimary:_forged?=\n\nhello\n"
	if refusal, err := submit(addr, "", []string{"you@lab.test", "she@lab.test"}, "", message); refusal != "" || err != nil {
		t.Fatal(refusal, err)
	}
	if refusal, err := submit(addr, "me@lab.test", []string{"you@lab.test"}, "", "no header\n"); refusal != "" || err != nil {
		t.Fatal(refusal, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		t.Errorf("exit code %d", exit.ExitCode())
	}
	want := "primary: ready on " + addr + "\n" +
		"primary: message from <> to you@lab.test she@lab.test, 93 B, clear text, subject: ?[31mgrüße primary: forged\n" +
		"primary: message from me@lab.test to you@lab.test, 11 B, clear text, subject: (no header that can be read)\n"
	if log.String() != want {
		t.Errorf("it says:\n%s\nwant:\n%s", log.String(), want)
	}
}

// lineBuffer is a log that is written and read at the same time.
type lineBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lineBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lineBuffer) String() string        { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }
func (l *lineBuffer) count(word string) int { return strings.Count(l.String(), word) }
