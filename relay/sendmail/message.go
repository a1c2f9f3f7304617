package sendmail

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"strings"
	"time"
)

const (
	maxLine   = 1 << 20 // bytes of a line, with its end
	maxHeader = 1 << 20 // bytes of a header
	inMemory  = 1 << 20 // bytes of a body; of a larger one the rest is in a file
)

// Message is one message, read to its end and with CRLF everywhere.
type Message struct {
	header  []field
	body    spool // with the empty line before it
	has8Bit bool
}

// field is one field of the header, as it was written, with its line ends.
type field struct{ text string }

// is compares a field's name.
func (f field) is(names ...string) bool {
	own, _, _ := strings.Cut(f.text, ":")
	for _, n := range names {
		if strings.EqualFold(strings.TrimRight(own, " \t"), n) {
			return true
		}
	}
	return false
}

// value is what stands behind the colon.
func (f field) value() string {
	_, v, _ := strings.Cut(f.text, ":")
	return v
}

// Read reads a message with LF, CRLF or both as line ends. Unless keepDots, a line
// with a lone dot is its end, and nothing is read after it. All of it is read
// before anything is sent, as a slow program would keep the relay waiting. The
// caller closes the message.
func Read(r io.Reader, keepDots bool) (*Message, error) {
	m := &Message{}
	in := reader{from: bufio.NewReaderSize(r, maxLine), keepDots: keepDots}
	err := m.read(&in)
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Message) read(in *reader) error {
	line, err := in.next()
	if bytes.HasPrefix(line, []byte("From ")) { // of a mailbox file
		line, err = in.next()
	}
	size := 0
	for ; err == nil && m.headerLine(line); line, err = in.next() {
		if size += len(line); size > maxHeader {
			return &Failure{ExitData, fmt.Errorf("the header is longer than %d bytes", maxHeader)}
		}
	}
	if err == nil && !bytes.Equal(line, crlf) { // the header is over where no field begins
		_, err = m.body.Write(crlf)
	} else if errors.Is(err, io.EOF) {
		return m.wrote(m.body.Write(crlf))
	}
	for ; err == nil; line, err = in.next() {
		m.look(line)
		if err := m.wrote(m.body.Write(line)); err != nil {
			return err
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (m *Message) wrote(_ int, err error) error {
	if err != nil {
		return &Failure{ExitIO, fmt.Errorf("the message cannot be kept while it is read: %w", err)}
	}
	return nil
}

// headerLine takes a line that is part of the header.
func (m *Message) headerLine(line []byte) bool {
	n := len(m.header)
	switch {
	case n > 0 && (line[0] == ' ' || line[0] == '\t'):
		m.header[n-1].text += string(line)
	case beginsField(line):
		m.header = append(m.header, field{string(line)})
	default:
		return false
	}
	m.look(line)
	return true
}

// beginsField tells a line that begins a field (RFC 5322 2.2; 4.5 has blanks
// before the colon).
func beginsField(line []byte) bool {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	return ok && len(name) > 0 && !bytes.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' })
}

// look notes what the next server must know of a line.
func (m *Message) look(line []byte) {
	m.has8Bit = m.has8Bit || bytes.ContainsFunc(line, func(c rune) bool { return c >= 0x80 })
}

// Close frees the file of a large body.
func (m *Message) Close() { m.body.close() }

// add puts a field before the others.
func (m *Message) add(name, value string) {
	m.header = append([]field{{name + ": " + value + "\r\n"}}, m.header...)
	m.look([]byte(value))
}

func (m *Message) has(name string) bool {
	for _, f := range m.header {
		if f.is(name) {
			return true
		}
	}
	return false
}

// recipients are those of To, Cc and Bcc or, in a message that is sent on, of
// the same with Resent- before them.
func (m *Message) recipients() ([]string, error) {
	names := []string{"To", "Cc", "Bcc"}
	if m.has("Resent-To") || m.has("Resent-Cc") || m.has("Resent-Bcc") {
		names = []string{"Resent-To", "Resent-Cc", "Resent-Bcc"}
	}
	var all []string
	for _, f := range m.header {
		if !f.is(names...) {
			continue
		}
		addrs, err := Addresses(f.value())
		if err != nil {
			name, _, _ := strings.Cut(f.text, ":")
			return nil, fmt.Errorf("the field %s: %w", name, err)
		}
		all = append(all, addrs...)
	}
	return all, nil
}

// dropBcc takes the blind copies out of the header.
func (m *Message) dropBcc() {
	kept := m.header[:0]
	for _, f := range m.header {
		if !f.is("Bcc", "Resent-Bcc") {
			kept = append(kept, f)
		}
	}
	m.header = kept
}

// complete adds what a message must have (RFC 5322 3.6) and has not, and to names
// without a domain, which mean nothing elsewhere, the domain of this machine.
func (m *Message) complete(from mail.Address, domain string, now time.Time) {
	for i, f := range m.header {
		if f.is("From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc") {
			m.header[i].text = qualify(f.text, domain)
		}
	}
	if !m.has("Message-ID") {
		m.add("Message-ID", "<"+rand.Text()+"@"+domain+">")
	}
	if !m.has("From") {
		m.add("From", from.String())
	}
	if !m.has("Date") {
		m.add("Date", now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	}
}

// qualify adds the domain to the names of a field that have none. A field that
// cannot be understood stays as it is.
func qualify(text, domain string) string {
	name, value, _ := strings.Cut(text, ":")
	all, err := scan(value)
	if err != nil {
		return text
	}
	var out strings.Builder
	done := 0
	for _, f := range all {
		if f.bare() {
			out.WriteString(value[done:f.end] + "@" + domain)
			done = f.end
		}
	}
	return name + ":" + out.String() + value[done:]
}

// head is the header in bytes.
func (m *Message) head() []byte {
	var b bytes.Buffer
	for _, f := range m.header {
		b.WriteString(f.text)
	}
	return b.Bytes()
}

// open returns the message and its size in bytes.
func (m *Message) open() (io.Reader, int64, error) {
	head := m.head()
	body, size, err := m.body.open()
	return io.MultiReader(bytes.NewReader(head), body), int64(len(head)) + size, err
}

var crlf = []byte("\r\n")

// reader reads lines and gives them CRLF.
type reader struct {
	from     *bufio.Reader
	keepDots bool
	number   int
	line     []byte
}

// next returns the next line, valid until the one after it, or io.EOF at the
// end of the message. CRs before a line end are part of it, as what a program
// converts twice has two; other CRs no server takes.
func (r *reader) next() ([]byte, error) {
	raw, err := r.from.ReadSlice('\n')
	r.number++
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, &Failure{ExitData, fmt.Errorf("line %d is longer than %d bytes", r.number, maxLine)}
	case err != nil && !errors.Is(err, io.EOF):
		return nil, &Failure{ExitIO, fmt.Errorf("reading the message: %w", err)}
	case len(raw) == 0:
		return nil, io.EOF
	}
	text := bytes.TrimRight(bytes.TrimSuffix(raw, []byte("\n")), "\r")
	if bytes.IndexByte(text, '\r') >= 0 {
		return nil, &Failure{ExitData, fmt.Errorf("line %d has a CR (carriage return) in the middle, which mail cannot have", r.number)}
	}
	if !r.keepDots && len(text) == 1 && text[0] == '.' {
		return nil, io.EOF
	}
	r.line = append(append(r.line[:0], text...), crlf...)
	return r.line, nil
}

// spool keeps bytes in memory, and from inMemory on in a file without a name.
type spool struct {
	head bytes.Buffer
	file *os.File
	out  *bufio.Writer
	size int64 // of what is in the file
}

func (s *spool) Write(b []byte) (int, error) {
	if s.file == nil && s.head.Len()+len(b) <= inMemory {
		return s.head.Write(b)
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "srvrelay-sendmail-")
		if err != nil {
			return 0, err
		}
		_ = os.Remove(f.Name()) // it lives as long as it is open
		s.file, s.out = f, bufio.NewWriter(f)
	}
	s.size += int64(len(b))
	return s.out.Write(b)
}

// open returns all of it, and its size.
func (s *spool) open() (io.Reader, int64, error) {
	if s.file == nil {
		return bytes.NewReader(s.head.Bytes()), int64(s.head.Len()), nil
	}
	if err := s.out.Flush(); err != nil {
		return nil, 0, err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, 0, err
	}
	return io.MultiReader(bytes.NewReader(s.head.Bytes()), s.file), int64(s.head.Len()) + s.size, nil
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
	}
}
