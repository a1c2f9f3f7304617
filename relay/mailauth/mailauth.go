// Package mailauth owns what SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC
// 7489) say of a message that comes in, in the words of RFC 8601. It judges
// while the message streams by, within bounds of time, look-ups and memory, and
// refuses nothing. It does not know doors, queues or what is done with it.
package mailauth

import (
	"bytes"
	"context"
	"io"
	"net/netip"
	"sync"
	"time"

	"blitiri.com.ar/go/spf"
	"github.com/emersion/go-msgauth/dkim"

	"srvrelay/dnsutil"
)

// Bounds of one message.
const (
	maxHeader     = 64 << 10         // bytes of a header section that is looked at
	maxSignatures = 5                // DKIM signatures that are verified, the first ones
	maxLookups    = 60               // questions to DNS for SPF and DKIM
	dmarcLookups  = 2                // and for DMARC, which what a stranger has published must not use up
	lookupTime    = 10 * time.Second // for each of them
	spfTime       = 20 * time.Second // for SPF as a whole (RFC 7208 4.6.4)
	endTime       = 20 * time.Second // from the end of the message to the results of these two
)

// Resolver answers the questions of the three.
type Resolver interface {
	TXT(ctx context.Context, name string) (dnsutil.Answer[string], error)
	MX(ctx context.Context, name string) (dnsutil.Answer[dnsutil.MX], error)
	Addrs(ctx context.Context, host string) (dnsutil.Answer[netip.Addr], error)
	Names(ctx context.Context, addr netip.Addr) ([]string, error)
}

// Check is one message under way. It is written to as it came from the client;
// then Results or Abandon ends it. One goroutine uses it.
type Check struct {
	ctx    context.Context // of the caller
	cancel context.CancelFunc
	dns    *questions

	body *io.PipeWriter // to DKIM
	ends sync.Once

	header []byte // so far
	inBody bool
	over   bool // the header section is too large to be looked at

	spf  chan spfResult
	dkim chan []signature
}

// Begin begins with a message of a client. An invalid client is not known, so
// that there is no SPF. sender is that of MAIL without <>.
func Begin(ctx context.Context, r Resolver, client netip.Addr, helo, sender string) *Check {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	c := &Check{ctx: caller, cancel: cancel, dns: &questions{ctx: ctx, r: r, left: maxLookups}, spf: make(chan spfResult, 1), dkim: make(chan []signature, 1)}
	go func() {
		out := spfResult{result: spf.TempError}
		defer func() {
			_ = recover() // of the library, over what a stranger has published
			c.spf <- out
		}()
		out = checkSPF(ctx, c.dns, client.Unmap(), helo, sender)
	}()
	var read *io.PipeReader
	read, c.body = io.Pipe()
	go func() {
		var out []signature
		defer func() {
			// Of the library, over what a stranger sent; with several signatures it
			// works in goroutines of its own, where nothing can be caught (FuzzCheck).
			if recover() != nil {
				out = []signature{{result: "permerror"}}
				_, _ = io.Copy(io.Discard, read)
			}
			c.dkim <- out
		}()
		out = verify(read, c.dns)
	}()
	return c
}

// Write takes some more of the message. It waits for no more than the look-ups
// of the keys, and never fails.
func (c *Check) Write(p []byte) (int, error) {
	if !c.inBody {
		c.look(p)
	}
	if !c.over {
		_, _ = c.body.Write(p) // DKIM may have seen enough
	}
	return len(p), nil
}

// look keeps the header section, up to the blank line that ends it.
func (c *Check) look(p []byte) {
	from := max(0, len(c.header)-3)
	c.header = append(c.header, p[:min(len(p), maxHeader+1-len(c.header))]...)
	i := bytes.Index(c.header[from:], []byte("\r\n\r\n"))
	switch {
	case bytes.HasPrefix(c.header, []byte("\r\n")):
		c.header, c.inBody = nil, true
	case i >= 0:
		c.header, c.inBody = c.header[:from+i+2], true
	case len(c.header) > maxHeader:
		c.header, c.inBody, c.over = nil, true, true
		c.end()
	}
}

// end tells DKIM that no more comes. It is never told of a failure: the library
// leaves goroutines behind when its reader fails.
func (c *Check) end() { c.ends.Do(func() { c.body.Close() }) }

// Abandon ends a check whose message did not come to its end, or has.
func (c *Check) Abandon() {
	c.cancel()
	c.end()
}

// Results are the results, each as the resinfo of RFC 8601 2.2 without the
// semicolon: "spf=pass smtp.mailfrom=a.example". The message is complete.
func (c *Check) Results() []string {
	defer c.Abandon()
	c.end()
	late := time.AfterFunc(endTime, c.cancel)
	defer late.Stop()
	s, signatures := <-c.spf, <-c.dkim
	out := s.info()
	switch {
	case c.over:
		return append(out, "dkim=permerror", "dmarc=permerror")
	case len(signatures) == 0:
		out = append(out, "dkim=none")
	}
	for _, sig := range signatures {
		out = append(out, sig.info())
	}
	// The time of the other two may be over, by the will of who has sent it.
	ctx, cancel := context.WithTimeout(c.ctx, dmarcLookups*lookupTime)
	defer cancel()
	return append(out, checkDMARC(&questions{ctx: ctx, r: c.dns.r, left: dmarcLookups}, c.header, s, signatures))
}

// signature is what came of one DKIM signature.
type signature struct {
	result string // "pass", "fail", "permerror", "temperror"
	domain string // d=, "" when it is not to be printed
}

func (s signature) info() string { return "dkim=" + s.result + property("header.d", s.domain) }

// verify verifies the DKIM signatures, and reads on to the end: the writer
// must not wait for a reader that is gone.
func verify(r *io.PipeReader, q *questions) (out []signature) {
	verified, _ := dkim.VerifyWithOptions(r, &dkim.VerifyOptions{LookupTXT: q.txt, MaxVerifications: maxSignatures})
	_, _ = io.Copy(io.Discard, r)
	for _, v := range verified {
		s := signature{result: "pass", domain: hostName(v.Domain)}
		switch {
		case v.Err == nil && s.domain == "":
			s.result = "permerror"
		case v.Err == nil:
		case dkim.IsTempFail(v.Err):
			s.result = "temperror"
		case dkim.IsPermFail(v.Err):
			s.result = "permerror"
		default:
			s.result = "fail"
		}
		out = append(out, s)
	}
	return out
}
