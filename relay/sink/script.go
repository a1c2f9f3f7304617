package sink

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A script is how a server (mis)behaves, one directive a line; an empty one
// accepts everything. "#" begins a comment line.
//
//	lmtp                     LHLO (which "ehlo" is about, too) and, after the end
//	                         of a message, a reply for each recipient
//	implicit-tls             TLS from the first byte
//	cert NAME[,NAME...] [expired]   a certificate by Options.CA, for DNS names, IP
//	                         addresses and SRV names (_submission.example.org)
//	banner|ehlo|helo|mail|data|rset|quit ACTION   instead of the usual reply
//	rcpt PATTERN ACTION      PATTERN is an address, *, local@* or *@domain
//	rcptmax N ACTION         from the N+1st RCPT of a transaction on
//	dot ACTION               to the end of a message; a message is stored if the
//	                         reply is 2xx, or with "drop": then the reply is lost
//	dot drop-unstored        neither stored nor answered
//	deliver PATTERN ACTION   LMTP: the reply for such a recipient after the message,
//	                         "dot" for those without; "drop" loses all that follow
//	body drop N              closes when N bytes of a message have come
//	body reply N REPLY       says REPLY then, and closes
//	no EXT, offer EXT        extensions in EHLO; "offer STARTTLS" makes it work
//	size N                   announces and enforces SIZE N
//	starttls ACTION|fail     fail: 220, and then no TLS
//	close after-VERB         closes after the reply to banner, ehlo, mail, rcpt, data
//	421 after N              an unasked 421 after N messages of a connection
//	user NAME PASSWORD [MECH...]   offers AUTH (PLAIN and LOGIN) and takes these
//	auth ACTION              to the end of an AUTH; a 235 is for any password
//	auth-required            530 5.7.0 to MAIL without AUTH
//	slow-dot DURATION        waits before the reply to the end of a message
//
// ACTION is REPLY, "drop" (closes), "silent" (never answers) or "delay
// DURATION" (waits, then goes on as usual). REPLY is sent as it is, with CRLF
// added; \n is CRLF, \xNN any byte, and \c at the end leaves the CRLF out.
// A directive that ends in "xN" applies to the first N occasions only, and of
// several the first that applies counts, so that
//
//	rcpt *@example.org 451 4.7.1 come back later x1
//
// is greylisting.
type script struct {
	mu    sync.Mutex // guards rule.left
	rules []*rule
}

type rule struct {
	verb  string
	arg   string   // pattern, extension, or the verb that "close" follows
	words []string // of user and cert
	n     int
	act   action
	left  int // occasions to come, negative without end
}

type action struct {
	kind  kind
	reply string // bytes, with CRLF
	delay time.Duration
}

type kind uint8

const (
	usual kind = iota // no rule applies
	reply
	drop
	dropUnstored
	silent
	delay
	fail
)

// ok tells whether a command with this answer has been accepted.
func (a action) ok() bool {
	return a.kind == usual || a.kind == delay || (a.kind == reply && (a.reply[0] == '2' || a.reply[0] == '3'))
}

var times = regexp.MustCompile(`^(.*\S)\s+x([0-9]+)$`)

func parseScript(text string) (*script, error) {
	s := &script{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := parseRule(line)
		if err != nil {
			return nil, fmt.Errorf("sink script, line %d: %q: %w", i+1, line, err)
		}
		s.rules = append(s.rules, r)
	}
	return s, nil
}

func parseRule(line string) (*rule, error) {
	r := &rule{left: -1}
	if m := times.FindStringSubmatch(line); m != nil {
		line = m[1]
		r.left, _ = strconv.Atoi(m[2])
	}
	verb, rest := cut(line)
	r.verb = strings.ToLower(verb)
	var err error
	switch r.verb {
	case "banner", "ehlo", "helo", "mail", "data", "dot", "rset", "quit", "starttls", "auth":
		r.act, err = parseAction(r.verb, rest)
	case "rcpt", "deliver":
		r.arg, rest = cut(rest)
		r.act, err = parseAction(r.verb, rest)
	case "rcptmax":
		r.arg, rest = cut(rest)
		if r.n, err = number(r.arg); err == nil {
			r.act, err = parseAction(r.verb, rest)
		}
	case "body":
		err = r.parseBody(rest)
	case "no", "offer":
		if r.arg = strings.ToUpper(rest); rest == "" {
			err = fmt.Errorf("names no extension")
		}
	case "size":
		r.n, err = number(rest)
	case "close":
		var ok bool
		if r.arg, ok = strings.CutPrefix(rest, "after-"); !ok || !slices.Contains([]string{"banner", "ehlo", "mail", "rcpt", "data"}, r.arg) {
			err = fmt.Errorf("want close after-banner, -ehlo, -mail, -rcpt or -data")
		}
	case "421":
		after, ok := strings.CutPrefix(rest, "after ")
		if r.n, err = number(after); !ok {
			err = fmt.Errorf("want 421 after N")
		}
	case "auth-required", "lmtp", "implicit-tls":
		if rest != "" {
			err = fmt.Errorf("%s stands alone", r.verb)
		}
	case "user":
		if r.words = strings.Fields(rest); len(r.words) < 2 {
			err = fmt.Errorf("want user NAME PASSWORD [MECH...]")
		} else if len(r.words) == 2 {
			r.words = append(r.words, "PLAIN", "LOGIN")
		}
	case "cert":
		names, expired := cut(rest)
		r.words = strings.Split(names, ",")
		if expired == "expired" {
			r.n = 1
		} else if names == "" || expired != "" {
			err = fmt.Errorf("want cert NAME[,NAME...] [expired]")
		}
	case "slow-dot":
		r.act.kind = delay
		r.act.delay, err = time.ParseDuration(rest)
	default:
		err = fmt.Errorf("unknown directive %q", verb)
	}
	return r, err
}

func (r *rule) parseBody(rest string) (err error) {
	what, rest := cut(rest)
	n, rest := cut(rest)
	if r.n, err = number(n); err != nil {
		return err
	}
	switch {
	case what == "drop" && rest == "":
		r.act.kind = drop
	case what == "reply":
		r.act, err = parseAction("body", rest)
	default:
		err = fmt.Errorf("want body drop N or body reply N REPLY")
	}
	return err
}

func parseAction(verb, s string) (action, error) {
	word, rest := cut(s)
	switch {
	case s == "drop":
		return action{kind: drop}, nil
	case s == "silent":
		return action{kind: silent}, nil
	case word == "delay":
		d, err := time.ParseDuration(rest)
		return action{kind: delay, delay: d}, err
	case verb == "dot" && s == "drop-unstored":
		return action{kind: dropUnstored}, nil
	case verb == "starttls" && s == "fail":
		return action{kind: fail}, nil
	case s == "":
		return action{}, fmt.Errorf("says not what to do: a reply, drop, silent or delay")
	}
	text, err := unescape(s)
	return action{kind: reply, reply: text}, err
}

// unescape turns the text of a reply into its bytes.
func unescape(s string) (string, error) {
	s, bare := strings.CutSuffix(s, `\c`)
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\':
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i:], `\n`):
			b.WriteString("\r\n")
			i++
		case strings.HasPrefix(s[i:], `\x`) && len(s) >= i+4:
			v, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
			if err != nil {
				return "", fmt.Errorf("bad escape %q", s[i:i+4])
			}
			b.WriteByte(byte(v))
			i += 3
		default:
			return "", fmt.Errorf(`unknown escape %q: want \n, \xNN or \c at the end`, s[i:])
		}
	}
	if !bare {
		b.WriteString("\r\n")
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("empty reply")
	}
	return b.String(), nil
}

func cut(s string) (word, rest string) {
	word, rest, _ = strings.Cut(s, " ")
	return word, strings.TrimSpace(rest)
}

func number(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return n, nil
}

// take uses up one occasion of the first rule of the verb that fits, and
// returns it; nil when there is none.
func (s *script) take(verb string, fits func(*rule) bool) *rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rules {
		if r.verb == verb && r.left != 0 && (fits == nil || fits(r)) {
			if r.left > 0 {
				r.left--
			}
			return r
		}
	}
	return nil
}

// act is take for those who only need to know what to do.
func (s *script) act(verb string, fits func(*rule) bool) action {
	if r := s.take(verb, fits); r != nil {
		return r.act
	}
	return action{}
}

// extensions returns what EHLO offers now, and the SIZE that is enforced.
func (s *script) extensions(secure bool) (list []string, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list = []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "DSN", "ENHANCEDSTATUSCODES"}
	for _, r := range s.rules {
		if r.left == 0 || (r.verb != "no" && r.verb != "offer" && r.verb != "size") {
			continue
		}
		if r.left > 0 {
			r.left--
		}
		switch r.verb {
		case "no":
			list = slices.DeleteFunc(list, func(e string) bool { name, _ := cut(e); return name == r.arg })
		case "offer":
			if r.arg != "STARTTLS" || !secure {
				list = append(list, r.arg)
			}
		case "size":
			size = r.n
			if i := slices.Index(list, "SIZE"); i >= 0 {
				list[i] = fmt.Sprintf("SIZE %d", size)
			}
		}
	}
	if mechs := s.mechanisms(); len(mechs) > 0 {
		list = append(list, "AUTH "+strings.Join(mechs, " "))
	}
	return list, size
}

// matches tells whether an address fits a pattern, without regard to case.
func matches(pattern, addr string) bool {
	pattern, addr = strings.ToLower(pattern), strings.ToLower(addr)
	if local, ok := strings.CutSuffix(pattern, "@*"); ok {
		return strings.HasPrefix(addr, local+"@")
	}
	if domain, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(addr, domain)
	}
	return pattern == addr
}
