package acme

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	proto "github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/netutil"
)

// httpSolver serves the files of http-01. Its port is open while a challenge
// is: there is nothing to find at other times.
type httpSolver struct {
	listen string

	mu     sync.Mutex
	files  map[string]string // by path
	server *http.Server
}

func newHTTPSolver(listen string) *httpSolver {
	return &httpSolver{listen: listen, files: map[string]string{}}
}

// Present implements acmez.Solver.
func (h *httpSolver) Present(_ context.Context, c proto.Challenge) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.server == nil {
		l, err := listenFor(h.listen)
		if err != nil {
			return err
		}
		h.server = &http.Server{
			Handler: h, ReadTimeout: challengeTimeout, WriteTimeout: challengeTimeout,
			MaxHeaderBytes: 8 << 10, ErrorLog: log.New(io.Discard, "", 0),
		}
		h.server.SetKeepAlivesEnabled(false)
		go func(s *http.Server) { _ = s.Serve(l) }(h.server)
	}
	h.files[c.HTTP01ResourcePath()] = c.KeyAuthorization
	return nil
}

// CleanUp implements acmez.Solver; it may be called more than once.
func (h *httpSolver) CleanUp(_ context.Context, c proto.Challenge) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.files, c.HTTP01ResourcePath())
	if len(h.files) > 0 || h.server == nil {
		return nil
	}
	err := h.server.Close()
	h.server = nil
	return err
}

func (h *httpSolver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	text, there := h.files[r.URL.Path]
	h.mu.Unlock()
	if !there || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream") // RFC 8555 8.3
	_, _ = io.WriteString(w, text)
}

// An authority makes a handful of connections and is quick; others knock too.
const (
	challengeTimeout = 10 * time.Second // of a connection
	challengeConns   = 32               // at one time
)

func listenFor(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, listenError{fmt.Errorf("tls.acme.listen: %w", err)}
	}
	return crowdless(l), nil
}

// crowdless lets a connection wait while there are too many.
func crowdless(l net.Listener) net.Listener { return netutil.LimitListener(l, challengeConns) }

// listenError: the port of a challenge could not be opened.
type listenError struct{ error }

func (e listenError) Unwrap() error { return e.error }
