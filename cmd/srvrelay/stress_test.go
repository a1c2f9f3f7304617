//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

// The tests here and in crash_test.go run the real binary under load, and keep
// book of every message: what a 250 has promised must arrive. Their sizes are
// small in the normal run and large with SRVRELAY_STRESS=1 (make stress).

func stressed() bool { return os.Getenv("SRVRELAY_STRESS") == "1" }

// size is how much a test does: in the normal run, and under stress.
func size(normal, stress int) int {
	if stressed() {
		return stress
	}
	return normal
}

// raced tells whether the race detector is on: it multiplies memory, so that
// bounds of memory say nothing.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool {
		return s.Key == "-race" && s.Value == "true"
	})
}

// poll waits for what has no event to wait for: another process.
func poll(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// letter is a message of the load. Its marker is in its header, its checksum too,
// so that the servers recognise it and see whether it is whole.
type letter struct {
	marker string
	from   string
	to     []string
	size   int      // bytes of body, about
	want   []string // domains where it must arrive; reportsTo: its failure report
}

// reportsTo is where the load's senders get their failure reports.
const reportsTo = "client.test"

func (m letter) text() string {
	line := strings.Repeat(m.marker+" ", 72/len(m.marker)+1) + "\r\n"
	body := strings.Repeat(line, m.size/len(line)+1)
	return fmt.Sprintf("Subject: load\r\nFrom: <%s>\r\nX-Marker: %s\r\nX-Sum: %x\r\n\r\n%s",
		m.from, m.marker, sha256.Sum256([]byte(body)), body)
}

var (
	markerField = regexp.MustCompile(`(?m)^X-Marker: (\S+)\r$`)
	sumField    = regexp.MustCompile(`(?m)^X-Sum: (\S+)\r$`)
	idField     = regexp.MustCompile(`(?mi)^Message-ID: (\S+)\r$`)
)

// book says what was sent, what was acknowledged and what has arrived where.
type book struct {
	mu      sync.Mutex
	sent    map[string]bool
	acked   map[string]bool
	ids     map[string]string          // queue id -> marker
	want    map[string]bool            // "marker domain" that was promised and has not arrived
	arrived map[string]int             // "marker domain" -> times
	reports map[string]map[string]bool // marker -> Message-IDs of the reports about it
	faults  []string
	grown   chan struct{} // closed and replaced when something is noted
}

func newBook() *book {
	return &book{
		sent: map[string]bool{}, acked: map[string]bool{}, ids: map[string]string{}, want: map[string]bool{},
		arrived: map[string]int{}, reports: map[string]map[string]bool{}, grown: make(chan struct{}),
	}
}

// change does something to the book and wakes whoever waits for it.
func (b *book) change(do func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	do()
	close(b.grown)
	b.grown = make(chan struct{})
}

func (b *book) fault(format string, args ...any) {
	b.change(func() { b.faults = append(b.faults, fmt.Sprintf(format, args...)) })
}

// sending notes a message before it is handed in: it may arrive from now on.
func (b *book) sending(m letter) { b.change(func() { b.sent[m.marker] = true }) }

// acknowledged notes the 250 for a message: from now on it is owed.
func (b *book) acknowledged(m letter, id string) {
	b.change(func() {
		if old, twice := b.ids[id]; id == "" || twice {
			b.faults = append(b.faults, fmt.Sprintf("%s got the queue id %q, that of %q", m.marker, id, old))
		}
		b.acked[m.marker], b.ids[id] = true, m.marker
		for _, d := range m.want {
			if key := m.marker + " " + d; b.arrived[key] == 0 {
				b.want[key] = true
			}
		}
	})
}

// deliver notes what a server has taken responsibility for.
func (b *book) deliver(m sink.Message) {
	marker := markerField.FindSubmatch(m.Data)
	if marker == nil {
		b.fault("a message without a marker has arrived:\n%.2000s", m.Data)
		return
	}
	var damage string
	if m.From != "" {
		damage = damaged(m.Data)
	}
	b.change(func() {
		name := string(marker[1])
		switch {
		case !b.sent[name]:
			b.faults = append(b.faults, "nobody has sent "+name)
		case damage != "":
			b.faults = append(b.faults, name+" has arrived damaged: "+damage)
		}
		if m.From == "" {
			b.noteReport(name, m)
		}
		domains := map[string]bool{} // one transaction is one arrival, however many recipients it has
		for _, r := range m.Rcpts {
			domains[r.To[strings.LastIndexByte(r.To, '@')+1:]] = true
		}
		for d := range domains {
			b.arrived[name+" "+d]++
			delete(b.want, name+" "+d)
		}
	})
}

func (b *book) noteReport(marker string, m sink.Message) {
	id := idField.FindSubmatch(m.Data)
	if id == nil {
		b.faults = append(b.faults, "a report without a Message-ID about "+marker)
		return
	}
	if b.reports[marker] == nil {
		b.reports[marker] = map[string]bool{}
	}
	b.reports[marker][string(id[1])] = true
}

// damaged compares a message with its checksum; "" = it is whole.
func damaged(data []byte) string {
	_, body, ok := bytes.Cut(data, []byte("\r\n\r\n"))
	sum := sumField.FindSubmatch(data)
	if !ok || sum == nil {
		return "no checksum"
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(body)); got != string(sum[1]) {
		return fmt.Sprintf("%d bytes of body with the wrong checksum", len(body))
	}
	return ""
}

// wait waits until cond, which may look at the book, holds.
func (b *book) wait(ctx context.Context, cond func() bool) bool {
	for {
		b.mu.Lock()
		ok, grown := cond(), b.grown
		b.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return false
		}
	}
}

func (b *book) count() (acked, owed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.acked), len(b.want)
}

// duplicates is how often something arrived that had arrived before.
func (b *book) duplicates() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, times := range b.arrived {
		n += times - 1
	}
	return n
}

// check says what is wrong at the end: damage, strangers, two reports about
// one failure, and what was promised and has not come.
func (b *book) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		t.Error(f)
	}
	for marker, ids := range b.reports {
		if len(ids) > 1 {
			t.Errorf("%d different reports about %s: %v", len(ids), marker, slices.Collect(maps.Keys(ids)))
		}
	}
	lost := slices.Sorted(maps.Keys(b.want))
	if len(lost) > 0 {
		t.Errorf("LOST: %d of %d acknowledged messages have not arrived: %.20q", len(lost), len(b.acked), lost)
	}
	for _, key := range lost[:min(3, len(lost))] {
		marker, _, _ := strings.Cut(key, " ")
		for id, m := range b.ids {
			if m == marker {
				t.Logf("%s is the message %s", marker, id)
			}
		}
	}
}

// rig is the real binary between a load and receiving servers. The relay may
// die and come back, at another address.
type rig struct {
	*scenario
	book *book

	mu      sync.Mutex
	addr    string // "" = it is down
	starts  int
	ended   int           // starts up to this one have been ended on purpose
	changed chan struct{} // closed and replaced when the relay comes up
}

// newRig starts the servers, the DNS and the relay.
func newRig(t *testing.T, zone, config string, servers map[string]sink.Options) *rig {
	t.Helper()
	r := &rig{book: newBook(), changed: make(chan struct{})}
	r.scenario = &scenario{T: t, sections: map[string]string{"config": config}, servers: map[string]*sink.Server{}}
	for name, o := range servers {
		if !o.Discard {
			o.OnMessage = r.book.deliver
		}
		srv, err := sink.Start("127.0.0.1:0", o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(srv.Close)
		r.servers[name] = srv
	}
	var err error
	if r.dns, err = dnsserver.Start("127.0.0.1:0", r.ports(zone)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.dns.Close() })
	r.config = r.writeConfig()
	t.Cleanup(func() {
		if t.Failed() {
			r.relay.mu.Lock()
			defer r.relay.mu.Unlock()
			t.Logf("end of the relay's log:\n%s", strings.Join(r.relay.lines[max(0, len(r.relay.lines)-60):], "\n"))
		}
	})
	r.boot()
	return r
}

// boot starts the relay and tells the load where it is.
func (r *rig) boot() {
	r.Helper()
	r.announce(startRelay(r, r.config))
}

func (r *rig) announce(p *relayProcess) {
	r.relay = p
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr = r.relay.address()
	r.starts++
	close(r.changed)
	r.changed = make(chan struct{})
}

// expectEnd says that errors of the running relay's clients are no fault from now on.
func (r *rig) expectEnd() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr, r.ended = "", r.starts
}

// where waits until the relay is up; start tells which life of it that is.
func (r *rig) where(ctx context.Context) (addr string, start int, ok bool) {
	for {
		r.mu.Lock()
		addr, start, changed := r.addr, r.starts, r.changed
		r.mu.Unlock()
		if addr != "" {
			return addr, start, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", 0, false
		}
	}
}

func (r *rig) wasEnded(start int) bool { r.mu.Lock(); defer r.mu.Unlock(); return start <= r.ended }

// adminClient talks to the running relay.
func (r *rig) adminClient() *admin.Client {
	return admin.NewClient(filepath.Join(filepath.Dir(r.config), "data", "admin.sock"))
}

// drained waits until everything owed has arrived and nothing is queued, and
// then checks the book.
func (r *rig) drained(limit time.Duration, socket *admin.Client) {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if r.book.wait(ctx, func() bool { return len(r.book.want) == 0 }) {
		poll(r, limit, "the queue is empty", func() bool {
			n := 0
			err := socket.List(ctx, func(admin.Message) error { n++; return nil })
			return err == nil && n == 0
		})
	}
	r.book.check(r.T)
}

// stopWell ends the relay in good order.
func (r *rig) stopWell() {
	r.Helper()
	r.expectEnd()
	if took, err := r.relay.terminate(); err != nil || took > 10*time.Second {
		r.Errorf("SIGTERM: %v after %s", err, took)
	}
}

// load is clients that hand messages in until they are stopped.
type load struct {
	rig     *rig
	make    func(n int) (m letter, more bool)
	lenient bool // refusals for now, and the relay's end, are nothing special

	next     atomic.Int64
	refusals sync.Map // text -> *atomic.Int64
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// startLoad has so many connections hand in what make makes.
func (r *rig) startLoad(connections int, lenient bool, make func(n int) (letter, bool)) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{rig: r, make: make, lenient: lenient, stop: cancel}
	for range connections {
		l.wg.Go(func() { l.run(ctx) })
	}
	r.Cleanup(l.end)
	return l
}

// end stops the load; what is being handed in is finished.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// run is one client: it connects again whenever its relay has gone.
func (l *load) run(ctx context.Context) {
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		addr, start, ok := l.rig.where(ctx)
		if !ok {
			return
		}
		done, err := l.session(ctx, addr)
		if done {
			return
		}
		if err != nil && !l.lenient && !l.rig.wasEnded(start) {
			l.rig.book.fault("a client: %v", err)
			return
		}
		<-pause.C // not a thousand refused connections before it is back
	}
}

// session hands in messages over one connection; done: there are no more.
func (l *load) session(ctx context.Context, addr string) (done bool, err error) {
	c, err := dialSMTP(addr)
	if err != nil {
		return false, err
	}
	defer c.Close()
	for ctx.Err() == nil {
		m, more := l.make(int(l.next.Add(1) - 1))
		if !more {
			return true, c.quit()
		}
		l.rig.book.sending(m)
		id, err := c.send(m)
		if err != nil {
			if no := (refusal{}); errors.As(err, &no) {
				n, _ := l.refusals.LoadOrStore(no.Error(), new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			}
			return false, err
		}
		l.rig.book.acknowledged(m, id)
	}
	return true, c.quit()
}

// smtpClient is a plain client that keeps its connection.
type smtpClient struct{ *textproto.Conn }

// refusal is a reply other than the wanted one.
type refusal struct{ verb, reply string }

func (r refusal) Error() string { return r.verb + ": " + r.reply }

func dialSMTP(addr string) (c smtpClient, err error) {
	conn, err := textproto.Dial("tcp", addr)
	if err != nil {
		return c, err
	}
	c = smtpClient{conn}
	if _, err = c.expect("banner", 220); err == nil {
		err = c.command(250, "EHLO client.test")
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

func (c smtpClient) command(want int, format string, args ...any) error {
	line := fmt.Sprintf(format, args...)
	if err := c.PrintfLine("%s", line); err != nil {
		return err
	}
	verb, _, _ := strings.Cut(line, " ")
	_, err := c.expect(verb, want)
	return err
}

func (c smtpClient) expect(verb string, want int) (string, error) {
	code, text, err := c.ReadResponse(want)
	if no := (*textproto.Error)(nil); errors.As(err, &no) {
		return "", refusal{verb, fmt.Sprintf("%d %s", code, text)}
	}
	return text, err
}

// send hands a message in and returns its queue id.
func (c smtpClient) send(m letter) (id string, err error) {
	if err := c.command(250, "MAIL FROM:<%s>", m.from); err != nil {
		return "", err
	}
	for _, to := range m.to {
		if err := c.command(250, "RCPT TO:<%s>", to); err != nil {
			return "", err
		}
	}
	if err := c.command(354, "DATA"); err != nil {
		return "", err
	}
	w := c.DotWriter()
	if _, err := io.WriteString(w, m.text()); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	text, err := c.expect("end of data", 250)
	_, id, _ = strings.Cut(text, "queued as ")
	return id, err
}

func (c smtpClient) quit() error { return c.command(221, "QUIT") }

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
