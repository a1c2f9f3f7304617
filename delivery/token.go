package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"srvrelay/delivery/plan"
)

// Bounds of a token command.
const (
	tokenRun    = 30 * time.Second // for the command to end
	tokenOutput = 64 << 10         // bytes
	tokenKept   = 5 * time.Minute  // a token that does not say when it expires
	tokenSpare  = time.Minute      // before it expires another one is asked for; never more than half its life
	tokenPause  = 10 * time.Second // after a failure, in which the command is not run again
)

// TokenCommand gets OAuth access tokens from a program of the operator. It is
// run without a shell, and its output is in no error. A token is kept until it
// is about to expire or a server has refused it.
type TokenCommand struct {
	args []string
	run  func(ctx context.Context, args []string) ([]byte, error)
	turn chan struct{} // whoever holds it may run the command

	mu    sync.Mutex
	token string
	until time.Time // when another one is needed
	err   error     // of the last run
	again time.Time // not before, after a failure
}

var _ plan.Tokens = (*TokenCommand)(nil)

// NewTokenCommand takes a program, by its whole path, and its arguments.
func NewTokenCommand(args []string) *TokenCommand {
	return &TokenCommand{args: args, run: runToken, turn: make(chan struct{}, 1)}
}

// Token returns a token that is kept, or runs the command; of many who ask at
// once one runs it.
func (c *TokenCommand) Token(ctx context.Context) (string, error) {
	if token, err, kept := c.kept(time.Now()); kept {
		return token, err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if token, err, kept := c.kept(time.Now()); kept { // somebody else ran it meanwhile
		return token, err
	}
	begin := time.Now()
	out, err := c.run(ctx, c.args)
	if ctx.Err() != nil {
		return "", ctx.Err() // says nothing of the command
	}
	var token string
	var life time.Duration
	if err == nil {
		token, life, err = parseToken(out)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", c.args[0], err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.err, c.until, c.again = token, err, begin.Add(life-min(tokenSpare, life/2)), time.Now().Add(tokenPause)
	return token, err
}

// kept returns what is known, and whether it still counts.
func (c *TokenCommand) kept(now time.Time) (token string, err error, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return "", c.err, now.Before(c.again)
	}
	return c.token, nil, c.token != "" && now.Before(c.until)
}

// Refused forgets a token that a server did not take.
func (c *TokenCommand) Refused(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token == token {
		c.token = ""
	}
}

// runToken runs a command to its end and returns what it prints.
func runToken(ctx context.Context, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenRun)
	defer cancel()
	out := bounded{left: tokenOutput}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("did not end within %s", tokenRun)
	case errors.As(err, &exit):
		return nil, fmt.Errorf("ended with %s (run it as the relay's user to see why)", exit.ProcessState)
	case err != nil:
		return nil, errors.New("could not be run: " + plainError(err))
	case out.cut:
		return nil, fmt.Errorf("printed more than %d bytes, which is no token", tokenOutput)
	}
	return out.buf.Bytes(), nil
}

// bounded keeps the first bytes that are written to it. The buffer has a name,
// as its ReadFrom would go past Write.
type bounded struct {
	buf  bytes.Buffer
	left int
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left, b.cut = b.left-n, b.cut || n < len(p)
	b.buf.Write(p[:n])
	return len(p), nil
}

// parseToken reads what a command prints: a token in one line, or the answer of
// a token endpoint (RFC 6749 5.1) with access_token and expires_in, in seconds.
// No error repeats any of it.
func parseToken(out []byte) (token string, life time.Duration, err error) {
	out = bytes.TrimSpace(out)
	if !bytes.HasPrefix(out, []byte("{")) {
		if token = string(out); token == "" || strings.ContainsAny(token, " \t\r\n") {
			return "", 0, errors.New("did not print a token in one line, nor JSON with access_token")
		}
		return token, tokenKept, nil
	}
	var answer struct {
		AccessToken string      `json:"access_token"`
		ExpiresIn   json.Number `json:"expires_in"`
	}
	if json.Unmarshal(out, &answer) != nil || answer.AccessToken == "" {
		return "", 0, errors.New("printed JSON without a text access_token (RFC 6749 5.1)")
	}
	seconds, err := answer.ExpiresIn.Int64()
	switch {
	case answer.ExpiresIn == "":
		return answer.AccessToken, tokenKept, nil
	case err != nil || seconds < 0:
		return "", 0, errors.New("printed an expires_in that is no number of seconds")
	}
	return answer.AccessToken, time.Duration(min(seconds, 30*24*3600)) * time.Second, nil
}

// TokenFile is a file that somebody else keeps a token in. It is read at each login.
type TokenFile struct {
	// Read returns the token.
	Read func() (string, error)
}

var _ plan.Tokens = TokenFile{}

// Token reads the file.
func (f TokenFile) Token(context.Context) (string, error) { return f.Read() }

// Refused has nothing to forget.
func (f TokenFile) Refused(string) {}
