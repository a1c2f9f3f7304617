//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
