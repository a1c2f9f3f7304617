package pebblestore

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"srvrelay/queue"
)

// The record of a message that is gone is packed: one is written for every message,
// and JSON would take twice the space and four times the CPU. It has no names of
// fields, so that a change of them needs another packVersion beside this one.
const packVersion = 1

// packer writes fields one behind the other.
type packer struct{ b []byte }

func (p *packer) num(n int64)      { p.b = binary.AppendVarint(p.b, n) }
func (p *packer) time(t time.Time) { p.num(nano(t)) }
func (p *packer) text(s string) {
	p.b = binary.AppendUvarint(p.b, uint64(len(s)))
	p.b = append(p.b, s...)
}

// flags packs up to 8 of them.
func (p *packer) flags(all ...bool) {
	var f byte
	for i, set := range all {
		if set {
			f |= 1 << i
		}
	}
	p.b = append(p.b, f)
}

// unpacker reads what packer has written. After a mistake it reads zeros.
type unpacker struct {
	b   []byte
	bad bool
}

func (u *unpacker) num() int64 {
	n, size := binary.Varint(u.b)
	if size <= 0 {
		u.bad, u.b = true, nil
		return 0
	}
	u.b = u.b[size:]
	return n
}

func (u *unpacker) time() time.Time { return fromNano(u.num()) }

func (u *unpacker) text() string {
	n, size := binary.Uvarint(u.b)
	if size <= 0 || n > uint64(len(u.b)-size) {
		u.bad, u.b = true, nil
		return ""
	}
	s := string(u.b[size : size+int(n)])
	u.b = u.b[size+int(n):]
	return s
}

func (u *unpacker) flags(all ...*bool) {
	if len(u.b) == 0 {
		u.bad = true
		return
	}
	for i, f := range all {
		*f = u.b[0]&(1<<i) != 0
	}
	u.b = u.b[1:]
}

// count reads how many there are of something, which takes a byte each at least.
func (u *unpacker) count() int {
	n := u.num()
	if n < 0 || n > int64(len(u.b)) {
		u.bad, u.b = true, nil
		return 0
	}
	return int(n)
}

// packPast packs all of a record but the ID, which is in its key.
func packPast(m *queue.Message, gone time.Time) []byte {
	p := &packer{b: make([]byte, 1, 512)}
	p.b[0] = packVersion
	p.time(gone)
	p.envelope(&m.Envelope)
	p.num(int64(len(m.Recipients)))
	for i := range m.Recipients {
		p.recipient(&m.Recipients[i])
	}
	p.num(int64(len(m.Attempts)))
	for i := range m.Attempts {
		p.attempt(&m.Attempts[i])
	}
	notes := ""
	if len(m.Notes) > 0 { // few have some
		notes = string(mustJSON(m.Notes))
	}
	p.text(notes)
	return p.b
}

func unpackPast(b []byte) (m *queue.Message, gone time.Time, err error) {
	if len(b) == 0 || b[0] != packVersion {
		return nil, gone, errors.New("it is of another version")
	}
	u, m := &unpacker{b: b[1:]}, new(queue.Message)
	gone = u.time()
	u.envelope(&m.Envelope)
	m.Recipients = make([]queue.Recipient, u.count())
	for i := range m.Recipients {
		u.recipient(&m.Recipients[i])
	}
	for range u.count() {
		m.Attempts = append(m.Attempts, u.attempt())
	}
	if notes := u.text(); notes != "" {
		err = json.Unmarshal([]byte(notes), &m.Notes)
	}
	if err == nil && (u.bad || len(u.b) > 0) {
		err = fmt.Errorf("%d bytes are not what was written", len(b))
	}
	return m, gone, err
}

func (p *packer) envelope(e *queue.Envelope) {
	addr, _ := e.Client.Addr.MarshalBinary() // it has no error to return
	for _, s := range [...]string{e.Sender, string(e.Mode), string(addr), e.Client.Helo, e.Client.User, e.Client.TLS, e.Ret, e.EnvID, e.MessageID} {
		p.text(s)
	}
	p.time(e.Received)
	p.num(e.Size)
	p.flags(e.Has8Bit, e.UTF8)
}

func (u *unpacker) envelope(e *queue.Envelope) {
	var mode, addr string
	for _, s := range [...]*string{&e.Sender, &mode, &addr, &e.Client.Helo, &e.Client.User, &e.Client.TLS, &e.Ret, &e.EnvID, &e.MessageID} {
		*s = u.text()
	}
	e.Mode = queue.Mode(mode)
	if err := e.Client.Addr.UnmarshalBinary([]byte(addr)); err != nil {
		u.bad, e.Client.Addr = true, netip.AddrPort{}
	}
	e.Received, e.Size = u.time(), u.num()
	u.flags(&e.Has8Bit, &e.UTF8)
}

func (p *packer) recipient(r *queue.Recipient) {
	domain := r.Domain
	at := len(r.Address) - len(domain) - 1
	same := at >= 0 && r.Address[at] == '@' && strings.HasSuffix(r.Address, domain) // nearly always
	if same {
		domain = ""
	}
	p.flags(same, r.Delayed, r.Unreported)
	for _, s := range [...]string{
		r.Address, domain, r.ORcpt, string(r.State), r.SameFirst,
		r.Last.Code, r.Last.Text, r.Last.Reply, r.Last.MTA, r.Last.Target, r.Last.Reason,
	} {
		p.text(s)
	}
	p.num(int64(r.Notify))
	p.num(int64(r.Attempts))
	p.time(r.Next)
	p.time(r.Settled)
	p.time(r.Released)
}

func (u *unpacker) recipient(r *queue.Recipient) {
	var same bool
	var state string
	u.flags(&same, &r.Delayed, &r.Unreported)
	for _, s := range [...]*string{
		&r.Address, &r.Domain, &r.ORcpt, &state, &r.SameFirst,
		&r.Last.Code, &r.Last.Text, &r.Last.Reply, &r.Last.MTA, &r.Last.Target, &r.Last.Reason,
	} {
		*s = u.text()
	}
	if same {
		r.Domain = r.Address[strings.LastIndexByte(r.Address, '@')+1:]
	}
	r.State, r.Notify, r.Attempts = queue.State(state), queue.Notify(u.num()), int(u.num())
	r.Next, r.Settled, r.Released = u.time(), u.time(), u.time()
}

func (p *packer) attempt(a *queue.Attempt) {
	p.time(a.Time)
	for _, s := range [...]string{a.Hop, a.Plan, a.Target, a.TLS} {
		p.text(s)
	}
	p.num(int64(len(a.Results)))
	for _, line := range a.Results {
		p.text(line)
	}
}

func (u *unpacker) attempt() (a queue.Attempt) {
	a.Time = u.time()
	for _, s := range [...]*string{&a.Hop, &a.Plan, &a.Target, &a.TLS} {
		*s = u.text()
	}
	for range u.count() {
		a.Results = append(a.Results, u.text())
	}
	return a
}
