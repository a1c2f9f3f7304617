//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"srvrelay/relay/sink"
)

// footprint is what a process uses, by /proc.
type footprint struct {
	fds       int
	rss, peak int64 // KiB
	cpu       time.Duration
}

func (u footprint) String() string {
	return fmt.Sprintf("%d descriptors, RSS %d MiB (peak %d), %.2f s of CPU", u.fds, u.rss>>10, u.peak>>10, u.cpu.Seconds())
}

// clockTick is the unit of times in /proc/PID/stat (USER_HZ, 100 on all platforms that Go knows).
const clockTick = time.Second / 100

func footprintOf(t testing.TB, pid int) (u footprint) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.fds = len(fds)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		switch f[0] {
		case "VmRSS:":
			u.rss, _ = strconv.ParseInt(f[1], 10, 64)
		case "VmHWM:":
			u.peak, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	// The name, in parentheses, may contain anything; utime and stime are the
	// 12th and 13th field after it.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, s := range f[11:13] {
		n, _ := strconv.ParseInt(s, 10, 64)
		u.cpu += time.Duration(n) * clockTick
	}
	return u
}

// goroutines has the relay die with a dump and counts its goroutines in it.
func (r *rig) goroutines() (n int) {
	r.Helper()
	r.expectEnd()
	if err := r.relay.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		r.Fatal(err)
	}
	select {
	case <-r.relay.done:
	case <-time.After(processLimit):
		r.Fatal("SIGQUIT did not end it")
	}
	for _, line := range strings.Split(r.relay.log(), "\n") {
		if strings.HasPrefix(line, "goroutine ") && strings.HasSuffix(line, ":") {
			n++
		}
	}
	return n
}

func TestLoad(t *testing.T) { loadRun(t, size(1000, 10_000)) }

const loadZone = `
_smtp._tcp.load.test. SRV 10 0 @bulk@ host.load.test.
host.load.test. A 127.0.0.1
`

// loadRun sends messages of 4 KiB over 32 connections through the relay to one
// server, and compares what the relay uses before, in the middle and after.
func loadRun(t *testing.T, messages int) {
	t.Setenv("GOTRACEBACK", "all") // for the dump
	r := newRig(t, loadZone, "log: { level: info }", map[string]sink.Options{"bulk": {Discard: true}})
	bulk := r.servers["bulk"]

	few := r.goroutines()
	r.boot()
	before := footprintOf(t, r.relay.cmd.Process.Pid)

	begin := time.Now()
	l := r.startLoad(32, false, bulkMail(messages))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := bulk.Wait(ctx, messages/2); err != nil {
		t.Fatal(err)
	}
	middle := footprintOf(t, r.relay.cmd.Process.Pid)
	l.wg.Wait()
	intake := time.Since(begin)
	if err := bulk.Wait(ctx, messages); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(begin)
	after := r.settled(before.fds)
	many := r.goroutines()

	t.Logf("before %v", before)
	t.Logf("middle %v", middle)
	t.Logf("after  %v", after)
	t.Logf("%d messages of 4 KiB over 32 connections: taken in at %.0f/s, delivered at %.0f/s; %.2f s of CPU a thousand; goroutines %d at the start, %d at the end",
		messages, float64(messages)/intake.Seconds(), float64(messages)/whole.Seconds(),
		(after.cpu-before.cpu).Seconds()*1000/float64(messages), few, many)
	r.noErrors(l, messages)
	if bulk.Count() != messages {
		t.Errorf("%d messages arrived, not %d", bulk.Count(), messages)
	}
	if many > few+8 { // the storage engine has a few that it starts when they are needed
		t.Errorf("goroutines leak: %d at the start, %d after %d messages:\n%s", few, many, messages, r.relay.log())
	}
	if raced() {
		return
	}
	if after.rss > middle.rss+32<<10 || after.peak > 192<<10 {
		t.Errorf("memory is not flat: %v, then %v", middle, after)
	}
}

// bulkMail makes messages of 4 KiB for one recipient. The server that gets
// them keeps nothing, so the book is owed nothing.
func bulkMail(messages int) func(n int) (letter, bool) {
	return func(n int) (letter, bool) {
		return letter{marker: fmt.Sprintf("load-%d", n), from: "a@client.test", to: []string{"b@load.test"}, size: 4 << 10}, n < messages
	}
}

// settled waits until the relay has about as many descriptors as at the start.
func (r *rig) settled(fds int) (u footprint) {
	r.Helper()
	// Idle sessions end after 5 s; the storage engine keeps some files open.
	const engineFiles = 12
	poll(r, 30*time.Second, fmt.Sprintf("the descriptors go back to about %d", fds), func() bool {
		u = footprintOf(r, r.relay.cmd.Process.Pid)
		return u.fds <= fds+engineFiles && !r.connected()
	})
	return u
}

// connected tells whether the relay has connections open.
func (r *rig) connected() bool {
	dir := fmt.Sprintf("/proc/%d/fd", r.relay.cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		r.Fatal(err)
	}
	sockets := 0
	for _, fd := range fds {
		if name, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasPrefix(name, "socket:") {
			sockets++
		}
	}
	return sockets > 2 // the listener and the admin socket
}

// noErrors checks that every message was taken at once and nothing was wrong
// in the relay's own eyes.
func (r *rig) noErrors(l *load, messages int) {
	r.Helper()
	l.refusals.Range(func(text, n any) bool {
		r.Errorf("refused %d times: %s", n.(*atomic.Int64).Load(), text)
		return true
	})
	r.book.check(r.T)
	r.relay.mu.Lock()
	defer r.relay.mu.Unlock()
	for _, event := range []string{"deferred", "failed", "trouble", "fault", "parked", "refused"} {
		if n := r.relay.matching(event, nil); n > 0 {
			r.Errorf("the log has %q %d times", event, n)
		}
	}
	if n := r.relay.matching("delivered", nil); n != messages {
		r.Errorf("the log has %d deliveries, not %d", n, messages)
	}
}

func TestParkedHop(t *testing.T) { parkedRun(t, size(1000, 20_000)) }

const parkedZone = `
_smtp._tcp.dead.test. SRV 10 0 @dead@ host.test.
_smtp._tcp.live.test. SRV 10 0 @live@ host.test.
host.test. A 127.0.0.1
`

// parkedRun queues many messages for a hop that is dead, and then wants
// another hop's to go as if they were not there: now, and after a restart.
func parkedRun(t *testing.T, messages int) {
	config := "log: { level: info }\ndelivery: { retry: { schedule: [1h], expire_after: 5d } }"
	r := newRig(t, parkedZone, config, map[string]sink.Options{"dead": {}, "live": {}})
	r.servers["dead"].Stop()
	empty := footprintOf(t, r.relay.cmd.Process.Pid)
	begin := time.Now()
	l := r.startLoad(16, false, func(n int) (letter, bool) {
		return letter{marker: fmt.Sprintf("dead-%d", n), from: "a@client.test", to: []string{"b@dead.test"}, size: 1000}, n < messages
	})
	l.wg.Wait()
	t.Logf("%d messages for a dead hop were queued in %s; before %v", messages, time.Since(begin).Round(time.Millisecond), empty)
	r.parkedWith("dead.test", messages)
	parked := footprintOf(t, r.relay.cmd.Process.Pid)
	first, all := r.liveDelivery("live", 200)
	beside := footprintOf(t, r.relay.cmd.Process.Pid)
	t.Logf("parked %v", parked)
	t.Logf("beside it, 200 messages for a live hop: the first after %s, all after %s; then %v", first, all, beside)

	r.stopWell()
	begin = time.Now()
	r.boot()
	ready := time.Since(begin)
	again, _ := r.liveDelivery("again", 1)
	restarted := footprintOf(t, r.relay.cmd.Process.Pid)
	t.Logf("restart with %d queued: ready after %s, the first message for the live hop after another %s; then %v", messages, ready, again, restarted)
	r.parkedWith("dead.test", messages)
	r.book.check(t)
	if r.servers["dead"].Connections() != 0 {
		t.Error("the dead server was reached")
	}
	if !raced() && (max(parked.peak, beside.peak) > 192<<10 || restarted.rss > empty.rss+32<<10) {
		t.Errorf("memory grows with the queue: %v, after a restart %v", beside, restarted)
	}
}

// liveDelivery hands messages in for the live hop, one after the other, and
// returns when the first and the last of them had arrived. None may take more
// than a few seconds, whatever else is queued.
func (r *rig) liveDelivery(name string, messages int) (first, all time.Duration) {
	r.Helper()
	begin := time.Now()
	l := r.startLoad(1, false, func(n int) (letter, bool) {
		m := letter{marker: fmt.Sprintf("%s-%d", name, n), from: "a@client.test", to: []string{"b@live.test"}, size: 1000, want: []string{"live.test"}}
		return m, n < messages
	})
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if !r.book.wait(ctx, func() bool { return r.book.arrived[name+"-0 live.test"] > 0 }) {
		r.Fatal("the live hop gets nothing")
	}
	first = time.Since(begin)
	l.wg.Wait()
	if !r.book.wait(ctx, func() bool { return len(r.book.want) == 0 }) {
		r.Fatalf("the live hop has not got everything after %s", time.Since(begin))
	}
	return first, time.Since(begin)
}

// parkedWith waits until a hop is parked with so many messages.
func (r *rig) parkedWith(hop string, messages int) {
	r.Helper()
	poll(r, waitLimit, fmt.Sprintf("%s is parked with %d messages", hop, messages), func() bool {
		hops, err := r.adminClient().Hops(context.Background())
		if err != nil {
			return false
		}
		for _, h := range hops {
			if h.Hop == hop {
				return h.Waiting == messages && !h.Parked.IsZero()
			}
		}
		return false
	})
}
