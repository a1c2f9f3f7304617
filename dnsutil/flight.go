package dnsutil

import (
	"context"
	"fmt"
	"sync"
)

// flights lets callers with the same question at the same time share one
// look-up. It runs under a context of its own that ends when the last of them
// has left: one that gives up does not fail the others, and nothing goes on
// for nobody. (golang.org/x/sync/singleflight can do either, not both.)
type flights struct {
	mu sync.Mutex
	m  map[question]*flight
}

type flight struct {
	waiters int // under flights.mu
	cancel  context.CancelFunc
	done    chan struct{} // closed after facts and err are set
	facts   facts
	err     error
}

func newFlights() *flights { return &flights{m: make(map[question]*flight)} }

type lookupFunc func(ctx context.Context) (facts, error)

// do returns what look came to, its own call or that of another caller, or the
// context's error.
func (fs *flights) do(ctx context.Context, q question, look lookupFunc) (facts, error) {
	fs.mu.Lock()
	f := fs.m[q]
	if f == nil {
		flightCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{cancel: cancel, done: make(chan struct{})}
		fs.m[q] = f
		go fs.run(flightCtx, q, f, look)
	}
	f.waiters++
	fs.mu.Unlock()

	select {
	case <-f.done:
		return f.facts, f.err
	case <-ctx.Done():
		fs.leave(q, f)
		return facts{}, ctx.Err()
	}
}

func (fs *flights) run(ctx context.Context, q question, f *flight, look lookupFunc) {
	defer close(f.done)
	defer fs.end(q, f)
	defer f.cancel()
	// The bytes read here come from strangers. Should some of them make the
	// parser panic, that one question fails, not the process.
	defer func() {
		if p := recover(); p != nil {
			f.err = &LookupError{Name: q.name, Type: q.typeName(), Problem: "internal error", Err: fmt.Errorf("panic: %v", p)}
		}
	}()
	f.facts, f.err = look(ctx)
}

// leave gives up one caller's interest. A flight without callers is taken off
// the board at once, so that the next caller does not join a cancelled one.
func (fs *flights) leave(q question, f *flight) {
	fs.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && fs.m[q] == f {
		delete(fs.m, q)
	}
	fs.mu.Unlock()
	if last {
		f.cancel()
	}
}

func (fs *flights) end(q question, f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.m[q] == f {
		delete(fs.m, q)
	}
}
