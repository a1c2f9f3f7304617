// Package smtpclient owns the client side of one SMTP connection: greeting,
// EHLO, STARTTLS, AUTH and mail transactions, in SMTP or LMTP, over a net.Conn
// that somebody else has dialled (RFC 5321, 2920, 3207, 4954, 1870, 6152, 6531,
// 3461, 2033). It bounds whatever a
// server may say, and it judges nothing: it reports the stage that was reached
// and the replies, per recipient. It does not know targets, retries or queues.
package smtpclient

import (
	"fmt"
	"io"
	"strconv"
	"time"
)

// Stage is how far a session had got when something happened.
type Stage uint8

const (
	StageConnect  Stage = iota // before the server said anything
	StageBanner                // waiting for, or refused in, the 220
	StageHello                 // EHLO or HELO
	StageStartTLS              // STARTTLS and the handshake
	StageAuth                  // AUTH
	StageMail                  // MAIL FROM
	StageRcpt                  // RCPT TO
	StageData                  // DATA, before the 354
	StageBody                  // while the message is sent
	StageDot                   // the final dot may have left; its reply counts
	StageTurn                  // ATRN
)

func (s Stage) String() string {
	return [...]string{"connect", "banner", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "body", "end of data", "ATRN"}[s]
}

// Reply is one complete reply of a server, made safe: printable, one line for
// each line of the server, and bounded in length.
type Reply struct {
	Code     int      // 200..599
	Enhanced string   // "4.7.1" when the first line carries one of the same class, else ""
	Lines    []string // texts without the code
}

// String is the reply in one line, with its code: "451 4.7.1 greylisted".
func (r Reply) String() string {
	s := strconv.Itoa(r.Code)
	for _, l := range r.Lines {
		if l != "" {
			s += " " + l
		}
	}
	return s
}

// Temporary and Permanent tell the class of a negative reply.
func (r Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }
func (r Reply) Permanent() bool { return r.Code >= 500 && r.Code < 600 }

// Error is the one error type of a Session. Exactly one of Reply and Err is
// set: the server said no, or the connection or the protocol failed.
type Error struct {
	Stage Stage
	Reply *Reply // the refusal
	Err   error  // timeout, close, TLS failure, malformed reply
}

func (e *Error) Error() string {
	if e.Reply != nil {
		return fmt.Sprintf("%s: %s", e.Stage, e.Reply)
	}
	return fmt.Sprintf("%s: %v", e.Stage, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ErrProtocol is wrapped by Error.Err when the server broke the protocol:
// a malformed, endless or unexpected reply, or bytes before a TLS handshake.
var ErrProtocol = fmt.Errorf("smtpclient: protocol violation")

// ErrClosed is wrapped by Error.Err when the server closed the connection.
var ErrClosed = fmt.Errorf("smtpclient: connection closed by the server")

// ErrBody is wrapped by Error.Err when the Mail's Body could not be read.
var ErrBody = fmt.Errorf("smtpclient: reading the message")

// Timeouts of the phases (RFC 5321 4.5.3.2). Zero means the RFC's value.
type Timeouts struct {
	Greeting time.Duration // the 220 (5 min in the RFC; the caller's default is 30 s)
	Command  time.Duration // EHLO, MAIL, RCPT, ... (5 min)
	Data     time.Duration // the 354 (2 min)
	Block    time.Duration // each block of the message (3 min)
	Dot      time.Duration // the reply to the final dot (10 min)
	Quit     time.Duration // QUIT, RSET (a few seconds: nothing depends on it)
}

// Extensions is what EHLO offered.
type Extensions struct {
	StartTLS, Pipelining, EightBitMIME, SMTPUTF8, DSN, Enhanced, Chunking bool
	Size                                                                  int64    // 0: none, or no fixed maximum
	HasSize                                                               bool     // SIZE was offered at all
	RcptMax                                                               int      // LIMITS RCPTMAX (RFC 9422), 0 = none
	Auth                                                                  []string // mechanisms, upper case
	XClient                                                               []string // attributes of XCLIENT, upper case
	Lines                                                                 []string // all of it, as the server wrote it
}

// Mail is a transaction.
type Mail struct {
	From    string // reverse-path without <>
	Size    int64  // of Body, for SIZE=
	Has8Bit bool   // BODY=8BITMIME
	UTF8    bool   // SMTPUTF8
	Ret     string // RET=
	EnvID   string // ENVID=, decoded; encoded as xtext by the session
	Rcpts   []Rcpt
	// Body has CRLF line endings and no dot-stuffing, and is read once. One that
	// is an io.WriterTo, being in memory, is sent without a copy where possible.
	Body io.Reader
}

// Rcpt is one recipient of a transaction.
type Rcpt struct {
	To     string // forward-path without <>
	Notify string // NOTIFY=, "" when absent
	ORcpt  string // "rfc822;address", decoded; "" when absent
}

// Result is what a transaction came to. For each recipient either the
// server's refusal of it, or, when that is nil, the fate that all accepted
// recipients share (in LMTP each has its own after the message).
type Result struct {
	// Rcpt[i] is the reply to RCPT i, nil when none came (the session ended).
	Rcpt []*Reply
	// Final is the reply to the end of the message (or to MAIL or DATA when that
	// refused the whole transaction); nil when none came. LMTP has Dots instead
	// of a reply to the end of the message.
	Final *Reply
	// Dots[i] is the reply of an LMTP server to the end of the message for
	// recipient i: nil when it was refused before, and unknown when none came.
	Dots []*Reply
	// Stage is where the transaction ended: StageDot with a 2xx Final (LMTP: with
	// a 2xx in Dots) is success.
	Stage Stage
	// Err is set when the connection or the protocol failed; the session is
	// then unusable. A 421 sets both the reply that carried it and Closing.
	Err     *Error
	Closing bool // the server said 421 or the connection is gone: do not reuse
}
