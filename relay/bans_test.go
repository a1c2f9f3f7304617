package relay

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"srvrelay/queue"
)

var testBans = BanRules{Failures: 10, Within: 10 * time.Minute, For: time.Hour, Max: 24 * time.Hour, Names: 30}

// from is a connection that comes from an address.
type from struct {
	net.Conn
	addr netip.AddrPort
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(f.addr) }

// doorkeeper is a server without listeners, for tests in virtual time.
type doorkeeper struct {
	*testing.T
	*Server
	events *recorder
	l      Listener
}

func doorman(t *testing.T, change func(*Config)) *doorkeeper {
	t.Helper()
	b := &doorkeeper{T: t, events: &recorder{}, l: Listener{Mode: queue.Submission}}
	cfg := Config{
		Hostname: "relay.example.net", Queue: &memQueue{}, Events: b.events, Listeners: []Listener{b.l},
		RelayDomains: []string{"home.example"}, Users: secrets{"alice": "s3cret", "bob": "other"}, BanRules: testBans,
		Timeouts: Timeouts{Command: 48 * time.Hour, Write: 48 * time.Hour},
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Server, b.l = s, cfg.Listeners[0]
	t.Cleanup(func() { _ = s.Shutdown(t.Context()) })
	return b
}

func port(addr string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(addr), 4711) }

// come connects from an address, and reads nothing.
func (b *doorkeeper) come(addr string) *client {
	server, peer := net.Pipe()
	b.Cleanup(func() { peer.Close() })
	go b.take(newConn(b.Server, b.current.Load(), nil, b.l, from{server, port(addr)}))
	return &client{T: b.T, conn: peer, br: bufio.NewReader(peer)}
}

// login tries a password from an address and returns the code of the reply; 421
// also if the connection was turned away.
func (b *doorkeeper) login(addr, name, password string) int {
	c := newConn(b.Server, b.current.Load(), nil, b.l, from{nil, port(addr)})
	if c.banned() {
		return 421
	}
	if err := c.sess.login(name, password); err != nil {
		return replyOf(err).Code
	}
	return 235
}

// guess fails n times.
func (b *doorkeeper) guess(n int, addr, name string) (last int) {
	for i := range n {
		last = b.login(addr, name, fmt.Sprint("guess ", i))
	}
	return last
}

// TestBanTerm: each ban in a row is twice as long, up to the longest.
func TestBanTerm(t *testing.T) {
	for before, hours := range []int{1, 2, 4, 8, 16, 24, 24} {
		if got := testBans.term(before); got != time.Duration(hours)*time.Hour {
			t.Errorf("after %d bans: %s, want %d h", before, got, hours)
		}
	}
	if got := testBans.term(1 << 30); got != 24*time.Hour {
		t.Errorf("after many: %s", got)
	}
	if got := (BanRules{For: time.Hour, Max: time.Minute}).term(0); got != time.Minute {
		t.Errorf("for more than max: %s", got)
	}
}

// TestBan: so many failures ban an address, and nobody else; for longer each
// time, and from the first length on again when it has been quiet.
func TestBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, nil)
		const bad, other = "203.0.113.7", "203.0.113.8"
		if got := b.guess(9, bad, "alice"); got != 535 {
			t.Errorf("the ninth failure: %d", got)
		}
		if got := b.guess(1, bad, "bob"); got != 421 {
			t.Errorf("the tenth failure: %d", got)
		}
		b.come(bad).want("421 4.7.0 your address is banned here for now")
		if got := b.login(bad, "alice", "s3cret"); got != 421 {
			t.Errorf("the right password of who is banned: %d", got)
		}
		b.come(other).want("220 ")
		if got := b.login(other, "alice", "s3cret"); got != 235 {
			t.Errorf("another address: %d", got)
		}
		for i, hours := range []int{1, 2, 4, 8, 16, 24, 24} {
			if n := len(b.events.bans); n != i+1 || b.events.bans[i].Times != i+1 {
				t.Fatalf("%d bans, the last %+v", n, b.events.bans[n-1])
			}
			time.Sleep(time.Until(b.events.bans[i].Since.Add(time.Duration(hours)*time.Hour - time.Second)))
			b.come(bad).want("421 ")
			time.Sleep(2 * time.Second)
			b.come(bad).want("220 ")
			if got := b.guess(10, bad, "alice"); got != 421 {
				t.Errorf("ten more: %d", got)
			}
		}
		time.Sleep(24*time.Hour + testBans.Max + time.Second)
		b.guess(10, bad, "alice")
		if last := b.events.bans[len(b.events.bans)-1]; last.Times != 1 || last.Until.Sub(last.Since) != time.Hour {
			t.Errorf("after a long quiet: %+v", last)
		}
	})
}

// TestBanWithin: failures that are far apart are no reason; none are with the
// rule switched off.
func TestBanWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, nil)
		for range 40 {
			if got := b.guess(1, "203.0.113.7", "alice"); got != 535 {
				t.Fatalf("a failure every 70 s: %d", got)
			}
			time.Sleep(70 * time.Second)
		}
		off := doorman(t, func(c *Config) { c.BanRules = BanRules{} })
		if got := off.guess(50, "203.0.113.7", "alice"); got != 535 || len(off.events.bans)+len(off.events.guards) > 0 {
			t.Errorf("switched off: %d, %v, %v", got, off.events.bans, off.events.guards)
		}
	})
}

// TestBanBegins: a ban is for what came before it, and once.
func TestBanBegins(t *testing.T) {
	b, now, a := NewBans(), time.Now(), netip.MustParseAddr("203.0.113.7")
	rules := BanRules{Failures: 3, Within: time.Hour, For: time.Minute, Max: time.Hour}
	fail := func() *Ban {
		ban, _ := b.failed(rules, a, "", now)
		return ban
	}
	for i := range 9 { // the last six were under way when it came
		if ban := fail(); (ban != nil) != (i == 2) {
			t.Errorf("failure %d: %+v", i, ban)
		}
	}
	now = now.Add(2 * time.Minute)
	for i := range 3 {
		if ban := fail(); (ban != nil) != (i == 2) || ban != nil && ban.Times != 2 {
			t.Errorf("after it, failure %d: %+v", i, ban)
		}
	}
}

// TestBanIPv6: a /64 is one client, and not more.
func TestBanIPv6(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, nil)
		for i := range 10 {
			b.guess(1, fmt.Sprintf("2001:db8:0:1::%d", i+1), "alice")
		}
		b.come("2001:db8:0:1:ffff::1").want("421 ")
		b.come("2001:db8:0:2::1").want("220 ")
	})
}

// TestSpared: this machine, trusted networks, proxies and the exempt are never banned;
// an address in a header is what it says, but for this machine's.
func TestSpared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nets := func(p ...string) (all []netip.Prefix) {
			for _, x := range p {
				all = append(all, netip.MustParsePrefix(x))
			}
			return all
		}
		b := doorman(t, func(c *Config) {
			c.Listeners = append(c.Listeners, Listener{Mode: queue.Submission, Trusted: nets("10.1.0.0/16", "127.0.0.0/8", "0.0.0.0/8"), ProxyFrom: nets("192.0.2.10/32")})
			c.BanRules.Exempt = nets("198.51.100.0/24", "2001:db8:5::/48")
		})
		for addr, want := range map[string]int{
			"127.0.0.1": 535, "127.9.9.9": 535, "::1": 535, "10.1.2.3": 535, "192.0.2.10": 535, "198.51.100.1": 535,
			"2001:db8:5::1": 535, "10.2.2.3": 421, "192.0.2.11": 421, "2001:db8:6::1": 421,
		} {
			if got := b.guess(15, addr, "nobody"); got != want {
				t.Errorf("%s: %d, want %d", addr, got, want)
			}
		}
		for client, want := range map[string]bool{
			"127.0.0.1:1": false, "0.0.0.0:1": false, "203.0.113.7:1": false, "10.1.2.3:1": true, "198.51.100.1:1": true, "": true,
		} {
			c := newConn(b.Server, b.current.Load(), nil, b.l, from{nil, port("192.0.2.10")})
			c.via = &proxied{}
			if client != "" {
				c.via.client = netip.MustParseAddrPort(client)
				c.remote = c.via.client
			}
			if c.spared() != want {
				t.Errorf("%q behind a proxy is spared: %v", client, c.spared())
			}
		}
	})
}

// TestBanBehindProxy: the client is banned, not the proxy, and both in clear
// and with TLS nothing is said before the header has named it.
func TestBanBehindProxy(t *testing.T) {
	f := start(t, func(cfg *Config) {
		behindProxy()(cfg)
		cfg.BanRules = testBans
		cfg.BanRules.Failures = 3
	})
	c := f.connect(authDoor)
	c.send(proxyHeader(t, 2, "203.0.113.7:4711"))
	c.want("220 ")
	c.do("EHLO x.example", "250-")
	c.do("STARTTLS", "220")
	c.handshake()
	c.do("EHLO x.example", "250-")
	c.do("AUTH PLAIN "+b64("\x00alice\x00a"), "535 5.7.8")
	c.do("AUTH PLAIN "+b64("\x00alice\x00b"), "535 5.7.8")
	c.do("AUTH PLAIN "+b64("\x00alice\x00c"), "421 4.7.0 your address is banned here for now, try again later\r\n")
	c.gone()
	for _, door := range []int{authDoor, inboundDoor} {
		c = f.connect(door)
		c.send(proxyHeader(t, 2, "203.0.113.7:4712") + "EHLO x.example\r\n")
		if got := c.gone(); got != "421 4.7.0 your address is banned here for now, try again later\r\n" {
			t.Errorf("door %d: %q", door, got)
		}
		c = f.connect(door)
		c.send(proxyHeader(t, 2, "203.0.113.8:4712"))
		c.want("220 ")
	}
	c = f.connect(implicitDoor)
	c.send(proxyHeader(t, 2, "203.0.113.7:4712"))
	if got := c.gone(); got != "" {
		t.Errorf("before TLS: %q", got)
	}
	f.events.mu.Lock()
	n := 0
	for _, r := range f.events.refused {
		if r.Command == "CONNECT" {
			n++
		}
	}
	f.events.mu.Unlock()
	if n != 1 { // the others are counted
		t.Errorf("%d lines in the log for three connections", n)
	}
}

// counted counts the passwords that are checked.
type counted struct {
	secrets
	n *atomic.Int64
}

func (c counted) Authenticate(name, password string) (bool, error) {
	c.n.Add(1)
	return c.secrets.Authenticate(name, password)
}

// TestGuard: a password that is guessed from many addresses, one try each, is
// tried so many times and no more; the user gets in from where they have been,
// at once, and no stranger does, not with the right password either.
func TestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		b := doorman(t, func(c *Config) { c.Users = counted{secrets{"alice": "s3cret", "bob": "other"}, &checks} })
		const home = "2001:db8:a:b::5"
		if got := b.login(home, "alice", "s3cret"); got != 235 {
			t.Fatal(got)
		}
		for range 2 * testBans.Names { // a typing error at home is no guess
			if g := b.bans.guard(testBans, netip.MustParseAddr(home), "alice", time.Now()); g != nil {
				t.Fatal("guarded by her own failures")
			}
		}
		begin := time.Now()
		for i := range 300 {
			got, want := b.guess(1, fmt.Sprintf("203.0.%d.%d", i/200, i%200), "alice"), 535
			if i >= testBans.Names {
				want = 454
			}
			if got != want {
				t.Fatalf("guess %d: %d, want %d", i, got, want)
			}
		}
		if n := checks.Load(); n != int64(testBans.Names)+1 {
			t.Errorf("%d passwords were checked", n)
		}
		// Guesses wait for each other; what is refused does not, and nobody for it.
		if spent := time.Since(begin); spent < time.Minute || spent > time.Duration(testBans.Names)*maxAuthDelay {
			t.Errorf("%s for %d guesses", spent, testBans.Names)
		}
		if len(b.events.guards) != 1 || b.events.guards[0].Name != "alice" {
			t.Errorf("events %v", b.events.guards)
		}
		begin = time.Now()
		for range 5 {
			if got := b.login("2001:db8:a:b:ffff::1", "alice", "s3cret"); got != 235 {
				t.Errorf("alice from home: %d", got)
			}
		}
		if spent := time.Since(begin); spent != 0 {
			t.Errorf("she had to wait %s for those who guess", spent)
		}
		for name, want := range map[string]int{"alice": 454, "bob": 235} {
			if got := b.login("198.51.100.9", name, map[string]string{"alice": "s3cret", "bob": "other"}[name]); got != want {
				t.Errorf("%s from somewhere else: %d, want %d", name, got, want)
			}
		}
		time.Sleep(time.Until(b.events.guards[0].Until))
		if got := b.login("198.51.100.9", "alice", "s3cret"); got != 235 {
			t.Errorf("afterwards: %d", got)
		}
	})
}

// TestGuardInParallel: tries that are under way when a name becomes guarded, or
// an address banned, are not made.
func TestGuardInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		b := doorman(t, func(c *Config) {
			c.Users = counted{secrets{}, &checks}
			c.BanRules.Names, c.BanRules.Failures = 3, 3
		})
		for i := range 20 {
			go b.guess(1, fmt.Sprintf("203.0.113.%d", i), "alice")
		}
		time.Sleep(time.Hour)
		if n := checks.Load(); n > 3+2 { // two were being checked when the third failed
			t.Errorf("%d passwords were checked", n)
		}
		checks.Store(0)
		for i := range 20 {
			go b.guess(1, "198.51.100.1", fmt.Sprint("name", i))
		}
		time.Sleep(time.Minute)
		if n := checks.Load(); n > 3+2 {
			t.Errorf("%d passwords were checked from one address", n)
		}
	})
}

// TestBansFile: what is banned, guarded and known is the same after a restart,
// and what is over is not there.
func TestBansFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := tempFile(t, "bans.json")
		b := doorman(t, func(c *Config) { c.BanRules.Names = 12 })
		b.login("198.51.100.9", "alice", "s3cret")
		b.guess(10, "203.0.113.7", "alice")
		for i := range 5 {
			b.guess(1, fmt.Sprintf("203.0.114.%d", i), "alice")
		}
		ban := func(network string, until time.Time) {
			p, err := ParseBan(network)
			if err == nil {
				_, err = b.Ban(p, until, "flood")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		ban("192.0.2.0/24", time.Time{})
		ban("2001:db8::/32", time.Now().Add(10*time.Minute))
		save := func(b *Bans) {
			t.Helper()
			if err := b.Save(path, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		save(b.bans)
		bans, guards := b.Banned()
		if len(bans) != 3 || len(guards) != 1 {
			t.Fatalf("%+v, %+v", bans, guards)
		}
		restart := func() *doorkeeper {
			t.Helper()
			loaded, err := LoadBans(path, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return doorman(t, func(c *Config) { c.Bans = loaded })
		}
		again := restart()
		sameBans, sameGuards := again.Banned()
		same := cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })
		nets := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
		if d := cmp.Diff(bans, sameBans, same, nets) + cmp.Diff(guards, sameGuards, same); d != "" {
			t.Errorf("after a restart:\n%s", d)
		}
		again.come("203.0.113.7").want("421 ")
		again.come("192.0.2.200").want("421 ")
		again.come("2001:db8:77::1").want("421 ")
		if got := again.login("198.51.100.9", "alice", "s3cret"); got != 235 {
			t.Errorf("alice from where she has been: %d", got)
		}
		if got := again.login("198.51.100.10", "alice", "s3cret"); got != 454 {
			t.Errorf("alice from elsewhere: %d", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		save(again.bans) // nothing has changed
		if _, err := os.Stat(path); err == nil {
			t.Error("written without a change")
		}
		save(b.bans)
		time.Sleep(2 * time.Hour)
		b.guess(1, "198.51.100.77", "x") // a change is none before it bans
		b.login("198.51.100.77", "alice", "s3cret")
		save(b.bans)
		later := restart()
		if bans, guards := later.Banned(); len(bans) != 1 || bans[0].Network.String() != "192.0.2.0/24" || len(guards) != 0 {
			t.Errorf("two hours later: %+v %+v", bans, guards)
		}
		later.guess(10, "203.0.113.7", "alice")
		if e := later.events.bans; len(e) != 1 || e[0].Times != 2 {
			t.Errorf("the next ban: %+v", e)
		}
		later.come("2001:db8:77::1").want("220 ")
		for _, text := range []string{"{", `{"format": 99}`, `{"format":1,"bans":"x"}`} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if broken, err := LoadBans(path, time.Now()); err == nil || broken == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", text, err)
			}
		}
	})
}

// TestBanByHand: a network of any width, for a time or for good; who is
// connected already ends at the next AUTH or MAIL.
func TestBanByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, func(c *Config) {
			c.Listeners[0] = Listener{Mode: queue.Inbound}
			c.BanRules = BanRules{} // it works without them
		})
		ban := func(network string, until time.Time) error {
			p, err := ParseBan(network)
			if err == nil {
				_, err = b.Ban(p, until, "")
			}
			return err
		}
		unban := func(network string) error {
			p, err := ParseBan(network)
			if err == nil {
				err = b.Unban(p)
			}
			return err
		}
		open := b.come("203.0.113.7")
		open.want("220 ")
		open.do("EHLO x.example", "250-")
		open.do("MAIL FROM:<a@x.example>", "250")
		if err := ban("203.0.113.0/24", time.Time{}); err != nil {
			t.Fatal(err)
		}
		open.do("RCPT TO:<b@home.example>", "250") // a transaction goes on
		open.do("RSET", "250")
		open.do("MAIL FROM:<a@x.example>", "421 4.7.0 your address is banned here")
		open.gone()
		if err := unban("203.0.113.7"); err == nil || err.Error() != "203.0.113.7/32 is not banned by itself, but 203.0.113.0/24 is: remove that" {
			t.Error(err)
		}
		b.come("203.0.113.9").want("421 ")
		b.come("203.0.114.9").want("220 ")
		time.Sleep(1000 * time.Hour)
		b.come("203.0.113.9").want("421 ")
		if bans, _ := b.Banned(); len(bans) != 1 || bans[0].Refused < 3 {
			t.Errorf("%+v", bans)
		}
		if err := unban("203.0.113.0/24"); err != nil {
			t.Error(err)
		}
		b.come("203.0.113.9").want("220 ")
		if err := unban("203.0.113.0/24"); err == nil || err.Error() != "203.0.113.0/24 is not banned" {
			t.Error(err)
		}
		if err := ban("2001:db8:1:2::7", time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		b.come("2001:db8:1:2::8").want("421 ")
		time.Sleep(time.Hour)
		b.come("2001:db8:1:2::8").want("220 ")
		if b.bans.wide != 0 { // else each look-up takes long for ever
			t.Errorf("wide: %d", b.bans.wide)
		}
	})
}

// TestBanRemoved: who is let in again begins anew.
func TestBanRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := doorman(t, nil)
		const addr = "203.0.113.7"
		p, _ := ParseBan(addr)
		b.guess(9, addr, "alice")
		if _, err := b.Ban(p, time.Time{}, ""); err != nil {
			t.Fatal(err)
		}
		if err := b.Unban(p); err != nil {
			t.Fatal(err)
		}
		if got := b.guess(9, addr, "alice"); got != 535 {
			t.Errorf("nine failures: %d", got)
		}
		if got := b.guess(1, addr, "alice"); got != 421 {
			t.Errorf("ten: %d", got)
		}
		if err := b.Unban(p); err != nil {
			t.Fatal(err)
		}
		if b.guess(10, addr, "alice"); len(b.events.bans) != 2 || b.events.bans[1].Times != 1 {
			t.Errorf("%+v", b.events.bans)
		}
	})
}

// TestParseBan: what can be banned by hand.
func TestParseBan(t *testing.T) {
	for text, want := range map[string]string{
		"203.0.113.7": "203.0.113.7/32", "203.0.113.0/24": "203.0.113.0/24", "203.0.113.7/24": "203.0.113.0/24",
		"::ffff:203.0.113.7": "203.0.113.7/32", "::ffff:203.0.113.0/120": "203.0.113.0/24",
		"2001:db8::7": "2001:db8::/64", "2001:db8::7/128": "2001:db8::/64", "2001:db8::/32": "2001:db8::/32", "fe80::1%eth0": "fe80::/64",
		"10.0.0.0/7": "too much", "::/0": "too much", "::ffff:0:0/95": "not an address", "mail.example": "not an address", "": "not an address", "203.0.113.7\x1b[2J": "not an address",
	} {
		p, err := ParseBan(text)
		if err == nil && p.String() != want || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b")) {
			t.Errorf("%q: %v, %v, want %s", text, p, err, want)
		}
	}
	s := doorman(t, func(c *Config) { c.BanRules.Exempt = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	for _, network := range []string{"10.1.2.3", "10.0.0.0/8", "127.0.0.1", "::1"} {
		p, err := ParseBan(network)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ban(p, time.Time{}, ""); err == nil || !strings.Contains(err.Error(), "is never banned") {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// TestBansAreBounded: whatever addresses and names they come from. Bans by hand
// are not pushed out by others.
func TestBansAreBounded(t *testing.T) {
	now := time.Now()
	b := doorman(t, nil)
	rules := BanRules{Failures: 1, Within: time.Minute, For: time.Hour, Max: time.Hour, Names: 1}
	hand := netip.MustParsePrefix("192.0.2.0/24")
	if _, err := b.Ban(hand, time.Time{}, ""); err != nil {
		t.Fatal(err)
	}
	for i := range maxBans + 100 {
		a := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		b.bans.failed(rules, a, fmt.Sprint("n", i), now.Add(time.Duration(i)))
		b.bans.passed(fmt.Sprint("n", i), a, now.Add(time.Duration(i)))
		b.bans.passed("one", a, now)
	}
	if n, g, p := len(b.bans.nets), len(b.bans.guards), len(b.bans.places); n > maxBans || g > maxBans || p > maxBans {
		t.Errorf("%d bans, %d guards, %d names", n, g, p)
	}
	if n := len(b.bans.places["one"]); n != maxPlaces {
		t.Errorf("%d places of one name", n)
	}
	if b.bans.nets[hand] == nil {
		t.Error("the ban by hand is gone")
	}
	if b.bans.wide != 1 {
		t.Errorf("wide: %d", b.bans.wide)
	}
	one := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 32)
	}
	b = doorman(t, nil)
	for i := range maxByHand - 1 {
		b.bans.put(Ban{Network: one(i)}, now)
	}
	for i := range 3 {
		_, err := b.Ban(one(maxByHand+i), time.Time{}, "")
		if (err == nil) != (i == 0) {
			t.Errorf("ban %d by hand: %v", maxByHand+i, err)
		}
	}
}

// TestPlacesAreForgotten: who has not come for long is a stranger again.
func TestPlacesAreForgotten(t *testing.T) {
	b, now, a := NewBans(), time.Now(), netip.MustParseAddr("203.0.113.7")
	b.passed("alice", a, now)
	b.mu.Lock()
	b.prune(now.Add(forgetUser - 2*time.Hour))
	b.mu.Unlock()
	if !b.knows("alice", a) {
		t.Error("forgotten too soon")
	}
	b.mu.Lock()
	b.prune(now.Add(forgetUser))
	b.mu.Unlock()
	if b.knows("alice", a) {
		t.Error("not forgotten")
	}
}
