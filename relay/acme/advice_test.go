package acme

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	proto "github.com/mholt/acmez/v3/acme"

	"srvrelay/dnsutil"
)

// TestAdvice: every failure has a next step.
func TestAdvice(t *testing.T) {
	problem := func(kind string) error {
		return fmt.Errorf("solving: %w", proto.Problem{Type: proto.ProblemTypeNamespace + kind, Status: 403})
	}
	s := Settings{Names: []string{host}, Listen: ":80", Challenge: HTTP01, Directory: "https://ca.test/dir"}
	dns := s
	dns.Challenge = DNS01
	for _, c := range []struct {
		err  error
		s    Settings
		want string
	}{
		{listenError{fmt.Errorf("x: %w", syscall.EADDRINUSE)}, s, "another program has :80"},
		{listenError{fmt.Errorf("x: %w", syscall.EACCES)}, s, "CAP_NET_BIND_SERVICE"},
		{listenError{fmt.Errorf("x: %w", syscall.EADDRNOTAVAIL)}, s, "correct tls.acme.listen"},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOSPC}, s, "data_dir"},
		{&dnsutil.UpdateError{Rcode: "REFUSED"}, dns, "docs/tls.md"},
		{&dnsutil.UpdateError{Rcode: "BADTIME"}, dns, "clocks"},
		{&dnsutil.UpdateError{Rcode: "NOTZONE"}, dns, "tls.acme.dns.zone"},
		{&dnsutil.UpdateError{Rcode: "SERVFAIL", Server: "ns"}, dns, "see the log of the name server ns"},
		{problem("rateLimited"), s, "wait"},
		{problem("caa"), s, "dig relay.test CAA"},
		{problem("rejectedIdentifier"), s, "tls.acme.names"},
		{problem("externalAccountRequired"), s, "another tls.acme.directory"},
		{problem("unauthorized"), dns, "dig _acme-challenge.relay.test TXT"},
		{problem("dns"), s, "dig relay.test A AAAA"},
		{problem("badCSR"), s, justRetry},
		{proto.Problem{Status: 503}, s, "trouble of its own"},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, s, "curl -i https://ca.test/dir"},
		{errors.New("HTTP 500: down"), s, "curl -i https://ca.test/dir"},
	} {
		if got := advice(c.err, c.s); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
