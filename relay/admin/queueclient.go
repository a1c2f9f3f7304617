package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"

	"srvrelay/queue"
)

// List calls fn for the selected messages with the selected recipients, oldest
// first, a page at a time.
func (c *Client) List(ctx context.Context, f queue.Filter, fn func(Message) error) error {
	p := page{Selection: Selection{Filter: f}}
	for {
		var part messages
		if err := c.post(ctx, "/queue/list", p, &part); err != nil {
			return err
		}
		for _, m := range part.Messages {
			if err := fn(m); err != nil {
				return err
			}
		}
		if p.After = part.Next; p.After == "" {
			return nil
		}
	}
}

// Show returns one message with its attempts.
func (c *Client) Show(ctx context.Context, id string) (m Message, err error) {
	err = c.do(ctx, "GET", "/queue/"+url.PathEscape(id), &m)
	return m, err
}

// Act does a verb to what is selected, a page at a time, and calls told after
// each with the sum so far. When ctx is done, the page that is under way is
// finished, so that the sum is true, and the error is ctx's.
func (c *Client) Act(ctx context.Context, verb queue.Verb, text string, sel Selection, told func(Acted)) (sum Acted, err error) {
	do := func(p page) (queue.ID, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		var part Acted
		if err := c.post(context.WithoutCancel(ctx), "/queue/act", actRequest{page: p, Verb: verb, Text: text}, &part); err != nil {
			return "", err
		}
		sum.Seen += part.Seen
		sum.Messages += part.Messages
		sum.Recipients += part.Recipients
		sum.Leased = append(sum.Leased, part.Leased...)
		sum.Missing = append(sum.Missing, part.Missing...)
		told(sum)
		return part.Next, nil
	}
	return sum, eachPage(sel, do)
}

// Records calls fn for the selected messages as they are stored, those of
// which nobody waits or is held left out. It returns the named ones that are not there.
func (c *Client) Records(ctx context.Context, sel Selection, fn func(*queue.Message) error) (missing []queue.ID, err error) {
	err = eachPage(sel, func(p page) (queue.ID, error) {
		var part records
		if err := c.post(ctx, "/queue/records", p, &part); err != nil {
			return "", err
		}
		missing = append(missing, part.Missing...)
		for _, m := range part.Records {
			if err := fn(m); err != nil {
				return "", err
			}
		}
		return part.Next, nil
	})
	return missing, err
}

// eachPage parts a selection into pages: of its IDs or, without any, of the queue.
func eachPage(sel Selection, do func(page) (next queue.ID, err error)) error {
	if len(sel.IDs) > 0 {
		for ids := range slices.Chunk(sel.IDs, pageSize) {
			if _, err := do(page{Selection: Selection{ids, sel.Filter}}); err != nil {
				return err
			}
		}
		return nil
	}
	for p := (page{Selection: sel}); ; {
		next, err := do(p)
		if err != nil || next == "" {
			return err
		}
		p.After = next
	}
}

// Body opens the stored bytes of a message.
func (c *Client) Body(ctx context.Context, id queue.ID) (io.ReadCloser, error) {
	return c.open(ctx, "GET", "/queue/"+url.PathEscape(string(id))+"/body", nil)
}

// Import hands an exported message to the relay (queue.ErrExists).
func (c *Client) Import(ctx context.Context, m *queue.Message, body io.Reader) error {
	record, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return c.send(ctx, "POST", fmt.Sprintf("%s?record=%d", importPath, len(record)), io.MultiReader(bytes.NewReader(record), body), nil)
}

// Summary returns the queue by hop.
func (c *Client) Summary(ctx context.Context) (sum Summary, err error) {
	sum.Hops = []HopSummary{}
	for after := queue.ID(""); ; {
		var part Summary
		if err := c.do(ctx, "GET", "/queue/summary?after="+url.QueryEscape(string(after)), &part); err != nil {
			return sum, err
		}
		sum.add(part)
		if after = part.Next; after == "" {
			return sum, nil
		}
	}
}

// Count returns how many messages are queued.
func (c *Client) Count(ctx context.Context) (n int, err error) {
	err = c.do(ctx, "GET", "/queue/count", &n)
	return n, err
}

func (c *Client) post(ctx context.Context, path string, request, into any) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return c.send(ctx, "POST", path, bytes.NewReader(b), into)
}

// Local is a client of a backend in this very process: for a look at the
// queue while no relay is running. stop ends it.
func Local(b Backend) (c *Client, stop func()) {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() { _ = Serve(ctx, l, b) })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case l.conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &Client{"", &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}, func() {
		cancel()
		served.Wait()
	}
}

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "in memory", Net: "pipe"} }
