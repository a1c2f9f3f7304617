package sink

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// errEnd ends a session after the last reply has had its chance to arrive;
// errDrop ends it at once.
var (
	errEnd  = errors.New("sink: end of the session")
	errDrop = errors.New("sink: dropped")
)

// lingerTime bounds the wait for a client that has been told to go.
const lingerTime = 2 * time.Second

// session is one connection.
type session struct {
	srv     *Server
	conn    net.Conn
	br      *bufio.Reader
	bw      *bufio.Writer
	stopped chan struct{}
	secure  bool
	lmtp    bool
	helo    string
	user    string // who has authenticated, and how
	mech    string
	size    int // enforced SIZE, 0 = none
	taken   int // messages of this connection

	open  bool // a MAIL was accepted
	mail  Message
	asked int // RCPTs of the transaction
}

func newSession(srv *Server, c net.Conn, stopped chan struct{}) *session {
	s := &session{srv: srv, stopped: stopped, lmtp: srv.current().take("lmtp", nil) != nil}
	s.wire(c)
	return s
}

func (s *session) wire(c net.Conn) {
	s.conn, s.br, s.bw = c, bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
}

// run talks until either side ends it.
func (s *session) run() {
	if s.srv.current().take("implicit-tls", nil) != nil {
		if s.handshake() != nil {
			return
		}
	}
	err := s.answer("banner", s.act("banner"), "220 "+s.srv.opts.Hostname+" ESMTP sink")
	for err == nil {
		var line string
		if line, err = s.readLine(); err == nil {
			s.srv.note("C: ", shown(line))
			err = s.command(line)
		}
	}
	if s.bw.Flush() == nil && errors.Is(err, errEnd) {
		s.linger()
	}
}

// linger closes our direction only and reads on, as closing over unread data
// would make the system throw away replies that the client has not read yet.
func (s *session) linger() {
	c := s.conn
	if tc, ok := c.(*tls.Conn); ok {
		_ = tc.CloseWrite()
		c = tc.NetConn()
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(lingerTime))
		_, _ = io.Copy(io.Discard, c)
	}
}

// readLine reads a command; replies leave when there is nothing more to read.
func (s *session) readLine() (string, error) {
	if s.br.Buffered() == 0 {
		if err := s.bw.Flush(); err != nil {
			return "", err
		}
	}
	raw, err := s.br.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(raw), "\r\n"), nil
}

// say sends a reply's bytes.
func (s *session) say(text string) error {
	if !s.srv.opts.Discard {
		for _, l := range strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n") {
			s.srv.note("S: ", l)
		}
	}
	_, err := s.bw.WriteString(text)
	return err
}

func (s *session) act(verb string) action { return s.srv.current().act(verb, nil) }

// answer does what the script says, or else says the usual reply.
func (s *session) answer(verb string, a action, standard string) error {
	var err error
	switch a.kind {
	case drop, dropUnstored:
		return errDrop
	case silent:
		_ = s.bw.Flush()
		_, _ = io.Copy(io.Discard, s.br) // until the client, or Stop, has enough
		return errDrop
	case delay:
		err = s.pause(a.delay)
		fallthrough
	case usual:
		if err == nil {
			err = s.say(standard + "\r\n")
		}
	default:
		err = s.say(a.reply)
		if err == nil && strings.HasPrefix(a.reply, "421") {
			err = errEnd
		}
	}
	if err == nil && s.srv.current().take("close", func(r *rule) bool { return r.arg == verb }) != nil {
		return errEnd
	}
	return err
}

func (s *session) pause(d time.Duration) error {
	if err := s.bw.Flush(); err != nil {
		return err
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-s.stopped:
		return errEnd
	}
}

func (s *session) command(line string) error {
	verb, rest := cut(line)
	verb = strings.ToUpper(verb)
	if hello := strings.HasSuffix(verb, "HLO") || verb == "HELO"; hello && s.lmtp != (verb == "LHLO") {
		return s.say("500 5.5.1 wrong protocol: this is " + map[bool]string{false: "SMTP", true: "LMTP"}[s.lmtp] + "\r\n")
	}
	switch verb {
	case "EHLO", "LHLO":
		return s.ehlo(rest)
	case "HELO":
		s.helo = rest
		s.reset()
		return s.answer("helo", s.act("helo"), "250 "+s.srv.opts.Hostname)
	case "STARTTLS":
		return s.startTLS()
	case "AUTH":
		return s.auth(rest)
	case "MAIL":
		return s.from(rest)
	case "RCPT":
		return s.rcpt(rest)
	case "DATA":
		return s.data()
	case "RSET":
		s.reset()
		return s.answer("rset", s.act("rset"), "250 2.0.0 reset")
	case "NOOP":
		return s.say("250 2.0.0 ok\r\n")
	case "QUIT":
		_ = s.answer("quit", s.act("quit"), "221 2.0.0 bye")
		return errEnd
	}
	return s.say("502 5.5.1 command not implemented\r\n")
}

func (s *session) reset() {
	s.open, s.asked = false, 0
	s.mail = Message{}
}

func (s *session) ehlo(name string) error {
	s.helo = name
	s.reset()
	list, size := s.srv.current().extensions(s.secure)
	s.size = size
	text := s.srv.opts.Hostname
	for _, e := range list {
		text += "\r\n250-" + e
	}
	text = "250-" + text
	last := strings.LastIndex(text, "250-")
	return s.answer("ehlo", s.act("ehlo"), text[:last]+"250 "+text[last+4:])
}

func (s *session) startTLS() error {
	a := s.act("starttls")
	if a.kind == fail {
		_ = s.say("220 2.0.0 go ahead\r\nthis is not TLS\r\n")
		return errEnd
	}
	if err := s.answer("starttls", a, "220 2.0.0 go ahead"); err != nil || !a.ok() {
		return err
	}
	if err := s.bw.Flush(); err != nil {
		return err
	}
	if s.br.Buffered() > 0 {
		return errEnd // commands before the handshake
	}
	return s.handshake()
}

func (s *session) handshake() error {
	tc, err := s.srv.handshake(s.conn)
	if err != nil {
		s.srv.note("S: ", fmt.Sprintf("[TLS: %v]", err))
		return err
	}
	s.secure, s.helo, s.user, s.mech = true, "", "", ""
	s.reset()
	s.wire(tc)
	return nil
}

func (s *session) from(rest string) error {
	from, params, ok := path(rest, "FROM:")
	a := s.act("mail")
	switch {
	case !ok:
		return s.say("501 5.5.4 want MAIL FROM:<address>\r\n")
	case s.open:
		return s.say("503 5.5.1 nested MAIL\r\n")
	case s.user == "" && s.srv.current().take("auth-required", nil) != nil:
		return s.say("530 5.7.0 authentication required\r\n")
	case a.kind == usual && s.size > 0 && declared(params) > s.size:
		return s.say("552 5.3.4 message too big\r\n")
	}
	s.open = a.ok()
	s.mail = Message{From: from, MailParams: params, TLS: s.secure, LMTP: s.lmtp, Helo: s.helo, User: s.user, Mech: s.mech}
	return s.answer("mail", a, "250 2.1.0 sender ok")
}

func (s *session) rcpt(rest string) error {
	to, params, ok := path(rest, "TO:")
	switch {
	case !ok:
		return s.say("501 5.5.4 want RCPT TO:<address>\r\n")
	case !s.open:
		return s.say("503 5.5.1 need MAIL\r\n")
	}
	s.asked++
	a := s.srv.current().act("rcptmax", func(r *rule) bool { return s.asked > r.n })
	if a.kind == usual {
		a = s.srv.current().act("rcpt", func(r *rule) bool { return matches(r.arg, to) })
	}
	if a.ok() {
		s.mail.Rcpts = append(s.mail.Rcpts, Rcpt{To: to, Params: params})
	}
	return s.answer("rcpt", a, "250 2.1.5 recipient ok")
}

// path takes "FROM:<address> parameters" apart.
func path(s, prefix string) (addr, params string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", "", false
	}
	s = strings.TrimLeft(s[len(prefix):], " ")
	if !strings.HasPrefix(s, "<") {
		return "", "", false
	}
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return s[1:i], strings.TrimSpace(s[i+1:]), true
		}
	}
	return "", "", false
}

// declared is the value of the parameter SIZE, 0 without one.
func declared(params string) int {
	for _, p := range strings.Fields(params) {
		if v, ok := strings.CutPrefix(strings.ToUpper(p), "SIZE="); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}

// finished is what happens at the end of a message.
func (s *session) finished() error {
	m := s.mail
	s.reset()
	m.Time = time.Now()
	if a := s.act("slow-dot"); a.kind == delay {
		if err := s.pause(a.delay); err != nil {
			return err
		}
	}
	if err := s.store(m); err != nil {
		return err
	}
	if s.srv.current().take("421", func(r *rule) bool { return s.taken >= r.n }) != nil {
		_ = s.say("421 4.4.2 closing an idle connection\r\n")
		return errEnd
	}
	return nil
}

// store keeps a message and answers its end, in LMTP for each recipient.
func (s *session) store(m Message) error {
	if s.lmtp {
		return s.delivered(m)
	}
	a := s.act("dot")
	if a.kind == usual && s.size > 0 && m.Size > s.size {
		return s.say("552 5.3.4 message too big\r\n")
	}
	if a.ok() || a.kind == drop {
		s.srv.store(m)
		s.taken++
	}
	return s.answer("dot", a, fmt.Sprintf("250 2.0.0 stored %d bytes", m.Size))
}
