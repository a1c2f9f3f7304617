package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"srvrelay/queue"
)

// ErrNotRunning: nobody listens on the admin socket.
var ErrNotRunning = errors.New("no relay is running")

// ErrNotAllowed: the relay runs as somebody else.
var ErrNotAllowed = errors.New("permission denied: run this as root, or as the user that the relay runs as")

// Client asks a running relay.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the relay behind a socket; it connects when asked.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{socket, &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// List calls fn for every queued message, oldest first, a page at a time.
func (c *Client) List(ctx context.Context, fn func(Message) error) error {
	after := queue.ID("")
	for {
		var page []Message
		if err := c.do(ctx, "GET", "/queue?after="+url.QueryEscape(string(after)), &page); err != nil {
			return err
		}
		for _, m := range page {
			if err := fn(m); err != nil {
				return err
			}
			after = m.ID
		}
		if len(page) < pageSize {
			return nil
		}
	}
}

// Show returns one message with its attempts.
func (c *Client) Show(ctx context.Context, id string) (m Message, err error) {
	err = c.do(ctx, "GET", "/queue/"+url.PathEscape(id), &m)
	return m, err
}

// Retry makes a message due now and its hops be looked at.
func (c *Client) Retry(ctx context.Context, id string) error {
	return c.do(ctx, "POST", "/queue/"+url.PathEscape(id)+"/retry", nil)
}

// Delete removes a message without a report.
func (c *Client) Delete(ctx context.Context, id string) error {
	return c.do(ctx, "DELETE", "/queue/"+url.PathEscape(id), nil)
}

// Hops returns the hops with waiting mail.
func (c *Client) Hops(ctx context.Context) (hops []queue.HopInfo, err error) {
	err = c.do(ctx, "GET", "/hops", &hops)
	return hops, err
}

// Explain returns the plan for a domain as the running relay would make it.
func (c *Client) Explain(ctx context.Context, q Question) (e Explanation, err error) {
	form := url.Values{"domain": {q.Domain}, "sender": {q.Sender}, "connect": {strconv.FormatBool(q.Connect)}}
	err = c.do(ctx, "GET", "/explain?"+form.Encode(), &e)
	return e, err
}

// ExplainMessage says why the recipients of a message are where they are.
func (c *Client) ExplainMessage(ctx context.Context, id string, connect bool) (e MessageExplanation, err error) {
	err = c.do(ctx, "GET", fmt.Sprintf("/explain/%s?connect=%t", url.PathEscape(id), connect), &e)
	return e, err
}

func (c *Client) do(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://srvrelay"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, io.EOF) { // EOF: the relay looked who we are
			return fmt.Errorf("%w (%s)", ErrNotAllowed, c.socket)
		}
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("%w (nobody answers on %s)", ErrNotRunning, c.socket)
		}
		return fmt.Errorf("asking the relay: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return errors.New(strings.TrimPrefix(strings.TrimSpace(string(text)), "queue: "))
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
