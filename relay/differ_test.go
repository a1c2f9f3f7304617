//go:build !race

// Without the race detector: go-smtp has races of its own once a message in
// chunks is given up (Conn.dataResult).

package relay

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// The engine against go-smtp's: both are told the same, and must answer the
// same and take the same messages, but for what stands in knownRefusals and
// knownLeniences. What is only a difference of code between two refusals
// stands in sameRefusal.

// knownRefusals: what we refuse, by the beginning of our reply, and go-smtp may
// take. All are meant.
var knownRefusals = []string{
	"500 5.5.2 lines must end with CRLF",     // it takes a bare LF for a line end
	"500 5.5.2 control character",            // and a CR for a part of the line
	"500 5.5.2 line too long",                // its limit is for the connection, ours for a command
	"501 5.5.2 a domain name",                // EHLO with a name that is not ASCII, or endless
	"501 5.5.2 syntax: ",                     // addresses without <>, or with parameters glued to them
	"501 5.1.7 bad address",                  // it takes anything for a domain,
	"501 5.1.3 bad address",                  // and for a local part
	"553 5.6.7 ",                             // non-ASCII addresses without SMTPUTF8
	"503 5.5.1 a transaction is open",        // a second MAIL keeps its old recipients
	"503 5.5.1 say EHLO first",               // VRFY
	"503 5.5.1 BDAT or RSET expected",        // it takes EHLO, VRFY and others between chunks
	"501 5.5.4 SMTPUTF8 takes no value",      // parameters: it ignores a value here,
	"501 5.5.4 SIZE takes a number",          // more than 20 digits (RFC 1870),
	"501 5.5.4 ENVID must be at most 100",    // a length,
	"501 5.5.4 ORCPT must be at most 500",    // what a terminal would obey,
	"501 5.5.4 AUTH is <> or a mailbox",      // a domain that is none
	"550 5.5.2 bare CR or LF in the message", // it lets them through
	"550 5.6.0 NUL byte in the message",      // the same
	"554 5.4.6 mail loop",                    // a task of its backend
	"550 5.7.1 ",                             // the policy, the same
	"552 5.3.4 ",                             // one octet too many in chunks: see differMax
}

// twice and ascii are refusals that name a parameter.
var paramRefusal = regexp.MustCompile(`^501 5\.5\.4 [A-Z0-9]+ (given twice|with a non-ASCII value)\r\n$`)

// knownLeniences: what we take and go-smtp refuses, by the command.
var knownLeniences = []struct {
	line *regexp.Regexp
	why  string
}{
	{regexp.MustCompile(`(?i)^[a-z]{4}[ \t]+\r\n$`), "white space behind a verb"},
	{regexp.MustCompile(`(?i)^RCPT .*\bORCPT=[a-z0-9-]+;`), "ORCPT of any type (RFC 3461 4.2)"},
	{regexp.MustCompile(`(?i)^RCPT\s+TO:\s*<([^>]*:)?postmaster>`), "a bare postmaster (RFC 5321 4.5.1)"},
}

// sameRefusal tells whether two codes say the same. It has 502 where 503 is
// meant, 500 for parameters, one code or another for all mistakes in them, in
// an order that is up to a map, looks at them before it looks at the state,
// 501 for verbs that are not four letters long, and 523 for AUTH. Of a body that is
// too big and has bare line ends, it sees the size only.
func sameRefusal(ours, theirs string) bool {
	command := []string{"500", "501", "502", "503", "504", "523", "550", "552", "553", "555"}
	return ours == theirs || slices.Contains(command, ours) && slices.Contains(command, theirs)
}

// differMax is the limit of a message. go-smtp is told one more: it refuses a
// message of exactly its limit.
const differMax = 2000

// dialogue is a socket whose client has said all in advance.
type dialogue struct {
	net.Conn
	in   io.Reader
	mu   sync.Mutex
	out  bytes.Buffer
	over bool
	done chan struct{}
	log  *theirLog
}

func newDialogue(in []byte, n int) *dialogue {
	return &dialogue{in: &slowReader{in, n}, done: make(chan struct{}), log: &theirLog{}}
}

func (d *dialogue) Read(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return 0, net.ErrClosed
	}
	return d.in.Read(p)
}

func (d *dialogue) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return 0, net.ErrClosed
	}
	return d.out.Write(p)
}

func (d *dialogue) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.over = true
		close(d.done)
	}
	return nil
}

func (*dialogue) SetDeadline(time.Time) error      { return nil }
func (*dialogue) SetReadDeadline(time.Time) error  { return nil }
func (*dialogue) SetWriteDeadline(time.Time) error { return nil }
func (*dialogue) RemoteAddr() net.Addr             { return pipeAddr{}.RemoteAddr() }
func (*dialogue) LocalAddr() net.Addr              { return pipeAddr{}.RemoteAddr() }

// replies returns what was answered behind the banner, a reply an element.
func (d *dialogue) replies() (all []string) {
	<-d.done
	now := ""
	for _, l := range strings.SplitAfter(d.out.String(), "\n") {
		if now += l; len(l) > 3 && l[3] == ' ' {
			all, now = append(all, now[:4]+l[4:]), ""
		}
	}
	return all[1:]
}

// theirLog is what go-smtp's backend got.
type theirLog struct {
	mu   sync.Mutex
	msgs []stored
}

func (l *theirLog) all() []stored {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.msgs
}

// theirSession is a backend with the rules of ours that go-smtp leaves to it.
type theirSession struct {
	log *theirLog
	mu  sync.Mutex // Data of a message in chunks runs beside the rest
	env queue.Envelope
}

func (s *theirSession) Mail(from string, o *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Size > differMax {
		return refuseTooBig
	}
	s.env = queue.Envelope{Sender: from, Ret: string(o.Return), EnvID: o.EnvelopeID}
	return nil
}

func (s *theirSession) Rcpt(to string, o *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := queue.Recipient{Address: to}
	for _, n := range o.Notify {
		r.Notify |= notifyBits(n)
	}
	if o.OriginalRecipient != "" {
		r.ORcpt = strings.ToLower(string(o.OriginalRecipientType)) + ";" + o.OriginalRecipient
	}
	s.env.To = append(s.env.To, r)
	return nil
}

func (s *theirSession) Data(r io.Reader) error {
	s.mu.Lock()
	env := s.env
	env.To = slices.Clone(env.To)
	s.mu.Unlock()
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(b) > differMax {
		return refuseTooBig
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.msgs = append(s.log.msgs, stored{env, string(b)})
	return nil
}

func (s *theirSession) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.env = queue.Envelope{}
}

func (s *theirSession) Logout() error { return nil }

// theirs is go-smtp's server, for all runs.
var theirs = sync.OnceValue(func() chan<- net.Conn {
	e := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &theirSession{log: c.Conn().(*dialogue).log}, nil
	}))
	e.Domain, e.MaxMessageBytes, e.MaxLineLength = "relay.example.net", differMax+1, 1<<20
	e.EnableSMTPUTF8, e.EnableDSN = true, true
	e.ErrorLog = log.New(io.Discard, "", 0)
	l := channelListener(make(chan net.Conn))
	go e.Serve(l)
	return l
})

type channelListener chan net.Conn

func (l channelListener) Accept() (net.Conn, error) { return <-l, nil }
func (l channelListener) Close() error              { return nil }
func (l channelListener) Addr() net.Addr            { return pipeAddr{}.RemoteAddr() }

// exchange is a command, or the data behind a DATA, and our reply to it.
type exchange struct {
	what  string
	reply string
	verb  string
	final bool // it may be that to a message
}

// exchanges takes a script apart, by our replies. It stops where go-smtp can be
// followed no further, and returns how much of the script that is: where we
// close, at what is cut off (it takes a chunk that is for a whole one), and when
// chunks are given up (its Data then runs beside the next one, and answers for it).
func exchanges(script []byte, replies []string) (list []exchange, used int) {
	chunks := false
	for len(replies) > 0 {
		rest := script[used:]
		line := string(rest[:lineLength(rest)])
		rest = rest[len(line):]
		cmd, bad := parseCommand([]byte(line))
		e := exchange{what: line, reply: replies[0], verb: cmd.verb}
		replies = replies[1:]
		used += len(line)
		if cmd.verb == "BDAT" {
			size, last, r := parseChunk(cmd.arg)
			if r != nil || size > int64(len(rest)) {
				return list, used
			}
			used += int(size)
			e.final = last
		}
		list = append(list, e)
		taken := e.reply[0] == '2'
		switch {
		case cmd.verb == "QUIT", chunks && cmd.verb != "BDAT" && cmd.verb != "NOOP":
			return list, used
		case cmd.verb == "BDAT" && !taken && e.reply[:3] != "503":
			return list, used
		case bad != nil && strings.HasPrefix(strings.ToUpper(line), "BDAT"):
			return list, used // it skips a chunk
		case cmd.verb == "BDAT" && taken:
			chunks = !e.final
		case cmd.verb == "DATA" && e.reply[0] == '3':
			if !bytes.HasPrefix(rest, dotLine) && !bytes.Contains(rest, []byte("\r\n.\r\n")) {
				return list, used
			}
			end := dataEnd(rest)
			used += end
			list = append(list, exchange{string(rest[:end]), replies[0], "data", true})
			replies = replies[1:]
		}
	}
	return list, used
}

// comparison is one script as both have answered it.
type comparison struct {
	*testing.T
	script      []byte
	theirs      []string // replies still to be compared
	mine, other []stored // messages still to be compared
}

// compare runs a script, in pieces of n octets, through both.
func compare(t *testing.T, script []byte, n int) {
	q := &memQueue{}
	l := Listener{Mode: queue.Inbound}
	s, err := New(Config{
		Hostname: "relay.example.net", Queue: q, Listeners: []Listener{l}, MaxMessageSize: differMax, MaxRecipients: 1 << 20,
		RelayDomains: []string{".example", "example.com"}, Limits: Limits{Commands: 1 << 30, BadCommands: 1 << 30},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := newDialogue(script, n)
	serveConn(s, l, a)
	list, used := exchanges(script, a.replies())
	b := newDialogue(script[:used], n)
	theirs() <- b
	c := &comparison{T: t, script: script, theirs: b.replies(), mine: q.all(), other: b.log.all()}
	for i, e := range list {
		if !c.answered(e, i == len(list)-1) {
			return
		}
	}
}

// answered compares one reply, and tells whether the two are still in the same
// state. end: we said nothing after it.
func (c *comparison) answered(e exchange, end bool) bool {
	c.Helper()
	if len(c.theirs) == 0 {
		c.Fatalf("%q: to %q we say %q, and go-smtp nothing", c.script, e.what, e.reply)
	}
	a, b := e.reply, c.theirs[0]
	c.theirs = c.theirs[1:]
	if strings.HasPrefix(b, "500 5.5.1 Too many errors") {
		return false // it gives up at the fourth
	}
	okA, okB := a[0] < '4', b[0] < '4'
	switch {
	case okA && okB && a[:3] == b[:3]:
		if e.final {
			c.same(e.what)
		}
		return true
	case !okA && !okB && sameRefusal(a[:3], b[:3]):
		return true
	case !okA && okB && isKnownRefusal(e.what, a):
		if e.final && len(c.other) > 0 {
			c.other = c.other[1:]
		}
		return e.verb == "VRFY" || e.final // else their transaction goes on, or begins
	case e.final && !okA && isKnownRefusal(e.what, a) && end:
		return false // a doubtful end: we closed, and it takes what follows for content
	case okA && !okB:
		for _, k := range knownLeniences {
			if k.line.MatchString(e.what) {
				return false
			}
		}
	}
	c.Fatalf("%q:\nto %q\nwe say      %q\nand go-smtp %q", c.script, e.what, a, b)
	return false
}

func isKnownRefusal(what, r string) bool {
	return paramRefusal.MatchString(r) || twice(what) || slices.ContainsFunc(knownRefusals, func(k string) bool { return strings.HasPrefix(r, k) })
}

// twice tells whether a command has a parameter twice, of which go-smtp takes
// the last, whatever the first is.
func twice(what string) bool {
	seen := map[string]bool{}
	line, _, _ := strings.Cut(what, "\r\n")
	for _, p := range strings.Fields(line) {
		key, _, valued := strings.Cut(strings.ToUpper(p), "=")
		if valued && seen[key] {
			return true
		}
		seen[key] = true
	}
	return false
}

var stampShape = regexp.MustCompile(`^Received: from [^\r]*\r\n(\t[^\r]*\r\n)+$`)

// same compares the next message of both.
func (c *comparison) same(what string) {
	c.Helper()
	if len(c.mine) == 0 || len(c.other) == 0 {
		c.Fatalf("%q: acknowledged %q; left are %d messages of ours, %d of go-smtp's", c.script, what, len(c.mine), len(c.other))
	}
	a, b := c.mine[0], c.other[0]
	c.mine, c.other = c.mine[1:], c.other[1:]
	content, ok := strings.CutSuffix(a.body, b.body)
	if !ok || !stampShape.MatchString(content) {
		c.Errorf("%q:\nwe store    %q\nand go-smtp %q", c.script, a.body, b.body)
	}
	if x, y := shape(a.env), shape(b.env); x != y {
		c.Errorf("%q:\nwe have     %s\nand go-smtp %s", c.script, x, y)
	}
}

// shape is an envelope with decoded local parts, each recipient once.
func shape(e queue.Envelope) string {
	out := fmt.Sprintf("%q %q %q", plain(e.Sender), e.Ret, e.EnvID)
	var seen []string
	for _, r := range e.To {
		if who := plain(r.Address); !slices.Contains(seen, who) {
			seen = append(seen, who)
			out += fmt.Sprintf(" %q %d %q", who, r.Notify, r.ORcpt)
		}
	}
	return out
}

// plain is an address without quotes: go-smtp has removed them, where ours
// keeps addresses as given.
func plain(s string) string {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s
	}
	local, domain := s[:i], s[i+1:]
	if a, err := ParseAddress(s, true); err == nil {
		local = a.Local
	}
	if d, err := parseDomain(domain, true); err == nil {
		domain = d
	}
	return local + "@" + domain
}
