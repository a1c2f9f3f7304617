//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

// soakTime is how long the load lasts: SRVRELAY_SOAK=5m (make soak), or a short
// one that keeps the test itself from rotting.
func soakTime(t *testing.T) time.Duration {
	if s := os.Getenv("SRVRELAY_SOAK"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 5*time.Second {
			t.Fatalf("SRVRELAY_SOAK=%s: want a duration of some seconds at least", s)
		}
		return d
	}
	return time.Duration(size(6, 40)) * time.Second
}

// trend is how long a run must be for its trend to say something.
const trend = 30 * time.Second

// soakMinFree is what the soak's relay leaves free of its disk.
const soakMinFree = 64 << 20

// soak is a run: a relay under an open load at 70 % of what it can do.
type soak struct {
	*rig
	ledger   *ledger
	disk     *disk // nil: faults of the disk are left out
	data     string
	run      time.Duration
	faults   []soakFault
	begun    int           // of them
	calm     time.Duration // until then mail may have piled up for a reason
	rate     float64       // messages a second
	active   []soakFault
	cuts     int // deliveries whose reply a fault may have lost
	readings []reading

	next     atomic.Int64
	refused  atomic.Int64
	shed     atomic.Int64 // arrivals that no client was free for
	refusals sync.Map     // text -> *atomic.Int64
}

// TestSoak: for a long time and under faults that come and go, what the relay
// uses stays flat, and every message that was accepted is delivered or reported.
func TestSoak(t *testing.T) {
	if soakTime(t) < trend {
		t.Parallel()
	}
	s := newSoak(t)
	idle := s.read(0)
	s.measure()
	s.load()
	s.drain()
	b := s.ledger.close(t)
	t.Log(b)
	s.refusals.Range(func(text, n any) bool { t.Logf("refused %d times: %s", n.(*atomic.Int64).Load(), text); return true })
	if n := s.shed.Load(); n > 0 {
		t.Logf("%d messages were not even offered: the machine was slower than when it was measured", n)
	}
	t.Logf("%d of %d faults took place; deliveries whose reply one of them may have lost: %d", s.begun, len(s.faults), s.cuts)
	if s.begun < len(s.faults)*9/10 {
		t.Error("the faults did not take place: the machine did not keep up with the schedule")
	}
	if b.twice > s.cuts {
		t.Errorf("%d deliveries came twice, and only %d may have", b.twice, s.cuts)
	}
	if b.accepted != b.delivered+b.reported {
		t.Errorf("accepted = delivered + reported + queued does not hold: %v, 0 queued", b)
	}
	s.flat(idle)
	s.stopWell()
}

func newSoak(t *testing.T) *soak {
	rng := seeded(t)
	s := &soak{ledger: &ledger{seed: rng.Uint64()}, run: soakTime(t)}
	s.faults = schedule(rng, s.run, os.Getuid() == 0)
	servers := map[string]sink.Options{"reports": {}}
	for g := range soakGroups {
		servers[fmt.Sprintf("g%d", g)] = sink.Options{Script: soakScript}
	}
	for name, o := range servers {
		o.Forget, o.OnMessage = true, s.ledger.deliver
		servers[name] = o
	}
	config := fmt.Sprintf(`
log: { level: info }
limits: { min_free: %dMiB }
delivery: { connections_per_target: %d, retry: { schedule: [1s, 2s, 3s], expire_after: 5h } }
`, soakMinFree>>20, soakTarget)
	if os.Getuid() == 0 {
		d := smallDisk(t, "1g")
		s.disk = &d
		config += "data_dir: " + d.dir + "/data\n"
	} else {
		t.Log("without root there is no disk to fill: that fault is left out")
	}
	s.rig = newRig(t, soakZone(nil), config, servers)
	s.data = filepath.Join(filepath.Dir(s.config), "data")
	if s.disk != nil {
		s.data = s.disk.dir + "/data"
	}
	s.quieten()
	return s
}

// quieten has the relay log what is wrong only: this process keeps its lines.
func (s *soak) quieten() {
	s.Helper()
	text, err := os.ReadFile(s.config)
	if err == nil {
		err = os.WriteFile(s.config, []byte(strings.Replace(string(text), "level: info", "level: warn", 1)), 0o600)
	}
	if err == nil {
		_, err = s.socket().Reload(context.Background())
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *soak) socket() *admin.Client { return admin.NewClient(filepath.Join(s.data, "admin.sock")) }

// client hands in the messages whose turn comes, over one connection after the
// other.
func (s *soak) client(turns <-chan struct{}) {
	var c smtpClient
	for range turns {
		if c.Conn == nil {
			var err error
			if c, err = dialSMTP(s.relay.address()); err != nil {
				s.ledger.fault("connecting: %v", err)
				return
			}
		}
		n := int(s.next.Add(1) - 1)
		_, err := c.send(soakMail(s.ledger.seed, n))
		no := refusal{}
		switch {
		case err == nil:
			s.ledger.acknowledged(n)
			continue
		case errors.As(err, &no) && strings.HasPrefix(no.reply, "4"):
			s.refused.Add(1)
			count, _ := s.refusals.LoadOrStore(no.Error(), new(atomic.Int64))
			count.(*atomic.Int64).Add(1)
		default:
			s.ledger.fault("message %d: %v", n, err)
		}
		c.Close()
		c = smtpClient{}
	}
	if c.Conn != nil {
		_ = c.quit()
		c.Close()
	}
}

// clients starts so many; wait returns when they have done all turns.
func (s *soak) clients(n int, turns <-chan struct{}) (wait func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { s.client(turns) })
	}
	return wg.Wait
}

// measure finds out what relay, servers and load can do together on this
// machine: as much as 32 clients hand in one message after the other, until
// all of it is delivered.
func (s *soak) measure() {
	s.Helper()
	begin := time.Now()
	turns := make(chan struct{})
	wait := s.clients(32, turns)
	for stop := time.After(min(max(s.run/10, time.Second), 20*time.Second)); stop != nil; {
		select {
		case turns <- struct{}{}:
		case <-stop:
			stop = nil
		}
	}
	close(turns)
	wait()
	s.emptied(time.Minute)
	took := time.Since(begin)
	s.rate = 0.7 * float64(s.next.Load()) / took.Seconds()
	s.Logf("%d messages in %s: the load is 70 %% of that, %.0f/s for %s", s.next.Load(), took.Round(time.Millisecond), s.rate, s.run)
}

// load is the open load under faults.
func (s *soak) load() {
	s.Helper()
	for _, f := range s.faults {
		s.Log(f)
	}
	turns := make(chan struct{}, int(10*s.rate)+1)
	wait := s.clients(64, turns)
	begin, last, due := time.Now(), time.Duration(0), 0.0
	every, told := min(max(s.run/60, 100*time.Millisecond), 5*time.Second), time.Duration(0)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for now := time.Duration(0); now < s.run; now = time.Since(begin) {
		for due += s.rate * (now - last).Seconds(); due >= 1; due-- {
			select {
			case turns <- struct{}{}:
			default:
				s.shed.Add(1)
			}
		}
		last = now
		s.change(s.faults, now)
		if n := len(s.readings); n == 0 || now-s.readings[n-1].at >= every {
			s.readings = append(s.readings, s.read(now))
			s.giveWay(now)
		}
		if now-told >= 10*time.Second {
			told = now
			s.Log(s.readings[len(s.readings)-1])
		}
		<-tick.C
	}
	close(turns)
	wait()
	s.change(nil, 0)
}

// giveWay lowers the rate when mail piles up without a fault: the machine has
// become slower since it was measured, as it does where others use it too, and
// it is 70 % that is to be watched, not an overload.
func (s *soak) giveWay(now time.Duration) {
	pause := max(2*time.Second, s.run/30)
	if len(s.active) > 0 {
		s.calm = now + pause
	}
	if queued := s.readings[len(s.readings)-1].queued; now < s.calm || float64(queued) < 2*s.rate {
		return
	}
	s.rate *= 0.8
	s.calm = now + pause
	s.Logf("%6s  the machine has become slower: the load is %.0f/s from here on", now.Round(time.Second), s.rate)
}

// change begins and ends faults.
func (s *soak) change(faults []soakFault, now time.Duration) {
	s.Helper()
	var active []soakFault
	for _, f := range faults {
		if f.begin <= now && now < f.end {
			active = append(active, f)
		}
	}
	if slices.Equal(active, s.active) {
		return
	}
	before := s.active
	s.active = active
	if err := s.dns.SetZone(s.ports(soakZone(active))); err != nil {
		s.Fatal(err)
	}
	for _, f := range before {
		if !slices.Contains(active, f) {
			s.end(f)
		}
	}
	for _, f := range active {
		if !slices.Contains(before, f) {
			s.begin(f)
		}
	}
}

func (s *soak) begin(f soakFault) {
	s.Helper()
	s.begun++
	var err error
	switch f.kind {
	case refusing:
		s.server(f).Stop()
		s.cuts += soakTarget
	case diskIsFull:
		err = s.disk.take(s.disk.free() - soakMinFree + 8<<20)
	case slowDNS, brokenDNS:
	default:
		err = s.server(f).SetScript(soakScripts[f.kind])
		if f.kind == "lost replies" {
			s.cuts += lostReplies
		}
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *soak) end(f soakFault) {
	s.Helper()
	var err error
	switch f.kind {
	case refusing:
		err = s.server(f).Restart()
	case diskIsFull:
		s.disk.clear()
	case slowDNS, brokenDNS:
	default:
		err = s.server(f).SetScript(soakScript)
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s *soak) server(f soakFault) *sink.Server { return s.servers[fmt.Sprintf("g%d", f.group)] }

// read takes a reading.
func (s *soak) read(at time.Duration) reading {
	s.Helper()
	door, err := s.socket().Door(context.Background())
	if err != nil {
		s.Fatal(err)
	}
	u := footprintOf(s, s.relay.cmd.Process.Pid)
	return reading{at, u.rss, int64(door.Goroutines), int64(u.fds), folderSize(s.data), door.Messages}
}

// drain waits until all is delivered. What waits for its time, or for a server
// that is back, is tried at once, as an operator would.
func (s *soak) drain() {
	s.Helper()
	begin, queued := time.Now(), s.read(s.run).queued
	s.emptied(time.Minute + s.run)
	s.Logf("the faults are over; %d queued messages were delivered in %s", queued, time.Since(begin).Round(time.Millisecond))
}

func (s *soak) emptied(limit time.Duration) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	asked := time.Now()
	poll(s, limit, "the queue is empty", func() bool {
		if time.Since(asked) > time.Second {
			asked = time.Now()
			if _, err := s.socket().Act(ctx, queue.VerbRetry, "", admin.Selection{}, func(admin.Acted) {}); err != nil {
				s.Logf("retry: %v", err)
			}
		}
		door, err := s.socket().Door(ctx)
		return err == nil && door.Messages == 0 && door.Bytes == 0
	})
	if n, err := s.socket().Count(ctx); err != nil || n != 0 {
		s.Errorf("the queue counts no messages, and there are %d, %v", n, err)
	}
}

// flat says whether what the relay uses has grown.
func (s *soak) flat(idle reading) {
	s.Helper()
	s.settled(int(idle.fds))
	s.Log("at the start ", idle)
	s.Log("and drained  ", s.read(s.run))
	if end := s.read(s.run); end.goroutines > idle.goroutines+12 {
		s.Errorf("goroutines leak: %d when idle at the start, %d at the end", idle.goroutines, end.goroutines)
	}
	if s.run < trend || raced() {
		return
	}
	flat(s.T, "RSS, KiB", s.readings, 32<<10, func(r reading) int64 { return r.rss })
	flat(s.T, "goroutines", s.readings, 100, func(r reading) int64 { return r.goroutines })
	flat(s.T, "descriptors", s.readings, 50, func(r reading) int64 { return r.fds })
	flat(s.T, "disk, bytes", s.readings, 64<<20, func(r reading) int64 { return r.disk })
}
