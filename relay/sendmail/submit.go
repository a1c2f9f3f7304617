package sendmail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"slices"
	"strings"
	"time"

	"srvrelay/delivery/smtpclient"
)

// Exit codes of sysexits.h.
const (
	ExitUsage       = 64
	ExitData        = 65 // the message is wrong
	ExitNoUser      = 67 // a recipient is refused
	ExitUnavailable = 69 // the relay refuses everything
	ExitIO          = 74
	ExitTempFail    = 75 // the same again later may work
	ExitNoPerm      = 77 // not from here, or not by this sender
)

// Failure is why a message, or a part of its recipients, is not the relay's.
type Failure struct {
	Code int // one of the Exit constants
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Client knows the machine that mail is handed in from.
type Client struct {
	Server   string  // the relay: HOST:PORT
	User     string  // who calls: a name without a domain
	FullName string  // theirs, "" when unknown
	Aliases  Aliases // of the names of this machine
}

// helo is the client's name in EHLO; it is on the relay's machine.
const helo = "localhost"

// dialLimit bounds the connection; the relay is on this machine.
const dialLimit = 10 * time.Second

// Submit hands one message in and returns the relay's last words. An error is a
// *Failure and says what was sent nevertheless, which without such words is nothing.
func (c Client) Submit(ctx context.Context, o Options, m *Message) (said string, err error) {
	to := o.Recipients
	if o.FromHeader {
		found, err := m.recipients()
		if err != nil {
			return "", &Failure{ExitData, err}
		}
		m.dropBcc()
		to = append(to, found...)
	}
	if to = c.Aliases.resolve(to); len(to) == 0 {
		return "", &Failure{ExitUsage, errors.New("no recipient: give addresses as arguments, or -t and a field To in the message")}
	}
	s, err := c.connect(ctx)
	if err != nil {
		return "", err
	}
	defer s.Close()
	tx, err := c.transaction(o, m, to, serverName(s.Banner()))
	if err != nil {
		return "", err
	}
	if said, err = send(ctx, s, tx); err == nil {
		s.Quit()
	}
	return said, err
}

// connect opens a session.
func (c Client) connect(ctx context.Context) (*smtpclient.Session, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	s := smtpclient.New(conn, helo, smtpclient.Timeouts{Quit: 5 * time.Second})
	if err := s.Greet(ctx); err != nil {
		s.Close()
		return nil, failed(err.Reply, fmt.Errorf("%s: %w", c.Server, err), ExitUnavailable)
	}
	return s, nil
}

func (c Client) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialLimit}
	conn, err := d.DialContext(ctx, "tcp", c.Server)
	if err != nil {
		return nil, &Failure{ExitTempFail, fmt.Errorf("no relay answers on %s: %w", c.Server, errors.Unwrap(err))}
	}
	return conn, nil
}

// serverName is how the relay calls itself in its banner (RFC 5321 4.2): the
// domain of this machine's mail. So it is the same for users who may read
// the configuration and for those who may not.
func serverName(banner smtpclient.Reply) string {
	if len(banner.Lines) > 0 {
		if words := strings.Fields(banner.Lines[0]); len(words) > 0 {
			return words[0]
		}
	}
	return "localhost"
}

// transaction is what is sent to the relay.
func (c Client) transaction(o Options, m *Message, to []string, domain string) (*smtpclient.Mail, error) {
	sender, author := o.Sender, mail.Address{Name: o.Name, Address: c.User + "@" + domain}
	if !o.HasSender {
		sender = c.User
	}
	if sender != "" && !strings.Contains(sender, "@") {
		sender += "@" + domain
	}
	if sender != "" {
		author.Address = sender
	}
	if author.Name == "" && !o.HasSender {
		author.Name = c.FullName
	}
	m.complete(author, domain, time.Now())
	body, size, err := m.open()
	if err != nil {
		return nil, &Failure{ExitIO, err}
	}
	tx := &smtpclient.Mail{From: sender, Size: size, Has8Bit: m.has8Bit, UTF8: !ascii(sender), Ret: o.Ret, EnvID: o.EnvID, Body: body}
	for _, addr := range to {
		tx.UTF8 = tx.UTF8 || !ascii(addr)
		tx.Rcpts = append(tx.Rcpts, smtpclient.Rcpt{To: addr, Notify: o.Notify})
	}
	return tx, nil
}

func ascii(s string) bool { return !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x80 }) }

// send makes the transaction. When a recipient is put off, nothing is sent, so
// that the caller can do the same again without sending twice; when one is
// refused for good, the others get the message all the same.
func send(ctx context.Context, s *smtpclient.Session, tx *smtpclient.Mail) (said string, err error) {
	if lacks := s.Ext().Lacks(tx); lacks == "SIZE" {
		return "", &Failure{ExitData, fmt.Errorf("the message has %d bytes, and the relay takes %d at most", tx.Size, s.Ext().Size)}
	} else if lacks != "" {
		return "", &Failure{ExitData, fmt.Errorf("the message needs %s, which the server does not offer", lacks)}
	}
	if len(tx.Rcpts) > 1 {
		if f := judge(tx, s.Ask(ctx, tx)); f != nil && f.Code == ExitTempFail {
			return "", f
		}
	}
	res := s.Send(ctx, tx)
	f := judge(tx, res)
	if res.Stage == smtpclient.StageDot && res.Final != nil && res.Final.Code/100 == 2 {
		said = res.Final.String()
	}
	if f == nil {
		return said, nil
	}
	return said, f
}

// judge says what is wrong with the result of a transaction, nil for nothing.
func judge(tx *smtpclient.Mail, res smtpclient.Result) *Failure {
	final := res.Final != nil && res.Final.Code >= 400
	// Where all are refused, what the server says to DATA is a consequence; and where the
	// sender is, what it says to the recipients.
	if f := refusals(tx, res.Rcpt); f != nil && (!final || res.Stage != smtpclient.StageMail && !anyTaken(res.Rcpt)) {
		return f
	}
	switch {
	case final:
		what := "the message"
		if res.Stage == smtpclient.StageMail {
			what = "the sender <" + tx.From + ">"
		}
		return failed(res.Final, fmt.Errorf("%s is refused: %s", what, res.Final), ExitData)
	case res.Err == nil:
		return nil
	case errors.Is(res.Err, smtpclient.ErrInput):
		return &Failure{ExitData, res.Err}
	case errors.Is(res.Err, smtpclient.ErrBody):
		return &Failure{ExitIO, res.Err}
	case res.Stage == smtpclient.StageDot:
		return &Failure{ExitTempFail, fmt.Errorf("the connection ended behind the message, so that the relay may have it or not: %w", res.Err)}
	}
	return &Failure{ExitTempFail, res.Err}
}

func anyTaken(replies []*smtpclient.Reply) bool {
	return slices.ContainsFunc(replies, func(r *smtpclient.Reply) bool { return r != nil && r.Code < 400 })
}

// refusals gathers what was said against recipients. One that is put off
// decides the exit code.
func refusals(tx *smtpclient.Mail, replies []*smtpclient.Reply) *Failure {
	var worst *Failure
	var texts []string
	for i, r := range replies {
		if r == nil || r.Code < 400 {
			continue
		}
		texts = append(texts, fmt.Sprintf("<%s> is refused: %s", tx.Rcpts[i].To, r)+advice(tx.Rcpts[i].To, r))
		if f := failed(r, nil, ExitNoUser); worst == nil || f.Code == ExitTempFail {
			worst = f
		}
	}
	if worst != nil {
		worst.Err = errors.New(strings.Join(texts, "; "))
	}
	return worst
}

// advice is what to do about mail for a name of this machine that nobody gets.
func advice(to string, r *smtpclient.Reply) string {
	if to == postmaster && r.Permanent() {
		return " (who gets the mail for names of this machine? Set postmaster in the configuration, or write 'root: you@example.org' to /etc/aliases)"
	}
	return ""
}

// failed makes a failure of a reply, or of its lack, which is a connection that
// failed; permanent is its exit code when it is for good and has nothing to do with
// who may send.
func failed(r *smtpclient.Reply, err error, permanent int) *Failure {
	switch {
	case r == nil || r.Temporary():
		return &Failure{ExitTempFail, err}
	case strings.HasPrefix(r.Enhanced, "5.7.") || r.Code == 530:
		return &Failure{ExitNoPerm, err}
	}
	return &Failure{permanent, err}
}

// Speak connects in and out with the relay, for programs that speak SMTP to the
// standard input of sendmail -bs. Without a relay they are told so in SMTP.
func (c Client) Speak(ctx context.Context, in io.Reader, out io.Writer) error {
	conn, err := c.dial(ctx)
	if err != nil {
		fmt.Fprint(out, "421 4.3.2 no relay is running on this machine, try again later\r\n")
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(conn, in)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}()
	if _, err := io.Copy(out, conn); err != nil {
		return &Failure{ExitTempFail, fmt.Errorf("%s: %w", c.Server, err)}
	}
	return nil
}
