package dnsutil

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Config says whom a Client asks and how. The zero value asks the system's
// resolvers.
type Config struct {
	// Servers are the recursive resolvers, "address:port", in order of
	// preference. Default: those of /etc/resolv.conf, port 53.
	Servers []string
	// TrustAD believes the AD bit. Set it only where the servers validate
	// DNSSEC and nobody can change packets on the way to them.
	TrustAD bool
	// Timeout is how long one server is waited for. Default 3 s.
	Timeout time.Duration
	// Attempts is how often the list of servers is gone through. Default 2.
	Attempts int
	// MaxEntries bounds the cache, counted in records. Default 50,000.
	MaxEntries int
}

// Client is a caching Resolver. It is safe for concurrent use and needs no
// closing: it holds no socket or goroutine beyond the look-ups under way.
type Client struct {
	servers  *servers
	attempts int
	timeout  time.Duration // of a whole look-up
	trustAD  bool
	cache    *cache
	flights  *flights
	exchange func(ctx context.Context, server string, q question) (*dns.Msg, error)
}

var _ Resolver = (*Client)(nil)

// New returns a Client, or says what is wrong with the configuration.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{
		servers:  newServers(cfg.Servers),
		attempts: cfg.Attempts,
		// Each try may need UDP and TCP. However long a CNAME chain, a
		// look-up does not take longer than this.
		timeout:  2 * cfg.Timeout * time.Duration(cfg.Attempts*len(cfg.Servers)),
		trustAD:  cfg.TrustAD,
		cache:    newCache(cfg.MaxEntries),
		flights:  newFlights(),
		exchange: transport{timeout: cfg.Timeout, wantAD: cfg.TrustAD}.exchange,
	}, nil
}

// SRV implements Resolver.
func (c *Client) SRV(ctx context.Context, name string) (Answer[SRV], error) {
	f, err := c.lookup(ctx, name, dns.TypeSRV)
	return answer(f.srv, f), err
}

// MX implements Resolver.
func (c *Client) MX(ctx context.Context, name string) (Answer[MX], error) {
	f, err := c.lookup(ctx, name, dns.TypeMX)
	return answer(f.mx, f), err
}

// Addrs implements Resolver. IPv6 addresses come first.
func (c *Client) Addrs(ctx context.Context, host string) (Answer[netip.Addr], error) {
	var v6, v4 outcome
	var wg sync.WaitGroup
	wg.Go(func() { v6.facts, v6.err = c.lookup(ctx, host, dns.TypeAAAA) })
	v4.facts, v4.err = c.lookup(ctx, host, dns.TypeA)
	wg.Wait()
	if err := ctx.Err(); err != nil && (v6.err != nil || v4.err != nil) {
		return Answer[netip.Addr]{}, err
	}
	return joinAddrs(v6, v4)
}

// TXT returns the TXT records of a name, each with its strings joined.
func (c *Client) TXT(ctx context.Context, name string) (Answer[string], error) {
	f, err := c.lookup(ctx, name, dns.TypeTXT)
	return answer(f.txt, f), err
}

// Flush forgets what is cached about a name, for instance because its operator
// says that it has changed.
func (c *Client) Flush(name string) {
	if name, ok := canonical(name); ok {
		c.cache.forget(name)
	}
}

// answer copies records out of the cache's reach.
func answer[R any](records []R, f facts) Answer[R] {
	return Answer[R]{
		Records: slices.Clone(records),
		TTL:     f.ttl,
		Secure:  f.secure,
		CNAMEs:  slices.Clone(f.names),
		Cut:     f.cut,
	}
}

func (c *Client) lookup(ctx context.Context, name string, qtype uint16) (facts, error) {
	clean, ok := canonical(name)
	q := question{clean, qtype}
	if !ok {
		// No zone can hold it as the name of a host or a service, so there is
		// nothing to ask and nothing to wait for.
		return facts{}, &NotFound{Name: printable(name), Type: q.typeName(), NXDomain: true}
	}
	if err := ctx.Err(); err != nil {
		return facts{}, err
	}
	if f, err, ok := c.cache.get(q, time.Now()); ok {
		return f, err
	}
	return c.flights.do(ctx, q, func(ctx context.Context) (facts, error) {
		// The flight before this one may have ended since the look above.
		if f, err, ok := c.cache.get(q, time.Now()); ok {
			return f, err
		}
		f, err := c.resolve(ctx, q)
		c.cache.put(q, f, err, time.Now())
		return f, err
	})
}

// resolve asks for q and, as long as the servers leave that to us, for the
// name at which the CNAME chain of the answer ended.
func (c *Client) resolve(ctx context.Context, q question) (facts, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	way := newChain(c.trustAD)
	for at := q; ; {
		s, server, err := c.ask(ctx, at, way)
		if none, ok := errors.AsType[*NotFound](err); ok {
			none.Name = q.name
			return facts{}, none
		}
		if errors.Is(err, context.Canceled) {
			return facts{}, err // nobody waits: no fact about the name, not cached
		}
		if err != nil {
			return facts{}, &LookupError{Name: q.name, Type: q.typeName(), Server: server, Problem: problemOf(err), Err: err}
		}
		if s.next == "" {
			return s.facts, nil
		}
		way, at.name = s.chain, s.next
	}
}

// ask puts one question to the servers in turn until one gives an answer that
// says something.
func (c *Client) ask(ctx context.Context, q question, way chain) (s step, server string, err error) {
	for range c.attempts {
		for _, server = range c.servers.inOrder(time.Now()) {
			var m *dns.Msg
			if m, err = c.exchange(ctx, server, q); err == nil {
				c.servers.answered(server)
				s, err = readAnswer(m, q, way)
			} else if ctx.Err() == nil && unreachable(err) {
				c.servers.failed(server, time.Now())
			}
			if _, none := errors.AsType[*NotFound](err); err == nil || none {
				return s, server, err
			}
			if ctx.Err() != nil {
				return step{}, server, ctx.Err()
			}
		}
	}
	return step{}, server, err
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.Timeout < 0 || cfg.Attempts < 0 || cfg.MaxEntries < 0 {
		return cfg, errors.New("dns: timeout, attempts and cache size must not be negative")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 3 * time.Second
	}
	if cfg.Attempts == 0 {
		cfg.Attempts = 2
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = 50_000
	}
	if len(cfg.Servers) == 0 {
		servers, err := systemServers("/etc/resolv.conf")
		cfg.Servers = servers
		return cfg, err
	}
	for _, s := range cfg.Servers {
		if ap, err := netip.ParseAddrPort(s); err != nil || ap.Port() == 0 {
			return cfg, fmt.Errorf(`dns: server %q is not an address with a port, such as "127.0.0.1:53" or "[::1]:53"`, s)
		}
	}
	return cfg, nil
}
