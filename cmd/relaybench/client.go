//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"
)

// client is one connection of the generator: SMTP by hand, with pipelining
// where it is offered, and a message that is prepared once.
type client struct {
	conn       net.Conn
	pipelining bool
	buf        []byte // what is read and not looked at
	space      []byte
	out        []byte
}

// replyLimit is how long a relay may take for a reply.
const replyLimit = 2 * time.Minute

// refusal is a reply that is no good: the message was not taken.
type refusal struct{ text string }

// answer is the last line of a reply, good until the next one is read.
type answer struct {
	code int
	line []byte
}

func (r *refusal) Error() string { return "refused: " + r.text }

// greet waits for the banner and says EHLO.
func greet(conn net.Conn) (*client, error) {
	c := &client{conn: conn, space: make([]byte, 4<<10)}
	c.extend()
	if _, err := c.expect(220); err != nil {
		return nil, fmt.Errorf("banner: %w", err)
	}
	if _, err := conn.Write([]byte("EHLO client." + suffix + "\r\n")); err != nil {
		return nil, err
	}
	text, err := c.expect(250)
	if err != nil {
		return nil, fmt.Errorf("EHLO: %w", err)
	}
	c.pipelining = bytes.Contains(bytes.ToUpper([]byte(text)), []byte("PIPELINING"))
	return c, nil
}

// extend gives the relay its time for what comes now.
func (c *client) extend() { c.conn.SetDeadline(time.Now().Add(replyLimit)) }

// send makes one transaction. sent is when the last byte of the message had
// been written. After a refusal the connection is good for another one, after
// any other error it is not.
func (c *client) send(mail []byte, rcpts [][]byte, m message) (sent time.Time, err error) {
	if err := c.envelope(mail, rcpts); err != nil {
		return time.Time{}, err
	}
	if _, err := c.conn.Write(m.text); err != nil {
		return time.Time{}, err
	}
	sent = time.Now()
	a, err := c.reply()
	if err == nil && a.code != 250 {
		err = &refusal{string(a.line)}
	}
	return sent, err
}

// envelope says MAIL, the RCPTs and DATA, at once where that is allowed.
func (c *client) envelope(mail []byte, rcpts [][]byte) error {
	var bad *refusal
	look := func() (code int, err error) {
		a, err := c.reply()
		if err == nil && a.code/100 > 3 && bad == nil {
			bad = &refusal{string(a.line)}
		}
		return a.code, err
	}
	c.out = append(c.out[:0], mail...)
	commands := 1
	for i := range len(rcpts) + 1 {
		if !c.pipelining {
			if _, err := c.conn.Write(c.out); err != nil {
				return err
			}
			if _, err := look(); err != nil {
				return err
			}
			c.out, commands = c.out[:0], 0
			if bad != nil {
				return c.abort(bad)
			}
		}
		if i < len(rcpts) {
			c.out = append(c.out, rcpts[i]...)
		} else {
			c.out = append(c.out, "DATA\r\n"...)
		}
		commands++
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	code := 0
	for range commands {
		var err error
		if code, err = look(); err != nil {
			return err
		}
	}
	switch {
	case code == 354 && bad != nil: // some recipients only: that is no measurement
		return errors.New("some recipients " + bad.Error())
	case code != 354:
		return c.abort(bad)
	}
	return nil
}

// abort clears what the relay remembers of a transaction.
func (c *client) abort(bad *refusal) error {
	if _, err := c.conn.Write([]byte("RSET\r\n")); err != nil {
		return err
	}
	if _, err := c.expect(250); err != nil {
		return err
	}
	return bad
}

// quit ends the session politely; the connection is still to be closed.
func (c *client) quit() {
	if _, err := c.conn.Write([]byte("QUIT\r\n")); err == nil {
		_, _ = c.expect(221) // it is over either way
	}
}

// expect reads a reply that must have this code, and returns all of its text.
func (c *client) expect(want int) (string, error) {
	var text []byte
	for {
		line, err := c.line()
		if err != nil {
			return "", err
		}
		text = append(text, line...)
		if len(line) < 4 || line[3] != '-' {
			if code := codeOf(line); code != want {
				return "", fmt.Errorf("%q and not %d", text, want)
			}
			return string(text), nil
		}
	}
}

// reply reads a reply.
func (c *client) reply() (answer, error) {
	for {
		line, err := c.line()
		if err != nil {
			return answer{}, err
		}
		if len(line) < 4 || line[3] != '-' {
			if codeOf(line) == 421 {
				return answer{}, fmt.Errorf("the relay closes: %q", line)
			}
			return answer{codeOf(line), line}, nil
		}
	}
}

func codeOf(line []byte) (code int) {
	if len(line) < 3 {
		return 0
	}
	for _, d := range line[:3] {
		if d < '0' || d > '9' {
			return 0
		}
		code = code*10 + int(d-'0')
	}
	return code
}

func (c *client) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			line := c.buf[:i+1]
			c.buf = c.buf[i+1:]
			return line, nil
		}
		if len(c.buf) == len(c.space) {
			return nil, errors.New("a reply without an end")
		}
		n := copy(c.space, c.buf)
		k, err := c.conn.Read(c.space[n:])
		if err != nil {
			return nil, err
		}
		c.buf = c.space[:n+k]
	}
}
