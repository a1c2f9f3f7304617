package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	Acted   func(queue.Effects)                            // for the log
	Door    func() Door                                    // nil: no relay is running
	Backup  func(ctx context.Context, tar io.Writer) error // of the data folder

	Bans       func() Bans
	ChangeBans func(BanChange) BanChanged
}

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
	b.handleQueue(mux)
	b.handleBans(mux)
	mux.HandleFunc("GET /hops", func(w http.ResponseWriter, r *http.Request) {
		hops, err := b.Store.Hops(r.Context())
		answer(w, hops, err)
	})
	mux.HandleFunc("GET /door", func(w http.ResponseWriter, r *http.Request) { answer(w, b.door(), nil) })
	mux.HandleFunc("GET /explain", b.explain)
	mux.HandleFunc("GET /explain/{id}", withID(b.explainMessage))
	mux.HandleFunc("POST /reload", b.reload)
	mux.HandleFunc("POST /backup", b.backup)
	return mux
}

// answer writes a result, or an error with the status that says whose it is.
func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, queue.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, errRequest):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, queue.ErrExists):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client is gone if this fails
	}
}
