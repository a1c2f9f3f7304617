//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

// SRVRELAY_KILL_ROUNDS is how often it is killed (make kill-rounds).
func TestKill9(t *testing.T) {
	rounds := size(3, 25)
	if s := os.Getenv("SRVRELAY_KILL_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("SRVRELAY_KILL_ROUNDS=%s is no number of rounds", s)
		}
		rounds = n
	}
	kill9(t, rounds)
}

// Of alpha.test the first server comes and goes, and there is a second one; of
// gamma.test the only one comes and goes.
const crashZone = `
_smtp._tcp.alpha.test. SRV 10 0 @one@ host.test.
_smtp._tcp.alpha.test. SRV 20 0 @two@ host.test.
_smtp._tcp.beta.test. SRV 10 0 @two@ host.test.
_smtp._tcp.gamma.test. SRV 10 0 @three@ host.test.
_smtp._tcp.client.test. SRV 10 0 @reports@ host.test.
host.test. A 127.0.0.1
`

// crashConcurrency is how many deliveries are in flight at most, and so how
// many a kill may have made to be repeated.
const (
	crashConcurrency = 20
	crashPerTarget   = 5
)

func crashServers() map[string]sink.Options {
	refuses := sink.Options{Script: "rcpt bad@* 550 5.1.1 no such user"}
	return map[string]sink.Options{"one": refuses, "two": refuses, "three": refuses, "reports": {}}
}

// crashMail is a mix: most have one recipient, some are large enough to be
// stored in several parts, some have a recipient that is refused for good.
func crashMail(n int) (letter, bool) {
	m := letter{marker: fmt.Sprintf("crash-%d", n), from: "a@client.test", size: 1000}
	if n%29 == 11 {
		m.size = 150 << 10
	}
	switch n % 10 {
	case 0, 1, 2, 3:
		m.to, m.want = []string{"b@alpha.test"}, []string{"alpha.test"}
	case 4, 5:
		m.to, m.want = []string{"b@beta.test", "c@beta.test"}, []string{"beta.test"}
	case 6, 7:
		m.to, m.want = []string{"b@gamma.test"}, []string{"gamma.test"}
	case 8:
		m.to, m.want = []string{"b@alpha.test", "bad@beta.test"}, []string{"alpha.test", reportsTo}
	case 9:
		m.to, m.want = []string{"bad@alpha.test"}, []string{reportsTo}
	}
	return m, true
}

// seeded makes random moments; with SRVRELAY_SEED the same ones, as far as the
// machine keeps time.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("SRVRELAY_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SRVRELAY_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 9))
}

// kill9 kills the relay again and again in the middle of a load, while servers
// come and go. Everything that got a 250 must arrive, or be reported to its
// sender when it was refused, and only what was in flight may come twice.
func kill9(t *testing.T, rounds int) {
	rng := seeded(t)
	config := fmt.Sprintf("log: { level: info }\ndelivery: { concurrency: %d, connections_per_target: %d }", crashConcurrency, crashPerTarget)
	r := newRig(t, crashZone, config, crashServers())
	l := r.startLoad(16, false, crashMail)
	var slowest time.Duration
	perRound := 500
	if rounds > 100 {
		perRound = 100 // a round takes about a second
	}
	cuts := 0 // deliveries that a stop of a server may have cut
	for round := range rounds {
		flapping := r.servers[[]string{"three", "one"}[round%2]]
		if round%4 < 2 {
			flapping.Stop()
			cuts += crashPerTarget
		}
		r.acknowledge(20 + rng.IntN(perRound))
		time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond) // a random moment, not one right behind a 250
		r.expectEnd()
		r.relay.kill()
		if round%2 == 0 { // back while the relay is away, or when it runs again
			r.restart(flapping)
		}
		begin := time.Now()
		r.boot()
		slowest = max(slowest, time.Since(begin))
		r.restart(flapping)
		if (round+1)%50 == 0 {
			acked, owed := r.book.count()
			fmt.Fprintf(os.Stderr, "%d kills: %d messages acknowledged, %d deliveries on the way, %d repeated, ready again after %s at most\n",
				round+1, acked, owed, r.book.duplicates(), slowest.Round(time.Millisecond))
		}
	}
	r.acknowledge(100)
	l.end()
	r.drained(30*time.Second+time.Duration(rounds)*4*time.Second, r.adminClient())
	r.stopWell()

	acked, lost := r.book.count()
	twice, most := r.book.duplicates(), rounds*crashConcurrency+cuts
	t.Logf("%d kills: %d messages acknowledged, %d deliveries of them lost; %d deliveries were repeated (at most %d may be); %d reports; ready again after %s at most",
		rounds, acked, lost, twice, most, len(r.book.reports), slowest.Round(time.Millisecond))
	if twice > most {
		t.Errorf("%d deliveries were repeated, and at most %d were in flight", twice, most)
	}
}

func (r *rig) restart(srv *sink.Server) {
	r.Helper()
	if err := srv.Restart(); err != nil {
		r.Fatal(err)
	}
}

// acknowledge waits until so many more messages have got their 250.
func (r *rig) acknowledge(more int) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	acked, _ := r.book.count()
	if !r.book.wait(ctx, func() bool { return len(r.book.acked) >= acked+more || len(r.book.faults) > 0 }) {
		r.Fatal("the load does not go on")
	}
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	if len(r.book.faults) > 0 {
		r.Fatal(r.book.faults[0])
	}
}

// disk is a small file system of its own, and a file that fills it.
type disk struct {
	testing.TB
	dir string
}

// smallDisk mounts a tmpfs; who may not do that cannot run the test.
func smallDisk(t *testing.T, size string) disk {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		unable(t, "mounting a tmpfs is not permitted: "+err.Error())
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
	})
	return disk{t, dir}
}

func (d disk) free() int64 {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &fs); err != nil {
		d.Fatal(err)
	}
	return int64(fs.Bavail) * fs.Bsize
}

// fill leaves about so many bytes free; with 0, none at all.
func (d disk) fill(leave int64) {
	f, err := os.OpenFile(filepath.Join(d.dir, "filler"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for leave == 0 || d.free() > leave {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			d.Fatal(err)
		}
	}
}

// take fills so many bytes of it at once.
func (d disk) take(bytes int64) error {
	f, err := os.OpenFile(filepath.Join(d.dir, "filler"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return syscall.Fallocate(int(f.Fd()), 0, 0, bytes)
}

func (d disk) clear() {
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil {
		d.Fatal(err)
	}
}

// admin is the client of a relay whose data are on the disk.
func (d disk) admin() *admin.Client {
	return admin.NewClient(filepath.Join(d.dir, "data", "admin.sock"))
}

// newFullRig is a relay with its data on a disk of 64 MiB, of which it is to
// leave some free.
func newFullRig(t *testing.T, minFree string) (*rig, disk) {
	d := smallDisk(t, "64m")
	config := fmt.Sprintf("data_dir: %s/data\nlimits: { min_free: %s }\nlog: { level: info }", d.dir, minFree)
	return newRig(t, crashZone, config, crashServers()), d
}

// hand hands one message in.
func (r *rig) hand(m letter) error {
	c, err := dialSMTP(r.relay.address())
	if err != nil {
		return err
	}
	defer c.Close()
	r.book.sending(m)
	id, err := c.send(m)
	if err == nil {
		r.book.acknowledged(m, id)
	}
	return err
}

// With less than min_free left, new mail is refused for now and the queue is
// delivered all the same; with enough, mail is taken again by itself.
func TestDiskFull(t *testing.T) {
	r, d := newFullRig(t, "24MiB")
	n := 0
	next := func(domain string) letter {
		n++
		return letter{marker: fmt.Sprintf("full-%d", n), from: "a@client.test", to: []string{"b@" + domain}, size: 20 << 10, want: []string{domain}}
	}
	r.servers["three"].Stop()
	for range 50 { // they wait
		if err := r.hand(next("gamma.test")); err != nil {
			t.Fatal(err)
		}
	}
	d.fill(20 << 20)
	refused := func() bool {
		err := r.hand(next("beta.test"))
		if err != nil && !strings.Contains(err.Error(), "452 4.3.1") { // at MAIL, or at the end of one that was let in
			t.Fatal(err)
		}
		return err != nil
	}
	poll(t, waitLimit, "new mail is refused", refused)
	r.restart(r.servers["three"])
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if !r.book.wait(ctx, func() bool { return len(r.book.want) == 0 }) {
		_, owed := r.book.count()
		t.Fatalf("%d queued messages are not delivered", owed)
	}
	if !refused() {
		t.Fatalf("with %d MiB free, mail was accepted", d.free()>>20)
	}
	d.clear()
	poll(t, waitLimit, "mail is accepted again", func() bool { return !refused() })
	r.drained(waitLimit, d.admin())
	r.stopWell()
}

// With no space at all the relay may end, because it does not know what is on
// the disk; but what it has acknowledged is there when there is space again.
// Without min_free nothing keeps it from meeting the end of the disk in the
// middle of a write.
func TestDiskFullToTheLastByte(t *testing.T) {
	rounds := 2
	if stressed() {
		rounds = 12
	}
	t.Run("min_free", func(t *testing.T) { toTheLastByte(t, "24MiB", rounds) })
	t.Run("no min_free", func(t *testing.T) { toTheLastByte(t, "0B", rounds) })
}

func toTheLastByte(t *testing.T, minFree string, rounds int) {
	r, d := newFullRig(t, minFree)
	rng := seeded(t)
	l := r.startLoad(8, true, func(n int) (letter, bool) {
		m, more := crashMail(n)
		if n%2 == 0 {
			m.size = 100 << 10 // so that the log grows fast
		}
		return m, more
	})
	ends := map[string]int{}
	for round := range rounds {
		down := r.servers[[]string{"three", "one"}[round%2]]
		down.Stop()       // something is to be queued
		if round%2 == 1 { // one that has just started has no old log file to write over
			r.expectEnd()
			r.relay.kill()
			r.boot()
		}
		r.acknowledge(5 + rng.IntN(50))
		ends[r.fullDisk(d, l)]++
		r.restart(down)
	}
	r.acknowledge(50)
	l.end()
	r.drained(time.Minute, d.admin())
	r.stopWell()
	acked, lost := r.book.count()
	t.Logf("%d times full, %d messages acknowledged, %d deliveries of them lost; the relay %v", rounds, acked, lost, ends)
	l.refusals.Range(func(text, n any) bool {
		t.Logf("refused %d times: %s", n.(*atomic.Int64).Load(), text)
		if _, reply, _ := strings.Cut(text.(string), ": "); reply[0] != '4' {
			t.Errorf("a full disk was told as a failure for good: %s", text)
		}
		return true
	})
}

// fullDisk takes all space away and gives it back, once the relay has ended or
// has refused enough. It returns what the relay did.
func (r *rig) fullDisk(d disk, l *load) string {
	r.Helper()
	enough := l.refused() + 40
	d.fill(0)
	ended := func() bool {
		select {
		case <-r.relay.done:
			return true
		default:
			return false
		}
	}
	poll(r, waitLimit, "the relay ends or refuses", func() bool { d.fill(0); return ended() || l.refused() >= enough })
	if !ended() {
		d.clear()
		return r.goesOn(ended)
	}
	return r.comesBack(d)
}

// goesOn wants a relay that has not ended to take mail again, or to end after
// all, when the disk has space.
func (r *rig) goesOn(ended func() bool) string {
	r.Helper()
	acked, _ := r.book.count()
	poll(r, waitLimit, "the relay takes mail again", func() bool {
		now, _ := r.book.count()
		return now >= acked+20 || ended()
	})
	if !ended() {
		return "went on"
	}
	r.checkExit(exitSoftware)
	r.expectEnd()
	r.boot()
	return "ended when there was space again"
}

// comesBack starts the relay again after it has ended. On the full disk it may
// end, saying why, or wait; with space it must work.
func (r *rig) comesBack(d disk) string {
	r.Helper()
	r.checkExit(exitSoftware)
	r.expectEnd()
	early := r.launch()
	const why = "no space left on device"
	early.await(waitLimit, func() bool { return early.ready || strings.Contains(strings.Join(early.lines, ""), why) })
	d.clear()
	if early.await(processLimit, func() bool { return early.ready }) {
		r.announce(early)
		return "ended, and came back when there was space"
	}
	select {
	case <-early.done:
	default:
		r.Fatalf("it does not start, although there is space:\n%s", early.log())
	}
	if log := early.log(); !strings.Contains(log, why) || early.cmd.ProcessState.ExitCode() == 0 {
		r.Errorf("the start on a full disk does not say why it fails, exit code %d:\n%s", early.cmd.ProcessState.ExitCode(), log)
	}
	r.boot()
	return "ended, and refused to start on the full disk"
}

// launch starts the relay and does not wait for it.
func (r *rig) launch() *relayProcess {
	r.Helper()
	p := &relayProcess{
		cmd:  command(context.Background(), r.config, "serve"),
		done: make(chan struct{}), listening: map[string]string{}, grown: make(chan struct{}),
	}
	stderr, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	go p.read(stderr)
	r.Cleanup(p.kill)
	return p
}

func (r *rig) checkExit(want int) {
	r.Helper()
	if code := r.relay.cmd.ProcessState.ExitCode(); code != want {
		lines := r.relay.lines
		r.Errorf("exit code %d and not %d:\n%s", code, want, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
}

// refused is how often the load was refused.
func (l *load) refused() (n int64) {
	l.refusals.Range(func(_, v any) bool { n += v.(*atomic.Int64).Load(); return true })
	return n
}
