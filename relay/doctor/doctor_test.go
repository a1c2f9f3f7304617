package doctor

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRun: a machine that is in order, and the order of what is found.
func TestRun(t *testing.T) {
	w := newWorld(t, gmailZone+hostZone, "public_addresses: [\"203.0.113.5\"]\ndelivery: { mx_port: @mx@ }", map[string]string{"mx": ""})
	left := -1
	found := Run(t.Context(), w.Env, func(underway []string) { left = len(underway) })
	complete(t, found)
	if left != 0 {
		t.Errorf("at the end %d checks are said to be under way", left)
	}
	if r := NewReport(found, Stopped); r.Level != OK || r.Skipped != 1 { // the listener on port 0
		t.Errorf("%+v\n%s", r, texts(found))
	}
	seen := map[string]bool{}
	for _, f := range found {
		seen[f.Check] = true
	}
	for _, c := range checks {
		if !seen[c.name] && c.name != "relay domains" { // there are none
			t.Errorf("nothing from %q", c.name)
		}
	}

	w.Config.DNS.Servers = nil
	w.Config.DataDir += "/none"
	w.Machine.Clock = func() (bool, error) { return false, nil }
	w.Probes = []string{"127.0.0.1:1"}
	var order []string
	for _, f := range Run(t.Context(), w.Env, nil) {
		if len(order) == 0 || order[len(order)-1] != string(f.Level) {
			order = append(order, string(f.Level))
		}
	}
	if got := strings.Join(order, " "); got != "error warning note skipped ok" {
		t.Errorf("order: %s", got)
	}
}

// TestHangingCheck: a disk that hangs holds nobody up for longer than the limit.
func TestHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), Limit)
		defer cancel()
		hangs := make(chan struct{})
		begin := time.Now()
		found := check{"disk", func(context.Context, *Env) []Finding { <-hangs; return nil }}.within(ctx, nil)
		close(hangs)
		if took := time.Since(begin); took != Limit+time.Second {
			t.Errorf("took %s", took)
		}
		if len(found) != 1 || found[0].Level != Warning || found[0].Check != "disk" || !strings.Contains(found[0].What, "did not end within 20s") {
			t.Errorf("%+v", found)
		}
	})
}

// TestDocumented: docs/doctor.md has a line for each check.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if !strings.Contains(string(text), "\n| "+c.name+" | ") {
			t.Errorf("%q is not in the table", c.name)
		}
	}
}
