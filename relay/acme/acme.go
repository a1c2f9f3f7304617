// Package acme fetches the certificate of the doors from an authority by ACME
// (RFC 8555), keeps it in a folder, and renews it in time. It knows nothing of
// mail: a [Manager] is a source of a certificate, for a tls.Config.
//
// What is there stays served, whatever fails: a certificate is replaced by a
// newer one and by nothing else. When something is due is decided by pure
// functions (schedule.go); what was tried and why it failed is in a file beside
// the certificate, so that a restart does not begin anew, and others may ask.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"time"

	"srvrelay/dnsutil"
)

// Challenge is how the authority sees that a name is ours.
type Challenge string

// The challenges.
const (
	HTTP01 Challenge = "http-01"     // a file on port 80 of the name (RFC 8555 8.3)
	ALPN01 Challenge = "tls-alpn-01" // a handshake on port 443 of the name (RFC 8737)
	DNS01  Challenge = "dns-01"      // a TXT record below the name (RFC 8555 8.4)
)

// Settings say what certificate is wanted, from whom, and how.
type Settings struct {
	Directory string         // of the authority, a URL
	Roots     *x509.CertPool // that vouch for the authority's own server; nil = the system's
	Email     string         // for the authority to write to; "" = none
	Names     []string       // that the certificate is for, A-labels; at least one
	Challenge Challenge
	Listen    string // "host:port": where HTTP01 and ALPN01 are answered, while they are
	// DNS changes the zone, with DNS01. It is asked for each time anew: it has a
	// secret of a file in it.
	DNS func() (dnsutil.Updater, error)
	// Propagation is how long it takes from an update of the zone until all of
	// its servers know.
	Propagation time.Duration
}

// Events learns what happened. Texts may have words of the authority in them.
type Events interface {
	// Obtained: there is a new certificate, good until end.
	Obtained(names []string, directory string, end time.Time)
	// Failed: there is none; what was there before stays served.
	Failed(Failure)
	// Damaged: a file could not be read, and was put aside.
	Damaged(file, aside string, err error)
}

// Failure is an attempt that brought no certificate.
type Failure struct {
	Why   string // a certificate was wanted: "there is none yet"
	Err   error
	Fix   string    // what to do about it
	Next  time.Time // it is tried again
	Times int       // in a row
}

// Manager has the certificate. It lives as long as the process: Reconfigure
// changes what it is to fetch, and what it has stays.
type Manager struct {
	files  files
	events Events
	now    func() time.Time
	issue  func(ctx context.Context, s Settings, account *accountKey, old *x509.Certificate) (issued, error)
	ask    func(ctx context.Context, s Settings, leaf *x509.Certificate) (Wish, error)
	wake   chan struct{}

	mu       sync.Mutex
	settings *Settings // nil = off
	turn     int       // how often there were others
	cert     *tls.Certificate
	state    State
}

// New reads what is in a folder, which need not exist. What cannot be read is
// put aside: it is fetched anew.
func New(folder string, events Events) *Manager {
	m := &Manager{
		files: files(folder), events: events, now: time.Now, wake: make(chan struct{}, 1),
		issue: issue, ask: askRenewal,
	}
	m.cert = m.files.certificate(m.damaged)
	m.state = m.files.state(m.damaged)
	m.state.Next = afterStart(m.state)
	return m
}

func (m *Manager) damaged(file, aside string, err error) { m.events.Damaged(file, aside, err) }

// Start says what is wanted, before Run. What failed shortly before the start is
// not tried at once.
func (m *Manager) Start(s *Settings) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settings = s
}

// Reconfigure says what is wanted from now on; nil is nothing. What failed
// before is tried at once: it may be just what was mended.
func (m *Manager) Reconfigure(s *Settings) {
	m.mu.Lock()
	m.settings = s
	m.turn++
	m.state.Next = time.Time{}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default: // it has not yet seen the last one
	}
}

// ErrNone: no certificate has come yet.
var ErrNone = errors.New("there is no certificate yet; the log and srvrelay doctor say why")

// Get is a tls.Config's GetCertificate.
func (m *Manager) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cert == nil {
		return nil, ErrNone
	}
	return m.cert, nil
}

// Ready tells whether there is a certificate.
func (m *Manager) Ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cert != nil
}

// Run fetches and renews until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	for ctx.Err() == nil {
		t := time.NewTimer(m.step(ctx))
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// look is how often is looked at least: the machine may have slept, its clock
// may have been set, and the authority may have changed its mind.
const look = 6 * time.Hour

// step does what is due and returns how long nothing will be.
func (m *Manager) step(ctx context.Context) time.Duration {
	m.mu.Lock()
	s, cert, st, turn := m.settings, m.cert, m.state, m.turn
	m.mu.Unlock()
	if s == nil {
		return look
	}
	if mayAsk(*s, cert, st, m.now()) {
		st = m.askRenewal(ctx, *s, cert.Leaf, st)
	}
	at, why := next(*s, cert, st)
	if wait := at.Sub(m.now()); wait > 0 {
		return min(wait, look)
	}
	m.obtain(ctx, *s, replaces(*s, cert, st), why, turn)
	return 0 // what is next is for the next step to say
}

// askRenewal asks the authority when to renew (RFC 9773): it may have to revoke
// a certificate long before its end. No answer is none: then it is our own time.
func (m *Manager) askRenewal(ctx context.Context, s Settings, leaf *x509.Certificate, st State) State {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	wish, err := m.ask(ctx, s, leaf)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Asked = m.now(); err == nil {
		m.state.Wish = keep(st.Wish, wish)
	}
	return m.state
}

// attemptLimit bounds an attempt, beside the wait for the servers of a zone: orders
// are ready within seconds, or late.
const attemptLimit = 10 * time.Minute

func (m *Manager) obtain(ctx context.Context, s Settings, old *x509.Certificate, why string, turn int) {
	bounded, cancel := context.WithTimeout(ctx, attemptLimit+s.Propagation)
	defer cancel()
	m.mu.Lock()
	before := m.state
	m.mu.Unlock()
	cert, got, err := m.fetch(bounded, s, old, before)
	if ctx.Err() != nil && err != nil {
		return // stopped: says nothing about the authority
	}
	m.mu.Lock()
	now := m.now()
	if err != nil {
		m.state = m.state.failed(err, advice(err, s), now)
		if m.turn != turn {
			m.state.Next = now // it failed by settings that are gone
		}
	} else {
		m.cert, m.state = cert, State{Directory: s.Directory, Obtained: now, Wish: got.wish, Asked: now}
	}
	st := m.state
	m.mu.Unlock()

	if werr := m.files.putState(st); err == nil && werr != nil {
		m.events.Failed(Failure{Why: why, Err: werr, Fix: advice(werr, s), Times: 1})
	}
	if err != nil {
		m.events.Failed(Failure{Why: why, Err: err, Fix: st.Fix, Next: st.Next, Times: st.Failures})
		return
	}
	m.events.Obtained(s.Names, s.Directory, cert.Leaf.NotAfter)
}

// fetch gets a certificate and stores it, before it is served: one that a restart
// would not find again is not to be relied on.
func (m *Manager) fetch(ctx context.Context, s Settings, old *x509.Certificate, st State) (*tls.Certificate, issued, error) {
	account, err := m.files.account(m.damaged)
	if err != nil {
		return nil, issued{}, err
	}
	// The authority gives out only so many: first see that one could be kept.
	if err := m.files.putState(st); err != nil {
		return nil, issued{}, err
	}
	got, err := m.issue(ctx, s, account, old)
	if err != nil {
		return nil, got, err
	}
	cert, err := readPair(got.pem)
	if err == nil && !covers(cert.Leaf, s.Names) {
		err = errors.New("the authority's certificate is for other names than were asked for")
	}
	if err == nil {
		err = m.files.putCertificate(got.pem)
	}
	return cert, got, err
}

// covers tells whether a certificate is for these names and no others.
func covers(leaf *x509.Certificate, names []string) bool {
	a, b := slices.Sorted(slices.Values(leaf.DNSNames)), slices.Sorted(slices.Values(names))
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
