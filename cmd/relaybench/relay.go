//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// relay is a program that can be measured.
type relay interface {
	name() string
	// prepare writes a configuration into dir, where everybody may enter.
	prepare(dir string, f *field) (launch, error)
}

// launch is how a relay is run, and where it takes mail.
type launch struct {
	command []string
	addr    string
}

// Bounds of starting and stopping a relay; a stop may sync a lot.
const (
	startLimit = time.Minute
	stopLimit  = 2 * time.Minute
	startLook  = 2 * time.Millisecond
)

// running is a relay at work.
type running struct {
	launch
	relay relay
	dir   string
	pid   int // of the relay, even if something else runs it
	cmd   *exec.Cmd
	log   *os.File
	done  chan struct{}
	begun time.Time // when it was started
}

// startRelay starts a relay on an empty queue, below dir.
func startRelay(ctx context.Context, r relay, f *field, dir string) (*running, error) {
	if err := adopt(); err != nil {
		return nil, err
	}
	own, err := os.MkdirTemp(dir, r.name()+"-")
	if err != nil {
		return nil, err
	}
	p := &running{relay: r, dir: own}
	if err = os.Chmod(own, 0o755); err == nil { // a relay may run as somebody else
		p.launch, err = r.prepare(own, f)
	}
	if err == nil {
		err = p.start(ctx, nil)
	}
	if err != nil {
		os.RemoveAll(own)
		return nil, fmt.Errorf("%s: %w", r.name(), err)
	}
	return p, nil
}

// start starts the relay, again perhaps, under another program if that is
// wanted, and waits for its banner.
func (p *running) start(ctx context.Context, under []string) (err error) {
	if p.log, err = os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return err
	}
	args := append(append([]string{}, under...), p.command...)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	ours := func(v string) bool { return strings.HasPrefix(v, "SRVRELAY_") } // would be its configuration
	p.cmd.Env = append(slices.DeleteFunc(os.Environ(), ours), pprofSocket+"="+filepath.Join(p.dir, "pprof"))
	// A session of its own, to end all of it; and it ends should we be killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	p.begun = time.Now()
	if err = p.cmd.Start(); err != nil {
		p.log.Close()
		return err
	}
	done := make(chan struct{})
	p.done, p.pid = done, p.cmd.Process.Pid
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log
		close(done)
	}()
	if err = p.await(ctx); err != nil {
		tail := p.tail()
		return errors.Join(fmt.Errorf("it did not start: %w\n%s", err, tail), p.stop())
	}
	if len(under) > 0 {
		p.pid, err = onlyChild(p.pid)
	}
	return err
}

// await waits for a banner.
func (p *running) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	for {
		if conn, err := net.DialTimeout("tcp", p.addr, time.Second); err == nil {
			conn.SetDeadline(time.Now().Add(startLimit))
			var b [3]byte
			_, err = conn.Read(b[:])
			conn.Close()
			if err == nil && string(b[:]) == "220" {
				return nil
			}
		}
		select {
		case <-p.done:
			return errors.New("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(startLook):
		}
	}
}

func onlyChild(pid int) (int, error) {
	all, err := tree(pid)
	if err != nil {
		return 0, err
	}
	for child, s := range all {
		if s.parent == pid {
			return child, nil
		}
	}
	return 0, fmt.Errorf("process %d has no child", pid)
}

// stop ends the relay in good order, or by force if it takes too long.
func (p *running) stop() error {
	defer p.log.Close()
	select {
	case <-p.done: // its number may be somebody else's by now
		return nil
	default:
	}
	_ = syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.done:
		return bury(p.cmd.Process.Pid)
	case <-time.After(stopLimit):
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		_ = p.cmd.Process.Kill()
		<-p.done
		return errors.Join(fmt.Errorf("%s did not end within %s", p.relay.name(), stopLimit), bury(p.cmd.Process.Pid))
	}
}

// adopt makes us the parent of what our children leave behind, as Postfix's
// master does its daemons, so that we see them end.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// Bounds of the end of what a relay has left behind.
const (
	buryPatience = 2 * time.Second // then it is killed
	buryLimit    = 10 * time.Second
)

// bury waits until all processes of a session whose leader has ended have done so too.
func bury(session int) error {
	for begin := time.Now(); ; time.Sleep(startLook) {
		all, err := processes()
		if err != nil {
			return err
		}
		left := 0
		for pid, s := range all {
			if s.session != session || s.zombie && s.parent != os.Getpid() {
				continue
			}
			left++
			if time.Since(begin) > buryPatience {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // it may live on, or not be ours
		}
		if left == 0 {
			return nil
		}
		if time.Since(begin) > buryLimit {
			return fmt.Errorf("%d processes of session %d do not end", left, session)
		}
	}
}

// remove stops the relay and leaves nothing of it.
func (p *running) remove() error { return errors.Join(p.stop(), os.RemoveAll(p.dir)) }

// tail is the end of the relay's log.
func (p *running) tail() []byte {
	b, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return nil
	}
	const most = 2000
	return bytes.TrimSpace(b[max(0, len(b)-most):])
}
