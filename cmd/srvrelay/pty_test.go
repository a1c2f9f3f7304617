package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialogue is a prompt to wait for, and what is typed then.
type dialogue struct{ prompt, answer string }

// invokeAtTerminal runs the real program at a pseudo-terminal and returns its
// exit code and all that was on the screen.
func invokeAtTerminal(t *testing.T, config string, talk []dialogue, args ...string) (int, string) {
	t.Helper()
	master, slave := openTerminal(t)
	cmd := command(context.Background(), config, args...)
	cmd.Env = append(cmd.Env, "HOME="+t.TempDir(), "NO_COLOR=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	screen := &seenText{grown: make(chan struct{})}
	go screen.read(master)
	for _, d := range talk {
		if !screen.await(d.prompt) {
			t.Errorf("no prompt %q in\n%s", d.prompt, screen.text())
			_ = cmd.Process.Kill()
			break
		}
		fmt.Fprint(master, d.answer+"\n")
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	<-screen.ended()
	return cmd.ProcessState.ExitCode(), strings.ReplaceAll(screen.text(), "\r\n", "\n")
}

// openTerminal is a pseudo-terminal of Linux (pts(4)).
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		if os.Getenv("SRVRELAY_NOSKIP") != "" {
			t.Fatal(err)
		}
		t.Skip("no pseudo-terminals: ", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// seenText is what came to the screen so far; await looks behind what it found
// before.
type seenText struct {
	mu    sync.Mutex
	all   bytes.Buffer
	from  int
	done  bool
	grown chan struct{} // closed and replaced when something comes
}

func (s *seenText) read(master *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := master.Read(b) // EIO when the last program has closed the terminal
		s.mu.Lock()
		s.all.Write(b[:n])
		s.done = err != nil
		close(s.grown)
		s.grown = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *seenText) await(text string) bool {
	limit := time.After(processLimit)
	for {
		s.mu.Lock()
		i := strings.Index(s.all.String()[s.from:], text)
		if i >= 0 {
			s.from += i + len(text)
		}
		grown, done := s.grown, s.done
		s.mu.Unlock()
		if i >= 0 || done {
			return i >= 0
		}
		select {
		case <-grown:
		case <-limit:
			return false
		}
	}
}

// ended is closed when the program has closed the terminal.
func (s *seenText) ended() <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		s.await("\x00 never shown")
	}()
	return end
}

func (s *seenText) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}
