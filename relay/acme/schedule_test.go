package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// selfMade is a certificate and its key as an authority sends them.
func selfMade(t *testing.T, from time.Time, life time.Duration, names ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: from, NotAfter: from.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := keyPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), text...)
}

func pairOf(t *testing.T, text []byte) *tls.Certificate {
	t.Helper()
	cert, err := readPair(text)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestNext: when something is due, and why.
func TestNext(t *testing.T) {
	day0 := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	cert := pairOf(t, selfMade(t, day0, 90*day, "a.test", "b.test"))
	s := Settings{Directory: "https://ca.test", Names: []string{"b.test", "a.test"}}
	is := State{Directory: "https://ca.test"}
	for name, c := range map[string]struct {
		cert *tls.Certificate
		s    Settings
		st   State
		at   time.Time
		why  string
	}{
		"none":                 {nil, s, State{}, time.Time{}, "there is none yet"},
		"none, failed":         {nil, s, State{Failures: 1, Next: day0}, day0, "there is none yet"},
		"two thirds":           {cert, s, is, day0.Add(60 * day), "ends on 2030-04-01"},
		"failed":               {cert, s, State{Directory: s.Directory, Failures: 1, Next: day0.Add(61 * day)}, day0.Add(61 * day), "ends on"},
		"failed before":        {cert, s, State{Directory: s.Directory, Failures: 1, Next: day0}, day0.Add(60 * day), "ends on"},
		"a wish":               {cert, s, State{Directory: s.Directory, Wish: Wish{At: day0.Add(day)}}, day0.Add(day), "the authority wishes"},
		"a wish at once":       {cert, s, State{Directory: s.Directory, Obtained: day0.Add(time.Hour), Wish: Wish{At: day0}}, day0.Add(7 * time.Hour), "the authority wishes"},
		"due when it came":     {cert, s, State{Directory: s.Directory, Obtained: day0.Add(70 * day)}, day0.Add(71 * day), "ends on"},
		"a wish that is late":  {cert, s, State{Directory: s.Directory, Wish: Wish{At: day0.Add(80 * day)}}, day0.Add(60 * day), "ends on"},
		"another authority":    {cert, s, State{Directory: "https://staging.test"}, time.Time{}, "another authority"},
		"one more name":        {cert, Settings{Directory: s.Directory, Names: []string{"a.test", "b.test", "c.test"}}, is, time.Time{}, "is for a.test, b.test"},
		"one name less":        {cert, Settings{Directory: s.Directory, Names: []string{"a.test"}}, is, time.Time{}, "is for a.test, b.test"},
		"twice the same names": {cert, Settings{Directory: s.Directory, Names: []string{"a.test", "b.test", "a.test"}}, is, day0.Add(60 * day), "ends on"},
	} {
		if at, why := next(c.s, c.cert, c.st); !at.Equal(c.at) || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v, %q; want %v, %q", name, at, why, c.at, c.why)
		}
	}
}

// TestPauses: five failures in an hour are what Let's Encrypt allows.
func TestPauses(t *testing.T) {
	var sum time.Duration
	for n, want := range []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 160 * time.Minute, 320 * time.Minute, lastPause, lastPause} {
		if got := backOff(n + 1); got != want {
			t.Errorf("after %d failures: %v, want %v", n+1, got, want)
		}
		if sum += want; n < 4 && n > 2 && sum < time.Hour {
			t.Errorf("%d attempts in an hour", n+2)
		}
	}
	if got := backOff(1 << 40); got != lastPause {
		t.Error(got)
	}
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for st, want := range map[State]time.Time{
		{}: {},
		{Tried: now, Next: now.Add(6 * time.Hour)}:   now.Add(startPause),
		{Tried: now, Next: now.Add(5 * time.Minute)}: now.Add(5 * time.Minute),
	} {
		if got := afterStart(st); !got.Equal(want) {
			t.Errorf("%+v: %v, want %v", st, got, want)
		}
	}
}

// TestKeep: a wish counts from its first draw on, until the window moves.
func TestKeep(t *testing.T) {
	day0 := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	first := Wish{day0, day0.Add(day), day0.Add(time.Hour)}
	again := Wish{day0, day0.Add(day), day0.Add(2 * time.Hour)}
	moved := Wish{day0.Add(-day), day0, day0.Add(-time.Hour)}
	if keep(Wish{}, first) != first || keep(first, again) != first || keep(first, moved) != moved {
		t.Error("not the first draw of the newest window")
	}
}

// TestReplaces: an order names what it replaces only if the authority can know it.
func TestReplaces(t *testing.T) {
	cert := pairOf(t, selfMade(t, time.Now(), day, host))
	s := Settings{Directory: "d", Names: []string{host}}
	for name, c := range map[string]struct {
		cert *tls.Certificate
		s    Settings
		st   State
		want bool
	}{
		"a renewal":         {cert, s, State{Directory: "d"}, true},
		"none":              {nil, s, State{}, false},
		"another authority": {cert, s, State{Directory: "e"}, false},
		"after a failure":   {cert, s, State{Directory: "d", Failures: 1}, false},
		"other names":       {cert, Settings{Directory: "d", Names: []string{"b.test"}}, State{Directory: "d"}, false},
	} {
		if got := replaces(c.s, c.cert, c.st) != nil; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestClockAhead: a certificate that is due when it comes is no reason to fetch
// another.
func TestClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(t.TempDir()+"/acme", &journal{})
		n := 0
		m.issue = func(_ context.Context, s Settings, _ *accountKey, _ *x509.Certificate) (issued, error) {
			n++
			return issued{pem: selfMade(t, time.Now().Add(-70*day), 90*day, s.Names...)}, nil
		}
		m.ask = func(context.Context, Settings, *x509.Certificate) (Wish, error) { return Wish{}, nil }
		m.Start(&Settings{Directory: "d", Names: []string{host}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*day-time.Hour)
		defer cancel()
		m.Run(ctx)
		if n != 10 {
			t.Errorf("%d certificates in ten days, want one a day", n)
		}
	})
}

// TestRun: a year in virtual time. The authority is away for a day, works, and
// is away again when the renewal is due; in between the settings change.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		m := New(t.TempDir()+"/acme", log)
		begin := time.Now()
		var mu sync.Mutex // of what follows
		var all []time.Duration
		asked := 0
		// take is when it was tried since the last call.
		take := func() (tried []time.Duration) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			tried, all = all, nil
			return tried
		}
		away := func() bool {
			past := time.Since(begin)
			return past < day || past > 60*day && past < 62*day
		}
		m.issue = func(_ context.Context, s Settings, _ *accountKey, _ *x509.Certificate) (issued, error) {
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(begin).Round(time.Minute))
			if away() {
				return issued{}, errors.New("away")
			}
			return issued{pem: selfMade(t, time.Now(), 90*day, s.Names...)}, nil
		}
		m.ask = func(context.Context, Settings, *x509.Certificate) (Wish, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return Wish{}, errors.New("away")
		}
		m.Start(nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.Run(ctx)
		time.Sleep(time.Hour)
		if tried := take(); len(tried) > 0 {
			t.Errorf("switched off, and tried at %v", tried)
		}
		mu.Lock()
		begin = time.Now()
		mu.Unlock()
		m.Reconfigure(&Settings{Directory: "d", Names: []string{host}})
		time.Sleep(day - time.Second)
		mins := func(n ...int) (out []time.Duration) {
			for _, x := range n {
				out = append(out, time.Duration(x)*time.Minute)
			}
			return out
		}
		tried := take()
		if want := mins(0, 5, 15, 35, 75, 155, 315, 635, 995, 1355); !slices.Equal(tried, want) {
			t.Errorf("tried at %v, want %v", tried, want)
		}
		if m.Ready() {
			t.Error("ready")
		}
		time.Sleep(2 * time.Second)
		m.Reconfigure(m.settings) // the operator has mended it
		synctest.Wait()
		if !m.Ready() {
			t.Fatal("not tried at once")
		}
		cert, _ := m.Get(nil)
		take()
		time.Sleep(61*day - 3*time.Hour) // it was issued on the second day
		if tried = take(); len(tried) < 2 || tried[0] != 61*day {
			t.Errorf("the renewal: tried at %v, want from %v on", tried, 61*day)
		}
		if now, err := m.Get(nil); err != nil || now != cert {
			t.Errorf("while it fails: %v", err)
		}
		time.Sleep(2 * day)
		if now, err := m.Get(nil); err != nil || now == cert {
			t.Errorf("not renewed when the authority was back: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if n := asked; n < 200 || n > 260 {
			t.Errorf("the authority was asked %d times for its wish in 62 days, want four times a day", n)
		}
	})
}

// TestSettingsDuringAnAttempt: what fails by settings that are gone makes the
// new ones wait for nothing.
func TestSettingsDuringAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(t.TempDir()+"/acme", &journal{})
		begin := time.Now()
		var tried []string
		m.issue = func(_ context.Context, s Settings, _ *accountKey, _ *x509.Certificate) (issued, error) {
			tried = append(tried, s.Names[0])
			time.Sleep(10 * time.Second)
			if s.Names[0] == "wrong.test" {
				return issued{}, errors.New("no such name")
			}
			return issued{pem: selfMade(t, time.Now(), 90*day, s.Names...)}, nil
		}
		m.Start(&Settings{Directory: "d", Names: []string{"wrong.test"}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.Run(ctx)
		time.Sleep(time.Second)
		m.Reconfigure(&Settings{Directory: "d", Names: []string{host}})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if !m.Ready() || !slices.Equal(tried, []string{"wrong.test", host}) {
			t.Errorf("tried %v in %v", tried, time.Since(begin))
		}
	})
}
