package relay

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func perHour(n int64) Rate { return Rate{N: n, Per: time.Hour, Text: fmt.Sprintf("%d/h", n)} }

func TestBucket(t *testing.T) {
	r, begin := perHour(60), time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	b := bucket{}.after(r, begin).filled(r, 60)
	for _, tc := range []struct {
		after time.Duration
		n     int64
		want  time.Duration
	}{
		{0, 1, time.Minute},
		{0, 60, time.Hour},
		{0, 1000, time.Hour}, // more than fits passes an empty bucket
		{30 * time.Second, 1, 30 * time.Second},
		{time.Minute, 1, 0},
		{time.Minute, 2, time.Minute},
		{time.Hour, 60, 0},
		{time.Hour, 1000, 0},
		{100 * time.Hour, 1000, 0},
		{-time.Hour, 1, time.Minute}, // the clock went back
	} {
		if got := b.after(r, begin.Add(tc.after)).wait(r, tc.n); (got - tc.want).Abs() > time.Millisecond {
			t.Errorf("%s later, for %d: %s, want %s", tc.after, tc.n, got, tc.want)
		}
	}
	if want := begin.Add(time.Hour); !b.Empty.Equal(want) {
		t.Errorf("empty at %s, want %s", b.Empty, want)
	}
	if d := b.filled(r, 60); d.wait(r, 1) != time.Hour+time.Minute { // a debt runs off first
		t.Errorf("debt: %s", d.wait(r, 1))
	}
	if b.filled(r, -100).Used != 0 {
		t.Error("more was given back than was there")
	}
}

// TestBucketProperty: whatever is asked for, and when: no more than 2 N pass in
// any span of Per, and N when the bucket was empty.
func TestBucketProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rate{N: rapid.Int64Range(1, 50).Draw(t, "n"), Per: time.Hour}
		type use struct {
			at time.Time
			n  int64
		}
		var uses []use
		now, b := time.Unix(0, 0), bucket{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "pause")))
			n := rapid.Int64Range(1, r.N).Draw(t, "amount")
			b = b.after(r, now)
			if wait := b.wait(r, n); wait > 0 {
				if w := b.after(r, now.Add(wait+time.Millisecond)).wait(r, n); w > 0 {
					t.Fatalf("after a wait of %s it is still %s", wait, w)
				}
				continue
			}
			b = b.filled(r, n)
			uses = append(uses, use{now, n})
			sum := int64(0)
			for _, u := range uses {
				if now.Sub(u.at) < r.Per {
					sum += u.n
				}
			}
			if sum > 2*r.N {
				t.Fatalf("%d in an hour, the rate is %d/h", sum, r.N)
			}
		}
	})
}

func TestRateRules(t *testing.T) {
	rules, err := newRateRules([]RateRule{
		{User: "*", Messages: perHour(10), Recipients: perHour(100)},
		{User: "big", Messages: perHour(1000)},
		{User: "free"},
		{Network: netip.MustParsePrefix("10.1.0.0/16"), Messages: perHour(7)},
		{Network: netip.MustParsePrefix("10.0.0.0/8"), Messages: perHour(5)},
		{Network: netip.MustParsePrefix("2001:db8::/32"), Bytes: perHour(5)},
		{Bytes: perHour(1 << 30)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ user, client, want string }{
		{"alice", "192.0.2.1", "user alice messages 10, user alice recipients 100, total bytes 1073741824"},
		{"big", "192.0.2.1", "user big messages 1000, total bytes 1073741824"},
		{"free", "192.0.2.1", "total bytes 1073741824"},
		{"", "192.0.2.1", "total bytes 1073741824"},
		{"", "10.1.2.3", "address 10.1.2.3 messages 7, total bytes 1073741824"},
		{"free", "::ffff:10.2.2.3", "address 10.2.2.3 messages 5, total bytes 1073741824"},
		{"", "2001:db8:1:2:3::4", "address 2001:db8:1:2::/64 bytes 5, total bytes 1073741824"},
	} {
		var got []string
		for _, s := range rules.of(tc.user, netip.MustParseAddr(tc.client)) {
			got = append(got, fmt.Sprintf("%s %s %d", s.key.Who, s.key.What, s.rate.N))
		}
		if g := strings.Join(got, ", "); g != tc.want {
			t.Errorf("%q at %s: %s, want %s", tc.user, tc.client, g, tc.want)
		}
	}
	for _, bad := range []RateRule{
		{User: "a", Network: netip.MustParsePrefix("10.0.0.0/8")},
		{User: "a", Messages: Rate{N: 1}},
		{User: "a", Bytes: Rate{Per: time.Hour}},
	} {
		if _, err := newRateRules([]RateRule{bad}); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

// TestRatesAtTheDoor: what of a transaction counts, and that only what was
// accepted does.
func TestRatesAtTheDoor(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Rates = []RateRule{{User: "alice", Messages: perHour(3), Recipients: perHour(10), Bytes: perHour(5000)}}
	})
	c := f.secure(authDoor)
	c.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "235")
	used := func(what string, want int64) {
		t.Helper()
		f.srv.meter.mu.Lock()
		defer f.srv.meter.mu.Unlock()
		if got := f.srv.meter.buckets[bucketKey{"user alice", what}].Used; got > float64(want)+0.01 || got < float64(want)-1 {
			t.Errorf("%s: %v used, want %d", what, got, want)
		}
	}
	mail := func(rcpts int) {
		t.Helper()
		c.do("MAIL FROM:<a@b.example> SIZE=1000", "250")
		for i := range rcpts {
			c.do(fmt.Sprintf("RCPT TO:<r%d@b.example>", i), "250")
		}
	}
	// Given up in each way that there is: nothing is used.
	mail(4)
	used(countRecipients, 4)
	used(countBytes, 1000)
	c.do("RCPT TO:<r0@b.example>", "250") // again: one recipient
	used(countRecipients, 4)
	c.do("RSET", "250")
	mail(4)
	c.do("EHLO client.example", "250")
	mail(4)
	c.do("DATA", "354")
	c.do("NUL \x00 here\r\n.", "550")
	mail(4)
	f.queue.fail = os.ErrDeadlineExceeded
	c.do("DATA", "354")
	c.do(hello+".", "451")
	f.queue.fail = nil
	for _, what := range []string{countMessages, countRecipients, countBytes} {
		used(what, 0)
	}

	mail(4)
	c.do("DATA", "354")
	c.do(hello+".", "250")
	used(countMessages, 1)
	used(countRecipients, 4)
	used(countBytes, f.queue.one(t).env.Size) // what came, not what was announced
	mail(6)
	if r := c.do("RCPT TO:<r6@b.example>", "450 4.7.1"); !strings.HasPrefix(r, "450 4.7.1 alice: the limit of 10/h recipients (submission.limits) is reached, it goes on at 20") || !strings.HasSuffix(r, " UTC\r\n") {
		t.Errorf("%q", r)
	}
	c.do("DATA", "354") // those before are served
	c.do(hello+".", "250")
	c.do("MAIL FROM:<a@b.example> SIZE=4900", "450 4.7.1 alice: the limit of 5000/h bytes")
	used(countMessages, 2) // nothing was taken for it
	c.do("MAIL FROM:<a@b.example>", "250")
	d := f.secure(authDoor) // a connection more is no way around
	d.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "235")
	d.do("MAIL FROM:<a@b.example>", "450 4.7.1 alice: the limit of 3/h messages")
	c.conn.Close() // as is a transaction that was broken off
	for {
		d.send("MAIL FROM:<a@b.example>\r\n")
		if strings.HasPrefix(d.reply(), "250") {
			break
		}
	}
	d.do("RSET", "250")

	c = f.ready(trustedDoor) // nobody's limit
	for range 5 {
		c.envelope("b@b.example")
		c.do("DATA", "354")
		c.do(hello+".", "250")
	}
	defer f.events.lock()()
	var near []string
	for _, n := range f.events.near {
		near = append(near, fmt.Sprintf("%s %s %d of %d", n.Who, n.What, n.Used, n.Rate.N))
	}
	if got := strings.Join(near, ", "); got != "user alice recipients 8 of 10, user alice messages 3 of 3" {
		t.Errorf("warned of: %s", got)
	}
}

// TestLimitGoesOn: in virtual time, a client that sends whatever it may.
func TestLimitGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter()
		shares := []share{{key: bucketKey{"user alice", countMessages}, rate: perHour(200), who: "alice", rule: "submission.limits"}}
		sent, warned := 0, 0
		begin := time.Now()
		for time.Since(begin) < 8*time.Hour {
			c := &charge{shares: shares, meter: m, taken: map[string]int64{}}
			r := c.take(time.Now(), func(NearLimit) { warned++ }, amount{countMessages, 1})
			if r == nil {
				sent++
				c.keep(time.Now(), 0)
				continue
			}
			_, at, _ := strings.Cut(strings.TrimSuffix(r.Message, " UTC"), "goes on at ")
			when, err := time.Parse("2006-01-02 15:04:05", at)
			if err != nil || !when.After(time.Now()) || time.Until(when) > 20*time.Second {
				t.Fatalf("at %s: %s (%v)", time.Now(), r.Message, err)
			}
			time.Sleep(time.Until(when))
		}
		if sent < 200*8 || sent > 200*9 || warned != 1 {
			t.Errorf("%d messages in 8 hours at 200/h, %d warnings", sent, warned)
		}
		time.Sleep(31 * time.Minute) // half has run off: a new filling, a new warning
		c := &charge{shares: shares, meter: m, taken: map[string]int64{}}
		for range 70 {
			c.take(time.Now(), func(NearLimit) { warned++ }, amount{countMessages, 1})
		}
		if warned != 2 {
			t.Errorf("%d warnings, want 2", warned)
		}
	})
}

// TestMeterTogether: many at once pass no more than the limit.
func TestMeterTogether(t *testing.T) {
	m, now := NewMeter(), time.Unix(0, 0)
	shares := []share{
		{key: bucketKey{"user alice", countRecipients}, rate: perHour(1000)},
		{key: bucketKey{"total", countRecipients}, rate: perHour(500)},
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 20 {
		wg.Go(func() {
			for range 100 {
				if full, _, _ := m.take(shares, []amount{{countRecipients, 1}}, now); full == nil {
					mu.Lock()
					passed++
					mu.Unlock()
				} else if full.key.Who != "total" {
					t.Errorf("full: %v", full.key)
				}
			}
		})
	}
	wg.Wait()
	if passed != 500 || m.buckets[shares[0].key].Used != 500 {
		t.Errorf("%d passed of 500, and %v were taken from the user", passed, m.buckets[shares[0].key].Used)
	}
}

func TestMeterFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.json")
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	m, err := LoadMeter(path, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(path, now); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a meter that has not changed was written")
	}
	shares := []share{{key: bucketKey{"user al\"ice", countMessages}, rate: perHour(10)}}
	m.take(shares, []amount{{countMessages, 9}}, now)
	if err := m.Save(path, now); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	for _, tc := range []struct {
		later, want time.Duration
	}{
		{0, 24 * time.Minute}, {12 * time.Minute, 12 * time.Minute}, {time.Hour, 0}, {-time.Hour, 24 * time.Minute},
	} {
		again, err := LoadMeter(path, now.Add(tc.later))
		if err != nil {
			t.Fatal(err)
		}
		_, until, warn := again.take(shares, []amount{{countMessages, 5}}, now.Add(tc.later))
		if wait := until.Sub(now.Add(tc.later)); tc.want == 0 != until.IsZero() || tc.want > 0 && (wait-tc.want).Abs() > time.Second || len(warn) > 0 {
			t.Errorf("loaded %s later: a wait of %s, want %s, warned %v", tc.later, wait, tc.want, warn)
		}
	}
	for _, text := range []string{"", "{", `{"format":2}`, `[]`, strings.Repeat(" ", maxKeptFile+1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := LoadMeter(path, now)
		if err == nil || !strings.Contains(err.Error(), "everybody begins with unused limits") {
			t.Errorf("%.20q: %v", text, err)
		}
		if full, _, _ := m.take(shares, []amount{{countMessages, 10}}, now); full != nil {
			t.Errorf("%.20q: not fresh", text)
		}
	}
	if err := m.Save(filepath.Join(path, "x"), now); err != nil {
		t.Error("nothing has changed, and it was written")
	}
	m.take(shares, []amount{{countMessages, 1}}, now)
	if err := m.Save(filepath.Join(path, "x"), now); err == nil {
		t.Error("written below a file")
	}
	if err := m.Save(path, now); err != nil { // what could not be written is not forgotten
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), `"used":`) {
		t.Errorf("%s", text)
	}
}

// TestMeterIsBounded: with many addresses, the one that has used most stays.
func TestMeterIsBounded(t *testing.T) {
	m, now := NewMeter(), time.Unix(0, 0)
	busy := share{key: bucketKey{"user thief", countMessages}, rate: perHour(10)}
	m.take([]share{busy}, []amount{{countMessages, 10}}, now)
	for i := range maxBuckets + 500 {
		m.take([]share{{key: bucketKey{fmt.Sprint("address ", i), countMessages}, rate: perHour(10)}}, []amount{{countMessages, 1}}, now)
	}
	if len(m.buckets) > maxBuckets {
		t.Errorf("%d buckets", len(m.buckets))
	}
	if full, _, _ := m.take([]share{busy}, []amount{{countMessages, 1}}, now); full == nil {
		t.Error("the fullest bucket was forgotten")
	}
	m.take([]share{{key: bucketKey{"user x", countMessages}, rate: perHour(10)}}, []amount{{countMessages, 1}}, now.Add(time.Hour))
	if len(m.buckets) > 2 {
		t.Errorf("%d buckets after an hour: the empty ones were kept", len(m.buckets))
	}
}
