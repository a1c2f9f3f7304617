package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the server: readers are few, and need not be patient.
const (
	scrapeLimit    = 8 * time.Second // Prometheus waits for 10 s
	requestLimit   = 5 * time.Second // until a request is read
	maxConnections = 16
	maxHeader      = 8 << 10
)

// Server shows the metrics at an address that may change, or nowhere.
type Server struct {
	metrics *Metrics
	read    time.Duration // until a request has come

	mu   sync.Mutex
	addr string
	l    net.Listener
	http *http.Server
}

// NewServer makes a server that listens nowhere yet.
func NewServer(m *Metrics) *Server { return &Server{metrics: m, read: requestLimit} }

// Next opens an address ("" = none) for later: use begins to serve there, and
// ends to serve at the one before; drop forgets it. Exactly one of them is to
// be called.
func (s *Server) Next(addr string) (use, drop func(), err error) {
	s.mu.Lock()
	before := s.addr
	s.mu.Unlock()
	if addr == before {
		return func() {}, func() {}, nil
	}
	var l net.Listener
	if addr != "" {
		l, err = net.Listen("tcp", addr)
		switch {
		case errors.Is(err, syscall.EADDRINUSE) && before != "":
			return nil, nil, fmt.Errorf("metrics.listen: %w (it is %s now: to keep the port and change the host, set it to \"\" first, and reload)", err, before)
		case err != nil:
			return nil, nil, fmt.Errorf("metrics.listen: %w", err)
		}
	}
	drop = func() {
		if l != nil {
			l.Close()
		}
	}
	return func() { s.swap(addr, l) }, drop, nil
}

func (s *Server) swap(addr string, l net.Listener) {
	var next *http.Server
	if l != nil {
		next = &http.Server{
			Handler: s, ReadTimeout: s.read, WriteTimeout: requestLimit + scrapeLimit, IdleTimeout: 5 * time.Minute,
			MaxHeaderBytes: maxHeader, ErrorLog: log.New(io.Discard, "", 0),
		}
		go func() { _ = next.Serve(netutil.LimitListener(l, maxConnections)) }()
	}
	s.mu.Lock()
	before := s.http
	s.addr, s.l, s.http = addr, l, next
	s.mu.Unlock()
	end(before)
}

// end lets requests under way finish.
func end(h *http.Server) {
	if h == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if h.Shutdown(ctx) != nil {
		h.Close()
	}
}

// Close ends it.
func (s *Server) Close() { s.swap("", nil) }

// Addr is where it listens, nil if nowhere.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.l == nil {
		return nil
	}
	return s.l.Addr()
}

// ServeHTTP answers at /metrics and nowhere else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/metrics":
		http.Error(w, "The metrics are at /metrics.", http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "There is nothing but GET.", http.StatusMethodNotAllowed)
	default:
		s.metrics.shown.ServeHTTP(w, r)
	}
}
