package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"srvrelay/queue"
)

// Call is a connection on which an authenticated client has asked for the mail
// of its domains by ATRN (RFC 2645).
type Call struct {
	User     string
	Serves   func(domain string) bool // domain as A-labels, lower case
	Standing bool                     // the client waits for mail that is still to come
	// Turn answers the client and returns the connection on which it is the server
	// from then on; the caller closes it.
	Turn func(ctx context.Context) (net.Conn, error)
}

// Turner delivers over connections that clients have made. Call offers one:
// pending tells whether mail waits for it, and withdraw takes the offer back, which
// is too late (false) when Turn was called.
type Turner interface {
	Call(Call) (pending bool, withdraw func() bool)
}

// How long ATRN waits for mail. The first one of a connection asks for what is
// there. A client that repeats it after a 453 stands by: that is ours, RFC 2645
// knows nothing of it, and shorter than the 5 minutes that a client allows for a
// reply (RFC 5321 4.5.3.2).
const (
	turnNow     = 5 * time.Second
	turnStandby = 4 * time.Minute
)

// maxTurnDomains bounds the domains of one ATRN.
const maxTurnDomains = 100

var refuseNotYours = reply(450, 4, 7, 1, "request refused: not a domain of yours")

// offersTurn tells whether somebody might ask for mail here.
func (c *conn) offersTurn() bool {
	return c.listener.Mode == queue.Submission && len(c.set.homes) > 0 && c.set.Turner != nil
}

// turnDomains reads the argument of ATRN: domains of the user, or none for all
// of them. The result tells whether a domain is one of those.
func turnDomains(arg string, mine domainSet) (serves func(string) bool, r *smtp.SMTPError) {
	if arg == "" {
		return mine.has, nil
	}
	list := strings.Split(arg, ",")
	if len(list) > maxTurnDomains {
		return nil, reply(501, 5, 5, 4, fmt.Sprintf("ATRN takes %d domains at most", maxTurnDomains))
	}
	for i, d := range list {
		name, err := parseDomain(strings.TrimSpace(d), true)
		if err != nil {
			return nil, reply(501, 5, 5, 4, "ATRN takes domains, with a comma between them")
		}
		if !mine.has(name) {
			return nil, refuseNotYours
		}
		list[i] = name
	}
	return func(domain string) bool { return slices.Contains(list, domain) }, nil
}

// atrn is the ATRN command (RFC 2645 5.2).
func (c *conn) atrn(arg string) *smtp.SMTPError {
	mine, ok := c.set.homes[c.sess.user]
	if !ok {
		return refuseNotYours
	}
	serves, r := turnDomains(arg, mine)
	if r != nil {
		return r
	}
	if len(c.in.unread()) > 0 {
		return reply(503, 5, 5, 1, "nothing may follow ATRN before its reply") // RFC 2920: it changes who talks
	}
	ProbePeer(c.wire.Conn)
	t := &turn{conn: c, out: make(chan handedOver, 1)}
	standing := c.turns > 0
	c.turns++
	pending, withdraw := c.set.Turner.Call(Call{User: c.sess.user, Serves: serves, Standing: standing, Turn: t.take})
	wait := turnStandby
	if !standing {
		wait = turnNow
		if !pending {
			wait = 0
		}
	}
	return c.waitTurn(t, wait, withdraw)
}

// turn is the change of roles on a connection.
type turn struct {
	conn *conn
	out  chan handedOver // takes one
}

// handedOver is what comes of it.
type handedOver struct {
	net.Conn
	err error
}

var errClientGone = errors.New("the client has gone")

// take is Call.Turn. It ends the wait of the connection's goroutine, which answers.
func (t *turn) take(ctx context.Context) (net.Conn, error) {
	t.conn.stopWaiting()
	select {
	case got := <-t.out:
		return got.Conn, got.err
	case <-ctx.Done(): // the client does not take its answer
		go func() {
			if got := <-t.out; got.Conn != nil {
				_ = got.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// waitTurn waits until the connection is taken, the time is over, or the client
// says or does something.
func (c *conn) waitTurn(t *turn, wait time.Duration, withdraw func() bool) *smtp.SMTPError {
	var err error = os.ErrDeadlineExceeded
	if wait > 0 {
		c.arm(wait, true)
		err = c.in.more()
	}
	if withdraw() {
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || c.draining.Load() {
			return nil // the command loop meets it too, and says what is to be said
		}
		c.put("453 4.0.0 no mail for you now\r\n")
		return nil
	}
	// Turn is being called, and has ended our wait or finds it over.
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || c.draining.Load() {
		t.out <- handedOver{err: errClientGone}
		c.bye(reply(421, 4, 5, 0, "out of step: closing"))
		return nil
	}
	c.put("250 2.0.0 OK now reversing the connection\r\n")
	if err := c.flush(); err != nil {
		t.out <- handedOver{err: errClientGone}
		return nil
	}
	c.closing, c.muted = true, true
	over := c.handOver()
	t.out <- handedOver{Conn: c.stream()}
	<-over
	return nil
}
