//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// load is what is sent, and how.
type load struct {
	To            string        `json:"to"`
	Connections   int           `json:"connections"`
	Size          int           `json:"size"`
	Recipients    int           `json:"recipients"`            // of each message
	Domains       int           `json:"domains"`               // over which the recipients are spread
	PerConnection int           `json:"messages_a_connection"` // 0 = as many as there are
	Messages      int           `json:"messages"`              // at most
	For           time.Duration `json:"for"`                   // at most
	Rate          float64       `json:"rate"`                  // open loop: arrivals a second; 0 = closed loop
	Class         class         `json:"class"`
	Ports         int           `json:"ports"` // over which the domains are spread
}

// check bounds what one may ask for.
func (l load) check() error {
	for _, b := range []struct {
		name            string
		value, from, to int
	}{
		{"connections", l.Connections, 1, 10_000},
		{"size", l.Size, minSize, 100 << 20},
		{"recipients", l.Recipients, 1, maxRecipients},
		{"domains", l.Domains, 1, 10_000_000},
		{"messages a connection", l.PerConnection, 0, 100_000_000},
		{"messages", l.Messages, 1, 100_000_000},
		{"ports", l.Ports, 1, 100},
	} {
		if b.value < b.from || b.value > b.to {
			return fmt.Errorf("%s: %d is not from %d to %d", b.name, b.value, b.from, b.to)
		}
	}
	if l.Rate < 0 || l.Rate > 10e6 {
		return fmt.Errorf("rate: %g is not from 0 to 10,000,000", l.Rate)
	}
	return nil
}

// sendings is what came of a load, as its clients saw it.
type sendings struct {
	Sent     int           // messages that were accepted
	Refused  int           // messages that were refused
	Broken   int           // connections that broke
	Last     string        // what the last refusal or error was
	Took     time.Duration // from the first connection to the last QUIT
	Replies  []time.Duration
	Lateness []time.Duration // open loop: how late the generator itself was
}

// generator sends a load. dial and alarm are the network and the clock.
type generator struct {
	load
	ledger *ledger
	dial   func() (net.Conn, error)
	alarm  func() (alarm, error)

	start time.Time
	next  atomic.Int64
	stop  atomic.Bool

	mu     sync.Mutex
	result sendings
	open   map[net.Conn]struct{}
}

// maxTroubles is how many broken connections end a run.
const maxTroubles = 100

// newGenerator makes a generator over TCP.
func newGenerator(l load, book *ledger) *generator {
	d := net.Dialer{Timeout: replyLimit}
	return &generator{load: l, ledger: book, alarm: newTimer, open: map[net.Conn]struct{}{}, dial: func() (net.Conn, error) { return d.Dial("tcp", l.To) }}
}

// run sends everything and returns when the last reply has come.
func (g *generator) run(ctx context.Context) (sendings, error) {
	defer context.AfterFunc(ctx, g.interrupt)()
	var wg sync.WaitGroup
	g.start = time.Now()
	for range g.Connections {
		wg.Go(func() { g.work(ctx) })
	}
	wg.Wait()
	g.result.Took = time.Since(g.start)
	if err := ctx.Err(); err != nil {
		return g.result, err
	}
	if g.result.Broken >= maxTroubles {
		return g.result, fmt.Errorf("%d connections broke: %s", g.result.Broken, g.result.Last)
	}
	return g.result, nil
}

// interrupt ends the run: nobody waits for a reply any more.
func (g *generator) interrupt() {
	g.stop.Store(true)
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.open {
		c.Close()
	}
}

// connect opens a connection that an interrupt closes.
func (g *generator) connect() (*client, error) {
	conn, err := g.dial()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.open[conn] = struct{}{}
	g.mu.Unlock()
	if g.stop.Load() { // the interrupt has not seen it
		conn.Close()
	}
	c, err := greet(conn)
	if err != nil {
		g.disconnect(conn)
	}
	return c, err
}

func (g *generator) disconnect(conn net.Conn) {
	conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, conn)
}

// turn is a message to be sent.
type turn struct {
	seq int
	due time.Time
}

// take returns the next message and when it is due: in a closed
// loop now, in an open loop by the schedule, whether or not the connections
// can keep up with it.
func (g *generator) take() (next turn, ok bool) {
	next = turn{int(g.next.Add(1) - 1), time.Now()}
	if g.Rate > 0 {
		next.due = g.start.Add(time.Duration(float64(next.seq) / g.Rate * float64(time.Second)))
	}
	ok = next.seq < min(g.Messages, len(g.ledger.accepted)) && !g.stop.Load() && (g.For == 0 || next.due.Sub(g.start) < g.For)
	return next, ok
}

// refusedPause keeps a relay that refuses from being hammered.
const refusedPause = 10 * time.Millisecond

// work is one connection after the other, one message after the other.
func (g *generator) work(ctx context.Context) {
	var clock alarm
	if g.Rate > 0 {
		var err error
		if clock, err = g.alarm(); err != nil {
			g.trouble(err, false)
			return
		}
		defer clock.close()
	}
	w := worker{generator: g, text: newMessage(g.ledger.run, g.Size)}
	w.rcpts = make([][]byte, g.Recipients)
	w.mail = fmt.Appendf(nil, "MAIL FROM:<sender@client.%s>\r\n", suffix)
	defer w.finish()
	for {
		next, ok := g.take()
		if !ok {
			return
		}
		if g.Rate > 0 {
			if free := time.Now(); free.Before(next.due) {
				if err := clock.until(ctx, next.due); err != nil {
					g.trouble(err, false)
					return
				}
				w.lateness = append(w.lateness, time.Since(next.due))
			}
		}
		err := w.one(next)
		var no *refusal
		switch {
		case err == nil:
		case errors.As(err, &no):
			g.trouble(err, true)
			time.Sleep(refusedPause)
		default:
			w.hangUp()
			if g.trouble(err, false) {
				return
			}
		}
	}
}

// trouble notes that a message did not get through; enough of it ends the run.
func (g *generator) trouble(err error, refused bool) (enough bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.result.Last = err.Error()
	if refused {
		g.result.Refused++
		return false
	}
	g.result.Broken++
	if g.result.Broken >= maxTroubles {
		g.stop.Store(true)
	}
	return g.stop.Load()
}

// worker is what one connection keeps.
type worker struct {
	*generator
	client   *client
	sent     int // over this connection
	text     message
	mail     []byte
	rcpts    [][]byte
	replies  []time.Duration
	lateness []time.Duration
}

// one sends one message. Its time is that of the reply to the final dot: from
// the writing of the dot, or in an open loop from when it was due.
func (w *worker) one(next turn) error {
	if w.client == nil {
		var err error
		if w.client, err = w.connect(); err != nil {
			return err
		}
		w.sent = 0
	}
	if w.sent%50 == 0 {
		w.client.extend()
	}
	w.text.number(next.seq)
	for i := range w.rcpts {
		b := append(w.rcpts[i][:0], "RCPT TO:<"...)
		b = appendRcpt(b, i, (next.seq*w.Recipients+i)%w.Domains, w.Class, w.Ports)
		w.rcpts[i] = append(b, ">\r\n"...)
	}
	sent, err := w.client.send(w.mail, w.rcpts, w.text)
	if err != nil {
		return err
	}
	if w.Rate > 0 {
		sent = next.due
	}
	w.replies = append(w.replies, time.Since(sent))
	w.ledger.accept(next.seq)
	w.sent++
	if w.PerConnection > 0 && w.sent >= w.PerConnection {
		w.hangUp()
	}
	return nil
}

func (w *worker) hangUp() {
	if w.client != nil {
		w.client.quit()
		w.disconnect(w.client.conn)
		w.client = nil
	}
}

// finish adds what the worker has seen to the result.
func (w *worker) finish() {
	w.hangUp()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.result.Sent += len(w.replies)
	w.result.Replies = append(w.result.Replies, w.replies...)
	w.result.Lateness = append(w.result.Lateness, w.lateness...)
}
