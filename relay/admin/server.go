package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"

	"golang.org/x/net/netutil"

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

	Trace    func(context.Context, queue.TraceQuery) (queue.Traces, error)
	TraceOff func() bool // no history is kept; nil = nobody knows

	Status func(context.Context) (Status, error)

	Bans       func() Bans
	ChangeBans func(BanChange) BanChanged

	Ready  func() bool              // is new mail taken, and are the doors open? nil: no
	Denied func(client, why string) // for the log: who was refused over TCP

	Suspects      func() []Suspect
	ChangeSuspect func(SuspectChange) SuspectChanged
}

// Serve answers on a Unix socket (Listen) until ctx is done.
func Serve(ctx context.Context, l net.Listener, b Backend) error {
	return serve(ctx, l, &guard{next: b.routes()})
}

// ServeTCP answers on a TCP listener until ctx is done. remote is asked anew for
// each request, so that a reload can change it; secure is nil for clear text,
// which is for loopback only.
func ServeTCP(ctx context.Context, l net.Listener, b Backend, remote func() Remote, secure *tls.Config) error {
	l = netutil.LimitListener(l, maxConns)
	if secure != nil {
		secure = secure.Clone()
		secure.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, secure)
	}
	return serve(ctx, l, &guard{b.routes(), remote, newRates(), b.Denied})
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerLimit, IdleTimeout: idleLimit, MaxHeaderBytes: maxHeader,
		DisableGeneralOptionsHandler: true, // OPTIONS * passes the guard like the rest
		ErrorLog:                     slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// routes are all that can be asked; docs/openapi.yaml describes them.
func (b Backend) routes() *routes {
	mux := &routes{mux: http.NewServeMux()}
	b.handleHealth(mux)
	b.handleQueue(mux)
	b.handleBans(mux)
	b.handleTrace(mux)
	b.handleSuspects(mux)
	b.handleStatus(mux)
	mux.HandleFunc("GET /hops", func(w http.ResponseWriter, r *http.Request) {
		hops, err := b.Store.Hops(r.Context())
		answer(w, append([]queue.HopInfo{}, hops...), err)
	})
	mux.HandleFunc("GET /door", func(w http.ResponseWriter, r *http.Request) { answer(w, b.door(), nil) })
	mux.HandleFunc("GET /explain", b.explain)
	mux.HandleFunc("GET /explain/{id}", withID(b.explainMessage))
	mux.HandleFunc("POST /reload", b.reload)
	mux.HandleFunc("POST "+backupPath, b.backup)
	return mux
}
