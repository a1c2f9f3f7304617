package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"srvrelay/queue"
)

// Backend is the running relay that the server shows.
type Backend struct {
	Store   queue.Store
	Routing func() queue.Routing // in use now
	Explain func(ctx context.Context, q Question) Explanation
	Reload  func(ctx context.Context) Reloaded
	Unpark  func(ctx context.Context, hop string) error
}

// pageSize bounds the messages of one answer; the client asks for the next page.
const pageSize = 1000

// Listen opens the socket in a folder that is the owner's only (0700); a
// socket file that nobody listens on is replaced.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("admin socket %s: another process listens on it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return ownerOnly{l}, nil
}

// ownerOnly refuses peers that run as somebody else: neither root nor the
// relay's own user. The folder's mode says so already; this holds even when
// somebody has loosened it.
type ownerOnly struct{ net.Listener }

func (l ownerOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if cred, err := peerCred(c); err == nil && mayAdmin(cred.Uid) {
			return c, nil
		}
		c.Close()
	}
}

func mayAdmin(uid uint32) bool { return uid == 0 || int(uid) == os.Getuid() }

// Serve answers on the listener until ctx is done.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	s := &http.Server{
		Handler: b.handler(), ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (b Backend) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /queue", b.list)
	mux.HandleFunc("GET /queue/{id}", b.withID(func(ctx context.Context, id queue.ID) (any, error) {
		m, err := b.Store.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		parks, err := b.parks(ctx)
		return b.message(m, parks), err
	}))
	mux.HandleFunc("POST /queue/{id}/retry", b.withID(b.retry))
	mux.HandleFunc("DELETE /queue/{id}", b.withID(func(ctx context.Context, id queue.ID) (any, error) {
		return struct{}{}, b.Store.Delete(ctx, id)
	}))
	mux.HandleFunc("GET /hops", func(w http.ResponseWriter, r *http.Request) {
		hops, err := b.Store.Hops(r.Context())
		answer(w, hops, err)
	})
	mux.HandleFunc("GET /explain", b.explain)
	mux.HandleFunc("GET /explain/{id}", b.explainMessage)
	mux.HandleFunc("POST /reload", b.reload)
	return mux
}

// list answers with a page of messages after the one named.
func (b Backend) list(w http.ResponseWriter, r *http.Request) {
	limit, _ := strconv.Atoi(r.FormValue("limit"))
	if limit <= 0 || limit > pageSize {
		limit = pageSize
	}
	parks, err := b.parks(r.Context())
	if err != nil {
		answer(w, nil, err)
		return
	}
	page := []Message{}
	err = b.Store.List(r.Context(), queue.ID(r.FormValue("after")), func(m *queue.Message) bool {
		page = append(page, b.message(m, parks))
		return len(page) < limit
	})
	answer(w, page, err)
}

// retry makes a message due and ends the parks of its hops.
func (b Backend) retry(ctx context.Context, id queue.ID) (any, error) {
	m, err := b.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := b.Store.Retry(ctx, id); err != nil {
		return nil, err
	}
	for _, r := range m.Recipients {
		if r.State.Waits() {
			if err := b.Unpark(ctx, b.Routing().WithDefaults().HopOf(m.Sender, &r)); err != nil {
				return nil, err
			}
		}
	}
	return struct{}{}, nil
}

func (b Backend) parks(ctx context.Context) (map[string]queue.HopInfo, error) {
	hops, err := b.Store.Hops(ctx)
	parks := map[string]queue.HopInfo{}
	for _, h := range hops {
		if !h.Parked.IsZero() {
			parks[h.Hop] = h
		}
	}
	return parks, err
}

// message is a stored message in the shape of the API.
func (b Backend) message(m *queue.Message, parks map[string]queue.HopInfo) Message {
	routing := b.Routing().WithDefaults()
	out := Message{
		ID: m.ID, Sender: m.Sender, Size: m.Size, Received: m.Received, Mode: m.Mode, Client: m.Client,
		Attempts: m.Attempts, Recipients: []Recipient{},
	}
	for _, r := range m.Recipients {
		row := Recipient{
			Address: r.Address, Hop: routing.HopOf(m.Sender, &r), State: r.State, Attempts: r.Attempts,
			LastStatus: r.Last.String(), Reason: r.Last.Reason, Settled: r.Settled, Released: r.Released,
		}
		if r.State.Waits() {
			row.NextAttempt, row.Expires = r.Next, routing.Retry(row.Hop).Expires(m.Received, &r)
			if p, ok := parks[row.Hop]; ok && p.Parked.After(r.Next) {
				row.NextAttempt, row.Parked = p.Parked, true
				if r.Attempts == 0 { // never tried: it inherits what the hop's probe found
					row.LastStatus, row.Reason = p.Status.String(), p.Status.Reason
				}
			}
		}
		out.Recipients = append(out.Recipients, row)
	}
	return out
}

// withID checks the id of the path.
func (b Backend) withID(do func(context.Context, queue.ID) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := queue.ParseID(r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		v, err := do(r.Context(), id)
		answer(w, v, err)
	}
}

// answer writes a result, or an error with the status that says whose it is.
func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, queue.ErrLeased):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
	}
}
