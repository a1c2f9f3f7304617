//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"srvrelay/relay/sink"
)

const reloadZone = `
_smtp._tcp.a.test. SRV 10 0 @one@ host.test.
_smtp._tcp.home.test. SRV 10 0 @home@ host.test.
host.test. A 127.0.0.1
`

// reloadConfigs are taken in turn. "main" is for mail that is under way all the
// time, then refuses mail that nobody sends: one name, two meanings.
var reloadConfigs = []string{
	`routes: [{ name: main, domains: [a.test], to: [{ url: "smtp://host.test:@one@" }] }]`,
	`routes: [{ name: main, domains: [never.test], action: reject }, { domains: ["*"], to: [{ url: "smtp://host.test:@two@" }] }]`,
	`delivery: { mx_port: 99999 }`,
	`relay_domains: [home.test]
routes: [{ name: main, domains: ["*"], to: [{ url: "dns:" }], expire_after: 2h }]`,
	`hostname: other.test
routes: [{ name: main, domains: [never.test], action: hold }]
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: none }
  - { address: "127.0.0.1:EXTRA", mode: submission, tls: none }`,
}

// TestReloadUnderLoad changes routes, relay domains, names and doors all the
// time while mail comes in and goes out: everything acknowledged arrives once,
// nobody is refused, cut off or told of a failure.
func TestReloadUnderLoad(t *testing.T) {
	r := newRig(t, reloadZone, reloadConfigs[0], map[string]sink.Options{"one": {}, "two": {}, "home": {}})
	extra := freePort(t)
	var over atomic.Bool
	l := r.startLoad(4, false, func(n int) (letter, bool) {
		domain := []string{"a.test", "home.test"}[n%2]
		return letter{marker: fmt.Sprintf("m-%d", n), from: "a@client.test", to: []string{"b@" + domain}, size: 1000, want: []string{domain}}, !over.Load()
	})
	var guest smtpClient // of the door that comes and goes
	for n := range size(25, 250) {
		r.progress(20)
		config := reloadConfigs[n%len(reloadConfigs)]
		r.sections["config"] = strings.ReplaceAll(config, "EXTRA", extra)
		r.writeConfig("config")
		if n%7 == 6 { // some at once: as many reloads as it likes, of the same
			for range 5 {
				if err := r.relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := r.adminClient().Reload(t.Context())
		if broken := strings.Contains(config, "99999"); err != nil || broken != (len(got.Problems) > 0) {
			t.Fatalf("reload %d: %v %+v", n, err, got)
		}
		guest = r.extraDoor(guest, n, "127.0.0.1:"+extra, strings.Contains(config, "EXTRA"))
	}
	over.Store(true)
	l.wg.Wait()
	r.drained(waitLimit, r.adminClient())
	acked, _ := r.book.count()
	t.Logf("%d messages during the reloads", acked)
	l.refusals.Range(func(text, _ any) bool { t.Errorf("refused: %s", text); return true })
	if n := r.book.duplicates(); n > 0 || len(r.book.reports) > 0 {
		t.Errorf("%d arrived twice; reports: %v", n, r.book.reports)
	}
	r.relay.mu.Lock()
	defer r.relay.mu.Unlock()
	for _, event := range []string{"deferred", "failed", "held", "trouble", "parked"} {
		if n := r.relay.matching(event, nil); n > 0 {
			t.Errorf("the log has %q %d times", event, n)
		}
	}
}

// progress waits until so many more messages were acknowledged.
func (r *rig) progress(messages int) {
	r.Helper()
	before, _ := r.book.count()
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if !r.book.wait(ctx, func() bool { return len(r.book.acked) >= before+messages }) {
		r.Fatal("no more mail is taken")
	}
}

// extraDoor checks the door that comes and goes with the reloads: who came in
// while it was open can still hand mail in when it is gone.
func (r *rig) extraDoor(guest smtpClient, n int, addr string, open bool) smtpClient {
	r.Helper()
	c, err := dialSMTP(addr)
	if open != (err == nil) {
		r.Fatalf("reload %d: the door is to be open: %v; %v", n, open, err)
	}
	if guest.Conn != nil {
		m := letter{marker: fmt.Sprintf("guest-%d", n), from: "a@client.test", to: []string{"b@a.test"}, size: 100, want: []string{"a.test"}}
		r.book.sending(m)
		id, err := guest.send(m)
		if err != nil {
			r.Fatalf("reload %d: a connection of a door that is gone: %v", n, err)
		}
		r.book.acknowledged(m, id)
	}
	if !open {
		return guest
	}
	if guest.Conn != nil {
		_ = guest.quit()
		guest.Close()
	}
	r.Cleanup(func() { c.Close() })
	return c
}

// freePort is a port that nobody listens on.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

const fullConfig = `
log: { level: info }
delivery: { retry: { schedule: [1h], expire_after: 5d } }
routes: [{ name: NAME, domains: ["*"], to: [{ url: "smtp://host.test:@NAME@" }] }]
`

// TestRoutesUnderFullQueue: a smarthost is dead, and a great many messages wait
// for it. Another one is written into the configuration: all of them go there
// now, and not at their next turn an hour from now; new mail comes in meanwhile.
func TestRoutesUnderFullQueue(t *testing.T) {
	messages := size(1000, 20_000)
	config := func(name string) string { return strings.ReplaceAll(fullConfig, "NAME", name) }
	r := newRig(t, reloadZone, "", map[string]sink.Options{"one": {}, "home": {}, "dead": {Forget: true}, "live": {Forget: true}})
	r.sections["config"] = config("dead")
	r.writeConfig("config")
	r.servers["dead"].Stop()
	if got, err := r.adminClient().Reload(t.Context()); err != nil || len(got.Problems) > 0 {
		t.Fatal(err, got)
	}
	r.startLoad(16, false, func(n int) (letter, bool) {
		return letter{marker: fmt.Sprintf("m-%d", n), from: "a@client.test", to: []string{"b@a.test"}, size: 1000, want: []string{"a.test"}}, n < messages
	}).wg.Wait()
	r.parkedWith("route dead", messages)

	slowest, stop := r.newMail()
	r.sections["config"] = config("live")
	r.writeConfig("config")
	begin := time.Now()
	if got, err := r.adminClient().Reload(t.Context()); err != nil || len(got.Problems)+len(got.Notes) > 0 {
		t.Fatal(err, got)
	}
	filed := time.Since(begin)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if !r.book.wait(ctx, func() bool { return len(r.book.want) == 0 }) {
		t.Error("they have not all arrived")
	}
	took, sent := time.Since(begin), stop()
	r.drained(waitLimit, r.adminClient())
	t.Logf("%d messages were filed anew in %s and had arrived after %s; the slowest of %d new ones was taken in %s", messages, filed, took, sent, slowest())
	if n := len(r.book.arrived); n != messages+sent {
		t.Errorf("%d arrived of %d", n, messages+sent)
	}
	if got := r.servers["dead"].Connections(); got != 0 || r.book.duplicates() > 0 {
		t.Errorf("%d connections to the dead server, %d duplicates", got, r.book.duplicates())
	}
	if limit := 5 * time.Second; !raced() && slowest() > limit {
		t.Errorf("new mail had to wait for %s, more than %s", slowest(), limit)
	}
}

// newMail hands messages in, one after the other, until stop, which tells how
// many (the book is not owed them); slowest is the longest that one took.
func (r *rig) newMail() (slowest func() time.Duration, stop func() int) {
	c, err := dialSMTP(r.relay.address())
	if err != nil {
		r.Fatal(err)
	}
	var longest atomic.Int64
	ended, done := make(chan struct{}), make(chan int)
	go func() {
		defer c.Close()
		for n := 0; ; n++ {
			select {
			case <-ended:
				done <- n
				return
			default:
			}
			m := letter{marker: fmt.Sprintf("new-%d", n), from: "a@client.test", to: []string{"b@c.test"}, size: 1000}
			r.book.sending(m)
			begin := time.Now()
			id, err := c.send(m)
			if err != nil {
				r.book.fault("new mail: %v", err)
				done <- n
				return
			}
			longest.Store(max(longest.Load(), int64(time.Since(begin))))
			r.book.acknowledged(m, id)
		}
	}()
	return func() time.Duration { return time.Duration(longest.Load()) }, func() int { close(ended); return <-done }
}
