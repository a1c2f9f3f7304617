package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"net/netip"
	"strings"

	"github.com/emersion/go-smtp"
)

// SenderRule says as whom somebody may send. It is for a user or for a network.
type SenderRule struct {
	User    string       // a name, or "*": everybody who has logged in
	Network netip.Prefix // clients that have not logged in
	// From are the senders: "me@a.example", "me+*@a.example" (any detail behind a
	// plus), "@a.example" (all of the domain), "@.a.example" (all of the domains
	// below it), or "*": anybody. Case does not matter, as with [RecipientList]:
	// who is told apart from News@ by a small letter fools readers, not servers.
	From []string
}

// everybody is the user of a rule for all who have logged in, and the sender of
// one that lets them send as anybody.
const everybody = "*"

// senderRules are rules as they are looked up. Without any, all may send as anybody.
type senderRules struct {
	set   bool
	users map[string]*senderList
	nets  []senderNet
}

type senderNet struct {
	net  netip.Prefix
	list *senderList
}

// senderList is the senders of one or more rules.
type senderList struct {
	entries
	anybody bool
	shown   []string // as configured
}

func newSenderRules(rules []SenderRule) (senderRules, error) {
	out := senderRules{set: len(rules) > 0, users: map[string]*senderList{}}
	var errs []error
	for i, r := range rules {
		list := &senderList{entries: newEntries()}
		switch {
		case (r.User == "") == !r.Network.IsValid():
			errs = append(errs, fmt.Errorf("senders[%d]: is for a user or for a network", i))
		case r.User == "":
			out.nets = append(out.nets, senderNet{r.Network, list})
		case out.users[r.User] != nil:
			list = out.users[r.User]
		default:
			out.users[r.User] = list
		}
		for _, from := range r.From {
			if err := list.allow(from); err != nil {
				errs = append(errs, fmt.Errorf("senders[%d]: %w", i, err))
			}
		}
	}
	return out, errors.Join(errs...)
}

func (l *senderList) allow(from string) error {
	l.shown = append(l.shown, from)
	if from == everybody {
		l.anybody = true
		return nil
	}
	return l.add(from)
}

// senders is as whom one client may send; nil is as anybody.
type senders struct {
	who   string // for the reply
	lists []*senderList
}

// of finds what holds for a user, or for a client that has not logged in
// (user = ""). A user whom no rule names may send as nobody; a client that is in
// none of the networks is bound by nothing.
func (rs *senderRules) of(user string, client netip.Addr) *senders {
	if !rs.set {
		return nil
	}
	s := &senders{who: brief(user, 60)}
	if user != "" {
		s.take(rs.users[user])
		if user != everybody {
			s.take(rs.users[everybody])
		}
	} else {
		s.who = "your address"
		for _, n := range rs.nets {
			if n.net.Contains(client.Unmap()) {
				s.take(n.list)
			}
		}
		if len(s.lists) == 0 {
			return nil
		}
	}
	for _, l := range s.lists {
		if l.anybody {
			return nil
		}
	}
	return s
}

func (s *senders) take(l *senderList) {
	if l != nil {
		s.lists = append(s.lists, l)
	}
}

// may tells whether an address is one of the senders.
func (s *senders) may(a Address) bool {
	if s == nil {
		return true
	}
	for _, l := range s.lists {
		if l.has(strings.ToLower(a.Local), a.Domain) {
			return true
		}
	}
	return false
}

// shownSenders is how many of the allowed senders a refusal names. Who reads it
// has logged in, and could find them by trying; they are there for the many who
// have mistyped a setting of their program.
const shownSenders = 3

// refuse is the answer to an address that is none of them; where is how it was
// named, "" at MAIL.
func (s *senders) refuse(address, where string) *smtp.SMTPError {
	var all []string
	for _, l := range s.lists {
		all = append(all, l.shown...)
	}
	text := s.who + " may not send as " + brief(address, 100) + where
	if len(all) == 0 {
		return reply(550, 5, 7, 1, text+", nor as anybody else")
	}
	text += "; allowed: "
	for i, from := range all[:min(len(all), shownSenders)] {
		if i > 0 {
			text += ", "
		}
		text += brief(from, 64)
	}
	if more := len(all) - shownSenders; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return reply(550, 5, 7, 1, text)
}

// brief is safeText of at most n bytes.
func brief(s string, n int) string {
	if s = safeText(s); len(s) > n {
		s = s[:n-3] + "..."
	}
	return s
}

// Bounds of the fields that name authors.
const (
	maxAuthors = 16 << 10 // bytes of one field
	maxAuthor  = 100      // mailboxes in it
)

// authors collects the From and Sender fields of a header section while it goes
// by, to see whether they name only those as whom the client may send. What it
// cannot read in one way only is refused: the reader's program may read it in
// another.
type authors struct {
	may *senders

	from, sender authorField
	current      *authorField // that the line which goes by belongs to; nil = none
}

// authorField is a field as it came, behind its colon.
type authorField struct {
	n    int // how often it is there
	text []byte
	long bool
}

var fieldFrom, fieldSender = []byte("From"), []byte("Sender")

func (a *authors) field(name, line []byte) {
	a.current = nil
	switch {
	case bytes.EqualFold(name, fieldFrom):
		a.current = &a.from
	case bytes.EqualFold(name, fieldSender):
		a.current = &a.sender
	default:
		return
	}
	a.current.n++
	a.more(line[bytes.IndexByte(line, ':')+1:])
}

func (a *authors) more(piece []byte) {
	f := a.current
	if f == nil {
		return
	}
	if f.n > 1 || len(f.text)+len(piece) > maxAuthors {
		f.long = true // or once too often: refused in any case
		return
	}
	f.text = append(f.text, piece...)
}

var (
	refuseNoFrom   = reply(550, 5, 7, 1, "the message has no From field: it must say who sends it")
	refuseNoHeader = reply(550, 5, 7, 1, "a line of the header is no header field, or a blank line is missing behind the header: readers could see another sender")
)

// judge wants a clean end: other programs look for more fields behind a line
// that is none.
func (a *authors) judge(clean bool) error {
	switch {
	case !clean:
		return refuseNoHeader
	case a.from.n == 0:
		return refuseNoFrom
	}
	if err := a.check(&a.from, "From"); err != nil {
		return err
	}
	if a.sender.n == 0 {
		return nil
	}
	return a.check(&a.sender, "Sender")
}

func (a *authors) check(f *authorField, name string) error {
	bad := func(why string) error {
		return reply(550, 5, 7, 1, "the "+name+" field cannot be accepted: "+why)
	}
	switch {
	case f.n > 1:
		return bad("there is more than one")
	case f.long:
		return bad(fmt.Sprintf("longer than %d KiB", maxAuthors>>10))
	}
	list, err := parseAuthors(f.text)
	if err != nil {
		return bad(brief(err.Error(), 150))
	}
	for _, m := range list {
		if !a.may.may(m) {
			return a.may.refuse(m.Local+"@"+m.Domain, " ("+name+" field)")
		}
	}
	return nil
}

// authorParser reads addresses of RFC 5322 3.4 and RFC 6854. A display name may
// be in a charset that is not known here: nobody looks at it.
var authorParser = mail.AddressParser{WordDecoder: &mime.WordDecoder{
	CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil },
}}

var errNoMailbox = errors.New("it names no mailbox")

// parseAuthors reads the value of From or Sender as it came, folded.
func parseAuthors(text []byte) ([]Address, error) {
	list, err := authorParser.ParseList(strings.ReplaceAll(string(text), "\r\n", ""))
	switch {
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "mail: "))
	case len(list) == 0:
		return nil, errNoMailbox
	case len(list) > maxAuthor:
		return nil, fmt.Errorf("more than %d mailboxes", maxAuthor)
	}
	var out []Address
	for _, m := range list {
		at := strings.LastIndexByte(m.Address, '@') // the local part may be a quoted string
		domain, err := parseDomain(m.Address[at+1:], true)
		if err != nil && strings.HasPrefix(m.Address[at+1:], "[") {
			domain, err = parseLiteral(m.Address[at+1:])
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Address{Local: m.Address[:at], Domain: domain})
	}
	return out, nil
}
