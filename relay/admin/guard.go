package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Bounds of a connection.
const (
	maxHeader   = 16 << 10 // bytes
	maxConns    = 64       // over TCP, at a time
	maxImport   = 8 << 30  // bytes of an import: twice the largest message there can be
	headerLimit = 10 * time.Second
	idleLimit   = time.Minute      // between two requests of a connection
	bodyLimit   = 30 * time.Second // for a request; of an import, for each block
	writeLimit  = 30 * time.Second // for each block of an answer
)

// Token is what a client over TCP shows; only its hash is kept.
type Token [sha256.Size]byte

// NewToken makes one of the text that clients send.
func NewToken(text string) Token { return sha256.Sum256([]byte(text)) }

// matches compares in constant time.
func (t Token) matches(text string) bool {
	got := NewToken(text)
	return subtle.ConstantTimeCompare(t[:], got[:]) == 1
}

// Remote says who may ask over TCP.
type Remote struct {
	Token Token
	Hosts []string // names of the relay, beside localhost and addresses
}

// guard stands before the routes. remote is nil on the Unix socket, where the
// system has looked who the client is.
type guard struct {
	next   http.Handler
	remote func() Remote
	rates  *rates
	denied func(client, why string) // for the log; may be nil
}

// socketHosts are what clients of the Unix socket call it.
var socketHosts = []string{"srvrelay"}

func (g *guard) ServeHTTP(to http.ResponseWriter, r *http.Request) {
	// Also for who is refused: net/http reads what is left of a request.
	control := http.NewResponseController(to)
	w, h := &timedWriter{to, control}, to.Header()
	if r.Body != nil && r.Body != http.NoBody {
		_ = control.SetReadDeadline(time.Now().Add(bodyLimit))
	}
	// Addresses and replies come from strangers: whatever a browser is shown is
	// not to be taken for a page, kept, or put into another one.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	remote := Remote{Hosts: socketHosts}
	if g.remote != nil {
		remote = g.remote()
	}
	client := addrOf(r.RemoteAddr)
	switch {
	case g.remote != nil && !g.rates.take(client, 1):
		h.Set("Retry-After", "5")
		tooOften.send(w, "this address asks more often than it may: wait some seconds")
	case !namesUs(r.Host, remote.Hosts):
		wrongHost.send(w, "the Host of the request is no name of this relay: ask by its address, or add the name to admin.hosts")
	case !sameOrigin(r):
		wrongOrigin.send(w, "browsers may not bring requests of other sites here")
	case g.remote != nil && !open(r) && !g.known(w, r, client, remote.Token):
	case g.remote != nil && r.URL.Path == "/"+apiVersion+backupPath:
		notRemote.send(w, "a backup has the private keys of the relay: it is made on its machine only, over the socket")
	default:
		g.pass(w, r)
	}
}

// open tells what may be asked without a token. Everything else needs one,
// whether it has a route or not.
func open(r *http.Request) bool { return r.URL.Path == "/healthz" || r.URL.Path == "/readyz" }

// known checks the token (RFC 6750) and answers if it is not right. A wrong one
// costs as much as many requests, so that nobody can try many.
func (g *guard) known(w http.ResponseWriter, r *http.Request, client netip.Addr, want Token) bool {
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	ok = ok && strings.EqualFold(scheme, "Bearer")
	if ok && want.matches(strings.TrimSpace(text)) {
		return true
	}
	challenge, detail := `Bearer realm="srvrelay"`, "send the token of admin.token_file: Authorization: Bearer TOKEN"
	if ok {
		g.rates.take(client, wrongTokenCost)
		challenge, detail = challenge+`, error="invalid_token"`, "this token is not that of admin.token_file"
		if g.denied != nil {
			g.denied(client.String(), "wrong token")
		}
	}
	w.Header().Set("WWW-Authenticate", challenge)
	noToken.send(w, detail)
	return false
}

// pass hands a request on, within bounds of size and time.
func (g *guard) pass(w *timedWriter, r *http.Request) {
	limit, each := int64(maxRequest), false
	if r.URL.Path == "/"+apiVersion+importPath {
		limit, each = maxImport, true
	}
	if r.ContentLength > limit {
		// Some clients look for an answer only when they have sent all.
		w.Header().Set("Connection", "close")
		_, _ = io.CopyN(io.Discard, r.Body, maxRequest)
		tooLarge.send(w, fmt.Sprintf("the request is too large: %d bytes at most", limit))
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &timedBody{http.MaxBytesReader(w.ResponseWriter, r.Body, limit), w.control, each}
	}
	g.next.ServeHTTP(w, r)
}

// timedBody ends the wait for a client that sends slowly, or not at all.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	each    bool // a new limit for each block
}

func (b *timedBody) Read(p []byte) (int, error) {
	if b.each {
		_ = b.control.SetReadDeadline(time.Now().Add(bodyLimit))
	}
	return b.ReadCloser.Read(p) // net/http ends the limit with the body
}

// timedWriter ends the wait for a client that does not read.
type timedWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *timedWriter) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(writeLimit))
	return w.ResponseWriter.Write(p)
}

func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// namesUs tells whether a Host header can be meant for us. A page whose name
// was made to lead here (DNS rebinding) comes with its own name; an address
// cannot be made to lead anywhere else.
func namesUs(host string, names []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return name == "localhost" || name != "" && slices.Contains(names, name)
}

// sameOrigin tells whether no browser says that another site asks. There is
// no CORS: no other site may, ever.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none": // none: a person has typed the address
	default:
		return false
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	for _, o := range r.Header.Values("Origin") {
		u, err := url.Parse(o)
		if err != nil || u.Scheme != scheme || !strings.EqualFold(u.Host, r.Host) {
			return false
		}
	}
	return true
}

// addrOf is the client's address; the zero Addr on a Unix socket.
func addrOf(remote string) netip.Addr {
	ap, _ := netip.ParseAddrPort(remote)
	return ap.Addr().Unmap()
}
