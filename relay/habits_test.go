package relay

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"srvrelay/queue"
)

func holdRules() AnomalyRules {
	return AnomalyRules{Action: AnomalyHold, VolumeFactor: 5, VolumeFloor: 500, UnknownShare: 30, UnknownFloor: 50}
}

func TestSudden(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	rules := holdRules()
	never := rules
	never.VolumeFactor = 0
	known := func(usual float64, hour int64) habit {
		return habit{Usual: usual, At: now, Day: now}.after(now).sent(hour, now)
	}
	for _, tc := range []struct {
		name  string
		rules AnomalyRules
		h     habit
		n     int64
		want  string
	}{
		{"a stranger, up to the floor", rules, known(0, 0), 500, ""},
		{"a stranger, above it", rules, known(0, 0), 501, "501 recipients within an hour, more than 500; there was hardly any mail before"},
		{"with what was in the hour", rules, known(0, 400), 101, "501 recipients within an hour"},
		{"one who sends little", rules, known(20, 0), 501, "501 recipients within an hour, more than 500; the busiest hour before had 20"},
		{"one who sends much", rules, known(1000, 0), 5000, ""},
		{"one who sends much, and suddenly more", rules, known(1000, 4990), 11, "5001 recipients within an hour, more than 5000; the busiest hour before had 1000"},
		{"never", never, known(0, 0), 1e9, ""},
		{"after a release", rules, known(0, 0).released(now.Add(-releasedGrace + 1)), 1e9, ""},
		{"a day after a release", rules, known(0, 0).released(now.Add(-releasedGrace)), 501, "501 recipients"},
	} {
		if got := tc.rules.sudden(tc.h, tc.n, now); (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestUnknownShare(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	rules := holdRules()
	never := rules
	never.UnknownShare = 0
	for _, tc := range []struct {
		name          string
		rules         AnomalyRules
		unknown, done int
		free          time.Time
		want          string
	}{
		{"all, but few", rules, 49, 49, time.Time{}, ""},
		{"all, and enough", rules, 50, 50, time.Time{}, "50 of the last 50 recipients do not exist"},
		{"a list with some dead addresses", rules, 50, 167, time.Time{}, ""},
		{"as many as the share", rules, 51, 170, time.Time{}, "51 of the last 170"},
		{"never", never, 50, 50, time.Time{}, ""},
		{"after a release", rules, 50, 50, now.Add(1), ""},
	} {
		got := tc.rules.guessing(habit{Done: tc.done, Unknown: tc.unknown, Free: tc.free}, now)
		if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestResults: the newest results of a day count, and no older ones.
func TestUnknownResults(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	rules := holdRules()
	var h habit
	feed := func(n int, unknown bool) bool {
		for range n {
			if h = h.resulted(&rules, unknown, now); h.Done > habitWindow*rules.UnknownFloor || h.Unknown > h.Done {
				t.Fatalf("%d of %d", h.Unknown, h.Done)
			}
		}
		return rules.guessing(h, now) != ""
	}
	if feed(100_000, false) {
		t.Error("good recipients are odd")
	}
	if feed(49, true) || !feed(100, true) {
		t.Error("a long good time counts for more than what is new")
	}
	now = now.Add(habitDay)
	if feed(49, true) {
		t.Error("results of yesterday count")
	}
	if !feed(1, true) {
		t.Error("those of today do not")
	}
}

// TestHabit: what becomes usual, and when it fades.
func TestHabit(t *testing.T) {
	start := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	type step struct {
		at   time.Duration
		sent int64
	}
	for _, tc := range []struct {
		name     string
		steps    []step
		at       time.Duration
		usual    float64
		lastHour int64
	}{
		{"today is not usual yet", []step{{0, 400}}, 23 * time.Hour, 0, 0},
		{"tomorrow it is", []step{{0, 400}}, day, 400, 0},
		{"an hour is no more than an hour", []step{{0, 400}, {61 * time.Minute, 300}}, day + time.Hour, 400, 0},
		{"what is within an hour counts together", []step{{0, 400}, {54 * time.Minute, 300}}, day, 700, 0},
		{"within the hour", []step{{0, 400}}, 54 * time.Minute, 0, 400},
		{"after the hour", []step{{0, 400}}, 60 * time.Minute, 0, 0},
		{"half of it fades in 30 days", []step{{0, 400}}, day + habitHalf, 200, 0},
		{"and half of that", []step{{0, 400}}, day + 2*habitHalf, 100, 0},
		{"the busiest day stays", []step{{0, 400}, {day, 10}, {2 * day, 10}}, 3 * day, 400 * faded(2*day), 0},
		{"a busier one takes its place", []step{{0, 400}, {day, 1000}}, 2 * day, 1000, 0},
		{"a clock that went back an hour", []step{{2 * time.Hour, 400}, {time.Hour, 100}}, 2 * time.Hour, 0, 500},
		{"a clock that went back a year", []step{{365 * day, 400}, {0, 100}}, 2 * time.Hour, 400 * faded(2*time.Hour), 0},
	} {
		var h habit
		for _, s := range tc.steps {
			now := start.Add(s.at)
			h = h.after(now).sent(s.sent, now)
		}
		now := start.Add(tc.at)
		if h = h.after(now); h.usual(now)-tc.usual > 0.5 || tc.usual-h.usual(now) > 0.5 || h.hour() != tc.lastHour {
			t.Errorf("%s: usual %.1f, want %.1f; %d in the last hour, want %d", tc.name, h.usual(now), tc.usual, h.hour(), tc.lastHour)
		}
	}
}

// TestNewsletterAndThief: in virtual time, one who sends a newsletter every
// month is never held once it is known, while one who has stolen the password
// of a person gets out no more than the floor, and cannot work up to more in a day.
func TestNewsletterAndThief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rules := NewMeter(), holdRules()
		send := func(who string, n int64) bool {
			held, _ := m.submit(&rules, who, n, time.Now())
			return held == nil
		}
		if send("user news", 3000) {
			t.Error("more than the floor by a stranger goes out")
		}
		m.release("user news", time.Now())
		if !send("user news", 3000) {
			t.Error("held after the release")
		}
		for month := range 12 {
			for range 30 { // and beside it a person who writes letters
				time.Sleep(24 * time.Hour)
				if !send("user anna", 5) {
					t.Fatal("anna is held for a letter")
				}
			}
			if !send("user news", 3000+int64(month)*100) {
				t.Errorf("the newsletter of month %d is held", month)
			}
		}
		out := int64(0)
		for range 24 * 60 {
			if send("user anna", 25) {
				out += 25
			}
			time.Sleep(time.Minute)
		}
		if out < 470 || out > 500 {
			t.Errorf("the thief got out %d", out)
		}
		m.release("user anna", time.Now())
		time.Sleep(2 * habitDay)
		send("user anna", 1)
		if h := m.habits["user anna"]; h.Usual > 500 || h.Usual < 450 {
			t.Errorf("%.0f are usual now: what was held counts, or what went out does not", h.Usual)
		}
		if !send("user bert", 1) || !send("user news", 1) {
			t.Error("others are held")
		}

		// A careful one stays below and works up: no sooner than the next day.
		out = 0
		for range 23 {
			if !send("user carl", 499) {
				t.Error("held below the floor")
			}
			if held, _ := m.submit(&rules, "user dora", 499, time.Now()); held != nil {
				t.Error("held below the floor")
			}
			time.Sleep(time.Hour)
		}
		if send("user carl", 2400) {
			t.Error("what was sent today counts as usual today")
		}
	})
}

// TestHoldIsToldOnce: a hold once until it is lifted, a warning once a day; the
// rules that are in force say what comes of a suspicion.
func TestHoldIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, rules := NewMeter(), holdRules()
		news := 0
		n := int64(600)
		send := func() (held bool) {
			h, n := m.submit(&rules, "user anna", n, time.Now())
			if n != nil {
				news++
			}
			return h != nil
		}
		for range 10 {
			if !send() {
				t.Error("not held")
			}
			time.Sleep(24 * time.Hour)
		}
		if news != 1 {
			t.Errorf("told %d times", news)
		}
		rules.Exempt = []string{"anna"}
		if s := m.suspects(&rules, time.Now()); len(s) != 0 || rules.who("anna", netip.Addr{}) != "" {
			t.Errorf("exempt, and %+v", s)
		}
		rules.Exempt, rules.Action = nil, AnomalyWarn
		for range 3 {
			for range 24 {
				if send() {
					t.Error("held by a rule that warns")
				}
				time.Sleep(time.Hour)
			}
			n *= 10 // the day before is usual now
		}
		if news != 4 {
			t.Errorf("told %d times, want once a day", news)
		}
		if s := m.suspects(&rules, time.Now()); len(s) > 1 || len(s) == 1 && s[0].Held {
			t.Errorf("%+v", s)
		}
		time.Sleep(30 * time.Hour)
		if s := m.suspects(&rules, time.Now()); len(s) != 0 {
			t.Errorf("a warning of yesterday: %+v", s)
		}
	})
}

// TestAnomalyAtTheDoor: what a user submits who is odd is accepted and held; what
// was not accepted does not count.
func TestAnomalyAtTheDoor(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Anomaly = holdRules()
		c.Anomaly.VolumeFloor, c.Anomaly.UnknownFloor = 10, 3
		c.Anomaly.Networks = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	c := f.secure(authDoor)
	c.do("AUTH PLAIN "+b64("\x00alice\x00s3cret"), "235")
	mail := func(c *client, n int, want string) {
		t.Helper()
		c.do("MAIL FROM:<a@b.example>", "250")
		for i := range n {
			c.do(fmt.Sprintf("RCPT TO:<r%d@b.example>", i), "250")
		}
		c.do("DATA", "354")
		c.do(hello+".", want)
	}
	f.queue.fail = os.ErrDeadlineExceeded
	for range 5 {
		mail(c, 10, "451")
	}
	f.queue.fail = nil
	mail(c, 6, "250")
	mail(c, 5, "250") // 11
	mail(c, 1, "250") // held, however small
	mail(f.ready(trustedDoor), 20, "250")
	var held []string
	for _, m := range f.queue.all() {
		held = append(held, m.env.Hold.Reason)
		if h := m.env.Hold; h.Reason != "" && (h.Code != "4.7.0" || !strings.HasPrefix(h.Text, "the mail of alice is on hold: 11 recipients within an hour, more than 10")) {
			t.Errorf("%+v", h)
		}
	}
	if got := strings.Join(held, ","); got != ",anomaly-hold,anomaly-hold," {
		t.Errorf("held: %s", got)
	}
	if s := f.srv.Suspects(); len(s) != 1 || s[0].Name() != "alice" || !s[0].Held {
		t.Errorf("%+v", s)
	}
	if _, err := f.srv.Release("bob"); err == nil {
		t.Error("released who is not on hold")
	}
	for !f.srv.meter.full(&f.srv.current.Load().Anomaly, "user alice") {
		f.srv.meter.kept("user alice", 100<<20)
	}
	c.do("MAIL FROM:<a@b.example>", "450 4.7.1 alice: your mail is on hold here")
	if s := f.srv.Suspects(); s[0].Messages < 4 || s[0].Bytes < 300<<20 {
		t.Errorf("%+v", s)
	}
	if user, err := f.srv.Release("alice"); err != nil || !user {
		t.Error(user, err)
	}
	mail(c, 20, "250")
	if all := f.queue.all(); all[len(all)-1].env.Hold.Reason != "" {
		t.Error("held after the release")
	}

	// What became of it: the users whom nobody watches are not counted.
	client := func(user, addr string) queue.Client {
		return queue.Client{User: user, Addr: netip.MustParseAddrPort(addr + ":1")}
	}
	for _, who := range []queue.Client{client("bob", "127.0.0.1"), client("", "127.0.0.2"), client("", "127.0.0.1")} {
		for range 5 {
			f.srv.Result(who, true)
		}
	}
	defer f.events.lock()()
	var names []string
	for _, s := range f.events.suspects {
		names = append(names, s.Who+": "+s.Why)
	}
	want := []string{
		"user alice: 11 recipients within an hour, more than 10; there was hardly any mail before",
		"user bob: 3 of the last 3 recipients do not exist", "address 127.0.0.2: 3 of the last 3 recipients do not exist",
	}
	if strings.Join(names, "\n") != strings.Join(want, "\n") {
		t.Errorf("told of:\n%s", strings.Join(names, "\n"))
	}
	if user, err := f.srv.Release("127.0.0.2"); err != nil || user {
		t.Error(user, err)
	}
}

// TestHabitsFile: a hold and what is usual outlast a restart; old habits do not.
func TestHabitsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.json")
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	m, rules := NewMeter(), holdRules()
	m.submit(&rules, "user anna", 501, now)
	m.submit(&rules, "user bert", 300, now)
	save := func() {
		t.Helper()
		if err := m.Save(path, now); err != nil {
			t.Fatal(err)
		}
		var err error
		if m, err = LoadMeter(path, now); err != nil {
			t.Fatal(err)
		}
	}
	save()
	if held, news := m.submit(&rules, "user anna", 1, now); held == nil || news != nil || held.Who != "user anna" || !strings.HasPrefix(held.Why, "501 recipients") {
		t.Errorf("%+v, %+v", held, news)
	}
	if held, _ := m.submit(&rules, "user bert", 201, now); held == nil {
		t.Error("the hour began anew")
	}
	if !m.release("user anna", now) || m.release("user anna", now) {
		t.Error("not released once")
	}
	now = now.Add(habitDay)
	save()
	if all := m.suspects(&rules, now); len(all) != 1 || all[0].Who != "user bert" {
		t.Errorf("%+v", all)
	}
	now = now.Add(habitForget)
	m.submit(&rules, "user carl", 1, now)
	save()
	if _, there := m.habits["user anna"]; there || len(m.habits) != 2 {
		t.Errorf("%+v", m.habits)
	}
	if err := os.WriteFile(path, []byte(`{"format":1,"buckets":[]}`), 0o600); err != nil { // of a version without habits
		t.Fatal(err)
	}
	if m, err := LoadMeter(path, now); err != nil {
		t.Error(err)
	} else if held, _ := m.submit(&rules, "user anna", 1, now); held != nil {
		t.Error("held for nothing")
	}
}

// TestHabitsAreBounded: of many, those who are on hold stay known.
func TestHabitsAreBounded(t *testing.T) {
	m, rules, now := NewMeter(), holdRules(), time.Unix(1e9, 0)
	m.submit(&rules, "user thief", 501, now)
	for i := range maxHabits + 500 {
		m.submit(&rules, fmt.Sprint("address ", i), 1, now.Add(time.Duration(i)))
	}
	if len(m.habits) > maxHabits {
		t.Errorf("%d habits", len(m.habits))
	}
	if held, _ := m.submit(&rules, "user thief", 1, now); held == nil {
		t.Error("a hold was forgotten")
	}
}

// TestHeldIsBounded: somebody on hold cannot fill the queue.
func TestHeldIsBounded(t *testing.T) {
	m, rules, now := NewMeter(), holdRules(), time.Unix(1e9, 0)
	hold := func() {
		t.Helper()
		if held, _ := m.submit(&rules, "user thief", 501, now); held == nil {
			t.Fatal("not held")
		}
	}
	for what, size := range map[string]int64{"messages": 1, "bytes": maxHeldBytes/2 + 1} {
		hold()
		n := 0
		for !m.full(&rules, "user thief") {
			m.kept("user thief", size)
			n++
		}
		if n != maxHeldMessages && n != 2 {
			t.Errorf("%s: full after %d", what, n)
		}
		if rules.Action = AnomalyWarn; m.full(&rules, "user thief") || m.full(&rules, "user anna") || m.full(&rules, "") {
			t.Error("refused where nothing is held")
		}
		rules.Action = AnomalyHold
		m.release("user thief", now)
		if m.full(&rules, "user thief") {
			t.Error("full after the release")
		}
		now = now.Add(releasedGrace)
	}
}
