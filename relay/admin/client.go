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
var ErrNotAllowed = errors.New("permission denied: run this as root, as the user that the relay runs as, or as a member of the socket's group")

// ErrVersion: the running relay does not know what the command asks for.
var ErrVersion = errors.New("the running relay does not know this request")

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
	return c.send(ctx, method, path, nil, into)
}

// send makes a request and decodes the answer.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader, into any) error {
	answer, err := c.open(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	if into == nil {
		return nil
	}
	return json.NewDecoder(answer).Decode(into)
}

// open makes a request and returns the body of a good answer.
func (c *Client) open(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+socketHosts[0]+"/"+apiVersion+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "*/*, "+problemJSON)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(path, importPath) {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, io.EOF) { // EOF: the relay looked who we are
			return nil, fmt.Errorf("%w (%s)", ErrNotAllowed, c.socket)
		}
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w (nobody answers on %s)", ErrNotRunning, c.socket)
		}
		return nil, fmt.Errorf("asking the relay: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	return nil, refusalOf(resp.StatusCode, resp.Header.Get("Content-Type"), text)
}

// refusalOf is the relay's own error. It may be of another version, or none at all.
func refusalOf(status int, contentType string, text []byte) error {
	var p problem
	if contentType != problemJSON || json.Unmarshal(text, &p) != nil {
		if status == http.StatusNotFound { // from before there were versions
			return fmt.Errorf("%w: %s", ErrVersion, versions)
		}
		return fmt.Errorf("the relay answers with status %d: %s", status, queue.Safe(strings.TrimSpace(string(text)), 300))
	}
	switch words := queue.Safe(p.Detail, 1000); strings.TrimPrefix(p.Type, problemType) {
	case noMessage.word:
		return &answered{words, queue.ErrNotFound}
	case exists.word:
		return &answered{words, queue.ErrExists}
	case noRoute.word, wrongMethod.word:
		return fmt.Errorf("%w: %s", ErrVersion, versions)
	default:
		return errors.New(words)
	}
}

// answered is the relay's own error: its words, and what it is.
type answered struct {
	words string
	is    error
}

func (a *answered) Error() string { return a.words }
func (a *answered) Unwrap() error { return a.is }
