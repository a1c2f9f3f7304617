package main

import (
	"context"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
	"srvrelay/relay/fetch"
)

// fetchers are the relays that are called for mail, by their configuration.
type fetchers struct {
	mu      sync.Mutex
	ctx     context.Context // nil = not running
	running map[string]context.CancelFunc
	wg      sync.WaitGroup

	fetched sync.Map // from -> admin.FetchStatus
}

// states is how the fetches go, in order.
func (f *fetchers) states() (list []admin.FetchStatus) {
	f.fetched.Range(func(_, st any) bool { list = append(list, st.(admin.FetchStatus)); return true })
	slices.SortFunc(list, func(a, b admin.FetchStatus) int { return strings.Compare(a.From, b.From) })
	return list
}

// run fetches until ctx ends; what is configured is told by set.
func (f *fetchers) run(ctx context.Context) {
	f.mu.Lock()
	f.ctx, f.running = ctx, map[string]context.CancelFunc{}
	f.mu.Unlock()
}

// set has the relays of a configuration called, and no others. A call to one
// that is configured as before goes on.
func (f *fetchers) set(want map[string]func(context.Context)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil {
		return
	}
	for key, stop := range f.running {
		if _, keep := want[key]; !keep {
			stop()
			delete(f.running, key)
		}
	}
	for key, run := range want {
		if _, there := f.running[key]; there {
			continue
		}
		ctx, stop := context.WithCancel(f.ctx)
		f.running[key] = stop
		f.wg.Go(func() { run(ctx) })
	}
}

// fetch has the relays of the configuration in force called.
func (s *service) fetch() {
	cur := s.now.Load()
	want := map[string]func(context.Context){}
	for _, x := range cur.cfg.Fetch {
		c := s.fetchConfig(cur.cfg, x)
		want[fetchKey(cur.cfg, x)] = func(ctx context.Context) {
			fetch.Run(ctx, c)
			s.fetchers.fetched.Delete(x.From)
		}
	}
	s.fetchers.set(want)
}

// fetchKey tells one configuration from another.
func fetchKey(cfg *config.Config, f config.Fetch) string {
	key := []string{cfg.Hostname, f.From, f.User, f.PasswordFile, f.PasswordEnv, f.CAFile, f.Deliver, "names"}
	key = append(append(append(key, f.Names...), "domains"), f.Domains...)
	text := ""
	for _, k := range key {
		text += strconv.Quote(k)
	}
	return text
}

func (s *service) fetchConfig(cfg *config.Config, f config.Fetch) fetch.Config {
	c := fetchFrom(cfg, f)
	c.Deliver = func(_ context.Context, conn net.Conn) error { return s.doors.Attend(conn) }
	if f.DeliverHost != "" {
		c.Deliver = fetch.ToServer(net.JoinHostPort(f.DeliverHost, strconv.Itoa(int(f.DeliverPort))))
	}
	c.Events = &fetchLog{log: s.log, from: f.From, state: &s.fetchers.fetched}
	return c
}

// fetchFrom is how a relay is called.
func fetchFrom(cfg *config.Config, f config.Fetch) fetch.Config {
	return fetch.Config{
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err == nil {
				relay.ProbePeer(c)
			}
			return c, err
		},
		Address: net.JoinHostPort(f.Host, strconv.Itoa(int(f.Port))), Host: f.Host, Names: f.Names, Roots: f.Roots,
		Implicit: f.Implicit, User: f.User, Domains: f.Domains, Hostname: cfg.Hostname,
		Password: func() (string, error) { return f.Password(os.Getenv) },
	}
}

// fetchLog tells the log how a fetch goes. A relay that cannot be reached is
// told of when it begins and when it ends, and not at each try.
type fetchLog struct {
	log   maillog
	from  string
	since time.Time // of the first failure; zero = it goes well
	last  string    // the error, without the ports of this machine
	state *sync.Map // what `srvrelay status` shows
}

// localPort is where an error of the net package names this side of a
// connection: another port each time.
var localPort = regexp.MustCompile(`([0-9\]]):[0-9]+->`)

func (l *fetchLog) StandingBy() {
	l.well()
	l.log.Debug("fetch: no mail now, standing by", "from", l.from)
}

func (l *fetchLog) Fetched(took time.Duration) {
	l.well()
	l.log.Debug("fetch: mail was offered", "from", l.from, "took", took.Round(time.Millisecond))
}

func (l *fetchLog) Failed(err error, pause time.Duration) {
	if l.since.IsZero() {
		l.since = time.Now()
	}
	l.state.Store(l.from, admin.FetchStatus{From: l.from, Since: l.since, Error: queue.Safe(err.Error(), 500)})
	say := l.log.Debug
	if now := localPort.ReplaceAllString(err.Error(), "$1->"); now != l.last {
		say, l.last = l.log.Warn, now
	}
	say("fetch: mail cannot be fetched", "from", l.from, "error", err, "next_try", pause.Round(time.Second))
}

func (l *fetchLog) well() {
	l.state.Store(l.from, admin.FetchStatus{From: l.from})
	if l.since.IsZero() && l.last != "-" {
		if l.last == "" {
			l.log.Info("fetch: connected", "from", l.from)
		}
		l.last = "-"
		return
	}
	if !l.since.IsZero() {
		l.log.Info("fetch: connected again", "from", l.from, "after", time.Since(l.since).Round(time.Second))
	}
	l.since, l.last = time.Time{}, "-"
}
