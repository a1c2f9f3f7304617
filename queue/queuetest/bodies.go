package queuetest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"srvrelay/queue"
)

// bodyCases: bodies come back byte by byte, whatever their size: an engine
// may store large ones in another place than small ones, and use it again.
var bodyCases = []testCase{
	{"bodies of every size", bodySizes},
	{"fields that stand before the body", bodyPrefixed},
	{"a body that is read while its message goes", bodyOutlived},
	{"large bodies that do not come to be leave nothing", bodiesCutOff},
	{"a large body in a report", bodyReported},
	{"large bodies of messages that are deleted, failed or given up", bodiesRemoved},
}

// sizes lie on both sides of the powers of two where an engine may cut.
var sizes = []int{0, 1, 4 << 10, 32<<10 - 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128<<10 - 1, 128 << 10, 256<<10 + 1, 1 << 20, 3<<20 + 7}

// bodyOf is a body that is like no other, and no part of it like another.
func bodyOf(mark string, size int) string {
	var b strings.Builder
	for n := 0; b.Len() < size; n++ {
		fmt.Fprintf(&b, "%s %d\r\n", mark, n)
	}
	return b.String()[:size]
}

func (f *fixture) putBody(body string) queue.ID {
	f.Helper()
	return f.putEnv(&queue.Envelope{Sender: "alice@a.example", Mode: queue.Submission, To: to("b@b.example")}, body)
}

// same compares long texts.
func (f *fixture) same(what, got, want string) {
	f.Helper()
	if got != want {
		f.Errorf("%s: %d bytes, want other %d", what, len(got), len(want))
	}
}

func bodySizes(f *fixture) {
	for round := range 3 { // what was used comes into use again
		bodies := map[queue.ID]string{}
		for i, size := range sizes {
			if round == 1 {
				size = sizes[len(sizes)-1-i] // a small one where a large one was
			}
			body := bodyOf(fmt.Sprint("round ", round, " body ", i), size)
			bodies[f.putBody(body)] = body
		}
		for id, body := range bodies {
			f.same("read at once", f.body(id), body)
			if got := f.get(id).Size; got != int64(len(body)) {
				f.Errorf("size %d, want %d", got, len(body))
			}
		}
		f.reopen()
		for range bodies {
			l := f.claim("b.example")
			for range 2 { // each target reads it anew
				f.same("read through a lease", f.leaseBody(l), bodies[l.Envelope.ID])
			}
			f.settle(l, sent)
			_, err := f.s.Body(ctx, l.Envelope.ID)
			f.is(err, queue.ErrNotFound)
		}
		f.empty()
	}
}

// late sets something at the end of a body, as a door does.
type late struct {
	io.Reader
	atEnd func()
}

func (l late) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err == io.EOF {
		l.atEnd()
	}
	return n, err
}

// What a door puts before a body when it has seen the end of it is a part of
// the body wherever that is read or counted.
func bodyPrefixed(f *fixture) {
	for _, size := range sizes {
		for _, prefix := range []string{"X: 1\r\n", bodyOf("X", 1500), bodyOf("Y", queue.MaxPrefix)} {
			env := &queue.Envelope{Sender: "alice@a.example", Mode: queue.Submission, Ret: "FULL", To: to("b@b.example", "c@c.example")}
			body := bodyOf("body", size)
			id, err := f.s.Put(ctx, env, late{strings.NewReader(body), func() { env.Prefix = []byte(prefix) }})
			if err != nil {
				f.Fatal(err)
			}
			whole := prefix + body
			check := func(when string) {
				f.same(when, f.body(id), whole)
				if m := f.get(id); m.Size != int64(len(whole)) || m.Prefix != nil {
					f.Errorf("%s: size %d, want %d; prefix %.20q", when, m.Size, len(whole), m.Prefix)
				}
			}
			check("read at once")
			f.settle(f.claim("c.example"), sent)
			check("read after a change")
			m := f.get(id)
			f.reopen()
			check("read after a restart")
			f.act(queue.Action{Verb: queue.VerbDelete}, id)
			if err := f.s.Import(ctx, m, strings.NewReader(whole)); err != nil {
				f.Fatal(err)
			}
			check("taken in again")
			l := f.claim("b.example")
			for range 2 {
				f.same("read through a lease", f.leaseBody(l), whole)
			}
			if l.Envelope.Size != int64(len(whole)) || l.Envelope.Prefix != nil {
				f.Errorf("the lease says %d bytes, prefix %.20q", l.Envelope.Size, l.Envelope.Prefix)
			}
			report, _ := f.oneReport(f.settle(l, refused), queue.ReportFailed, "alice@a.example")
			if head := whole[:min(len(prefix), 1000)]; !strings.Contains(f.body(report), head) {
				f.Errorf("size %d: the report does not quote %.20q", size, head)
			}
			f.settle(f.claim("a.example"), sent)
			f.empty()
		}
	}
	env := &queue.Envelope{Prefix: make([]byte, queue.MaxPrefix+1), To: to("b@b.example")}
	if _, err := f.s.Put(ctx, env, strings.NewReader("x")); err == nil {
		f.Error("a prefix without bound was taken")
	}
	f.empty()
}

// A reader goes on, or is told that the message is gone. It never gets a byte
// of another message.
func bodyOutlived(f *fixture) {
	for _, size := range sizes[2:] {
		body := bodyOf("first", size)
		id := f.putBody(body)
		var readers []io.ReadCloser
		for _, head := range []int{0, 1000} { // one that has begun, and one that has not
			r, err := f.s.Body(ctx, id)
			if err != nil {
				f.Fatal(err)
			}
			defer r.Close()
			if got, err := io.ReadAll(io.LimitReader(r, int64(head))); err != nil || string(got) != body[:head] {
				f.Fatalf("the first bytes: %q, %v", got, err)
			}
			readers = append(readers, r)
		}
		f.settle(f.claim("b.example"), sent)
		other := f.putBody(bodyOf("other", size))
		for i, r := range readers {
			rest, err := io.ReadAll(r)
			if want := body[1000*i:]; !strings.HasPrefix(want, string(rest)) || err == nil && string(rest) != want {
				f.Errorf("size %d: %d bytes that were not to be read, %v", size, len(rest), err)
			}
			if err != nil && !errors.Is(err, queue.ErrNotFound) {
				f.Errorf("size %d: %v", size, err)
			}
			if err := r.Close(); err != nil {
				f.Error(err)
			}
		}
		f.same("the other body", f.body(other), bodyOf("other", size))
		f.settle(f.claim("b.example"), sent)
	}
}

var errCut = errors.New("the client has gone")

func bodiesCutOff(f *fixture) {
	for _, size := range sizes {
		body := io.MultiReader(strings.NewReader(bodyOf("cut off", size)), errReader{})
		_, err := f.s.Put(ctx, &queue.Envelope{To: to("b@b.example")}, body)
		f.is(err, errCut)
		m := &queue.Message{Envelope: queue.Envelope{ID: queue.NewID(time.Now()), Received: time.Now(), Size: int64(size) + 1}, Recipients: to("b@b.example")}
		m.Recipients[0].State = queue.Queued
		if err := f.s.Import(ctx, m, strings.NewReader(bodyOf("short", size))); err == nil {
			f.Errorf("an import of %d bytes less one was taken", size+1)
		}
		id := f.putBody(bodyOf("whole", size))
		f.same("after one that was cut off", f.body(id), bodyOf("whole", size))
		f.settle(f.claim("b.example"), sent)
	}
	f.empty()
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errCut }

// RET=FULL quotes all of it, up to a limit.
func bodyReported(f *fixture) {
	for _, size := range []int{60 << 10, 64 << 10, 100 << 10, 128 << 10} {
		body := "Subject: large\r\n\r\n" + bodyOf("quoted", size-18)
		f.putEnv(&queue.Envelope{Sender: "alice@a.example", Mode: queue.Submission, Ret: "FULL", To: to("b@b.example")}, body)
		_, report := f.oneReport(f.settle(f.claim("b.example"), refused), queue.ReportFailed, "alice@a.example")
		if !strings.Contains(report, body) {
			f.Errorf("the report does not quote the %d bytes", size)
		}
		f.settle(f.claim("a.example"), sent)
	}
	f.empty()
}

func bodiesRemoved(f *fixture) {
	for _, size := range sizes {
		var ids []queue.ID
		for i := range 3 {
			ids = append(ids, f.putBody(bodyOf(fmt.Sprint(i), size)))
		}
		f.act(queue.Action{Verb: queue.VerbDelete}, ids[0])
		f.act(queue.Action{Verb: queue.VerbFail, Pick: only("b@b.example")}, ids[1])
		f.same("the one that is left", f.body(ids[2]), bodyOf("2", size))
		f.settle(f.claim("a.example"), sent) // the report
		f.settle(f.claim("b.example"), sent)
	}
	f.empty()
}
