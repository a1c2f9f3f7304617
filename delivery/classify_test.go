package delivery

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"srvrelay/delivery/smtpclient"
	"srvrelay/queue"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestClassify compares the whole failure policy with the matrix in
// testdata/delivery/classify.txt, which is there to be read.
func TestClassify(t *testing.T) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%-12s %-36s %-13s %-6s %-5s %-7s %-8s %-6s %s\n", "stage", "what happened", "step", "result", "down", "slower", "unknown", "code", "reason")
	for stage := smtpclient.StageConnect; stage <= smtpclient.StageDot; stage++ {
		for _, c := range failures() {
			v := Classify(&smtpclient.Error{Stage: stage, Reply: c.reply, Err: c.err})
			fmt.Fprintf(&b, "%-12s %-36s %-13s %-6s %-5v %-7v %-8v %-6s %s\n", stage, c.name, v.Step, v.Result, v.Down, v.Slower, v.Unknown, v.Status.Code, v.Status.Reason)
		}
	}
	golden(t, "classify.txt", b.Bytes())
}

type failure struct {
	name  string
	reply *smtpclient.Reply
	err   error
}

func failures() []failure {
	reply := func(code int, enhanced, text string) failure {
		r := &smtpclient.Reply{Code: code, Enhanced: enhanced, Lines: []string{text}}
		if enhanced != "" {
			r.Lines[0] = enhanced + " " + text
		}
		return failure{r.String(), r, nil}
	}
	return []failure{
		reply(421, "4.3.2", "shutting down"),
		reply(450, "", "busy"),
		reply(451, "4.7.1", "greylisted"),
		reply(452, "4.5.3", "too many recipients"),
		reply(530, "5.7.0", "auth required"),
		reply(550, "5.1.1", "no such user"),
		reply(554, "", "no"),
		{"refused", nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)},
		{"timeout", nil, fmt.Errorf("read: %w", os.ErrDeadlineExceeded)},
		{"no route", nil, fmt.Errorf("dial: %w", syscall.EHOSTUNREACH)},
		{"closed", nil, fmt.Errorf("read: %w", smtpclient.ErrClosed)},
		{"nonsense", nil, fmt.Errorf("reply: %w", smtpclient.ErrProtocol)},
		{"unspeakable", nil, fmt.Errorf("rcpt: %w", smtpclient.ErrInput)},
		{"no mechanism", nil, fmt.Errorf("%w: the server offers GSSAPI, wanted PLAIN or LOGIN", smtpclient.ErrNoMechanism)},
		{"other", nil, errors.New("x509: \x1b[31mbad")},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("..", "testdata", "delivery", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("not as in %s (-update writes it anew):\n%s", file, d)
	}
}

// TestJudge: what each recipient of a transaction comes to.
func TestJudge(t *testing.T) {
	ok := &smtpclient.Reply{Code: 250, Lines: []string{"ok"}}
	r := func(code int, enhanced string) *smtpclient.Reply {
		return &smtpclient.Reply{Code: code, Enhanced: enhanced, Lines: []string{"text"}}
	}
	type want struct {
		step   Step
		result queue.Result
	}
	sent, failed, next := want{Stop, queue.Sent}, want{Stop, queue.Fail}, want{NextTarget, queue.Defer}
	for _, c := range []struct {
		name string
		res  smtpclient.Result
		want []want
	}{
		{"all taken", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, ok}, Final: ok, Stage: smtpclient.StageDot}, []want{sent, sent}},
		{"some refused", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(550, "5.1.1"), r(451, "")}, Final: ok, Stage: smtpclient.StageDot}, []want{sent, failed, next}},
		{"452 after one", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(452, "4.5.3")}, Final: ok, Stage: smtpclient.StageDot}, []want{sent, {SameTarget, queue.Defer}}},
		{"552 after one", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(552, "")}, Final: ok, Stage: smtpclient.StageDot}, []want{sent, {SameTarget, queue.Defer}}},
		{"552 that is about the mailbox", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(552, "5.2.2")}, Final: ok, Stage: smtpclient.StageDot}, []want{sent, failed}},
		{"452 at the first", smtpclient.Result{Rcpt: []*smtpclient.Reply{r(452, ""), r(452, "")}, Stage: smtpclient.StageRcpt}, []want{next, next}},
		{"MAIL refused", smtpclient.Result{Rcpt: []*smtpclient.Reply{r(503, ""), nil}, Final: r(451, "4.3.0"), Stage: smtpclient.StageMail}, []want{next, next}},
		{"MAIL 5xx", smtpclient.Result{Rcpt: []*smtpclient.Reply{r(503, "")}, Final: r(550, "5.7.1"), Stage: smtpclient.StageMail}, []want{failed}},
		{"MAIL 530", smtpclient.Result{Rcpt: []*smtpclient.Reply{r(530, "")}, Final: r(530, "5.7.0"), Stage: smtpclient.StageMail}, []want{{NextTarget, queue.Fail}}},
		{"dot 5xx", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(450, "")}, Final: r(554, ""), Stage: smtpclient.StageDot}, []want{failed, next}},
		{"dot without a reply", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok}, Stage: smtpclient.StageDot, Err: &smtpclient.Error{Stage: smtpclient.StageDot, Err: smtpclient.ErrClosed}}, []want{{Stop, queue.Defer}}},
		{"closed in the body", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(550, "")}, Stage: smtpclient.StageBody, Err: &smtpclient.Error{Stage: smtpclient.StageBody, Err: smtpclient.ErrClosed}}, []want{next, failed}},
		{"closed between RCPTs", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, nil}, Stage: smtpclient.StageRcpt, Err: &smtpclient.Error{Stage: smtpclient.StageRcpt, Err: smtpclient.ErrClosed}}, []want{next, next}},
		{"LMTP, each its own", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, r(550, "5.1.1"), ok, ok}, Dots: []*smtpclient.Reply{ok, nil, r(452, "4.2.2"), r(552, "5.2.2")}, Stage: smtpclient.StageDot}, []want{sent, failed, next, failed}},
		{"LMTP, closed between the replies", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok, ok}, Dots: []*smtpclient.Reply{ok, nil}, Stage: smtpclient.StageDot, Err: &smtpclient.Error{Stage: smtpclient.StageDot, Err: smtpclient.ErrClosed}}, []want{sent, {Stop, queue.Defer}}},
		// A 250 that was the reply to something else is never a delivery.
		{"250, but not to the dot", smtpclient.Result{Rcpt: []*smtpclient.Reply{ok}, Final: ok, Stage: smtpclient.StageData}, []want{next}},
	} {
		for i, v := range Judge(c.res) {
			if got := (want{v.Step, v.Result}); got != c.want[i] {
				t.Errorf("%s: recipient %d: %s %s, want %s %s", c.name, i, got.step, got.result, c.want[i].step, c.want[i].result)
			}
		}
	}
}
