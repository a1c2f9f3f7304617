package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// processLimit bounds how long a relay of our own may take to start or stop.
const processLimit = 20 * time.Second

// relayProcess is a running `srvrelay serve` and its log.
type relayProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process and its log have ended

	mu        sync.Mutex
	lines     []string
	events    []map[string]any // the lines that are events
	ready     bool
	listening map[string]string // mode -> address
	grown     chan struct{}     // closed and replaced when a line comes
}

// startProcess starts `srvrelay serve` and waits until it is ready.
func startProcess(cmd *exec.Cmd) (*relayProcess, error) {
	r := &relayProcess{cmd: cmd, done: make(chan struct{}), listening: map[string]string{}, grown: make(chan struct{})}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go r.read(stderr)
	if !r.await(processLimit, func() bool { return r.ready }) {
		r.kill()
		return nil, fmt.Errorf("the relay did not start:\n%s", r.log())
	}
	return r, nil
}

func (r *relayProcess) read(stderr io.Reader) {
	defer close(r.done)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		r.mu.Lock()
		r.lines = append(r.lines, lines.Text())
		var e map[string]any
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			r.events = append(r.events, e)
			switch e["msg"] {
			case "listening":
				r.listening[fmt.Sprint(e["mode"])] = fmt.Sprint(e["address"])
			case "ready":
				r.ready = true
			}
		}
		close(r.grown)
		r.grown = make(chan struct{})
		r.mu.Unlock()
	}
	r.cmd.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.grown)
	r.grown = make(chan struct{})
}

// breath is how often await looks at a log that grows all the time.
const breath = 5 * time.Millisecond

// await waits until cond, which may look at r, holds; it is asked again
// whenever the log has grown.
func (r *relayProcess) await(limit time.Duration, cond func() bool) bool {
	deadline := time.After(limit)
	for {
		r.mu.Lock()
		ok, grown := cond(), r.grown
		r.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-grown:
			select {
			case <-time.After(breath):
			case <-r.done:
			}
		case <-r.done:
			r.mu.Lock()
			defer r.mu.Unlock()
			return cond()
		case <-deadline:
			return false
		}
	}
}

func (r *relayProcess) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

func (r *relayProcess) kill() {
	_ = r.cmd.Process.Kill()
	<-r.done
}

// matching counts the events whose name begins so and whose attributes contain
// all that is wanted. The caller holds r.mu.
func (r *relayProcess) matching(event string, want map[string]string) int {
	n := 0
	for _, e := range r.events {
		hit := strings.HasPrefix(fmt.Sprint(e["msg"]), event)
		for k, v := range want {
			if !hit {
				break
			}
			hit = strings.Contains(fmt.Sprint(e[k]), v)
		}
		if hit {
			n++
		}
	}
	return n
}

// terminate stops the relay in good order and returns how long it took.
func (r *relayProcess) terminate() (time.Duration, error) {
	begin := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	select {
	case <-r.done:
	case <-time.After(processLimit):
		return 0, fmt.Errorf("still running after %s", processLimit)
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 0 {
		return 0, fmt.Errorf("exit code %d", code)
	}
	return time.Since(begin), nil
}

// address is where mail is handed in.
func (r *relayProcess) address() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, mode := range []string{"submission", "inbound"} {
		if a := r.listening[mode]; a != "" {
			return a
		}
	}
	return ""
}
