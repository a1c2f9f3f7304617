package dnsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// serverRest is how long a server that did not answer is asked last. Without
// it a dead first server would cost its timeout in every look-up.
const serverRest = 30 * time.Second

// servers are the resolvers in the operator's order, and which of them are
// thought to be down.
type servers struct {
	addrs []string
	mu    sync.Mutex
	down  map[string]time.Time // until when
}

func newServers(addrs []string) *servers {
	return &servers{addrs: addrs, down: make(map[string]time.Time)}
}

// inOrder returns all servers, those that are down at the end.
func (s *servers) inOrder(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	up := make([]string, 0, len(s.addrs))
	var down []string
	for _, a := range s.addrs {
		if now.Before(s.down[a]) {
			down = append(down, a)
		} else {
			up = append(up, a)
		}
	}
	return append(up, down...)
}

func (s *servers) failed(addr string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[addr] = now.Add(serverRest)
}

func (s *servers) answered(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.down, addr)
}

// systemServers reads the resolvers of the machine, at most three as the
// system's own library does. Without the file or an entry in it that is the
// machine itself (resolv.conf(5)).
func systemServers(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		conf, err = &dns.ClientConfig{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("dns: reading the system's resolvers: %w; name some in dns.servers", err)
	}
	hosts := conf.Servers
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	addrs := make([]string, 0, 3)
	for _, host := range hosts[:min(len(hosts), 3)] {
		addrs = append(addrs, net.JoinHostPort(host, "53"))
	}
	return addrs, nil
}
