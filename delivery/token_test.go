package delivery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseToken(t *testing.T) {
	for out, want := range map[string]string{
		"abc\n":                                  "abc 5m0s",
		" abc \r\n":                              "abc 5m0s",
		`{"access_token":"abc"}`:                 "abc 5m0s",
		`{"access_token":"abc","expires_in":60}`: "abc 1m0s",
		`{"access_token":"abc","expires_in":"3600","token_type":"Bearer"}` + "\n": "abc 1h0m0s",
		`{"access_token":"abc","expires_in":9e99}`:                                "no number of seconds",
		`{"access_token":"abc","expires_in":99999999999}`:                         "abc 720h0m0s",
		`{"access_token":"abc","expires_in":-1}`:                                  "no number of seconds",
		`{"access_token":"abc","expires_in":1.5}`:                                 "no number of seconds",
		`{"access_token":7}`:                                                      "without a text access_token",
		`{"error":"s3cret"}`:                                                      "without a text access_token",
		`{"access_token":"s3cret`:                                                 "without a text access_token",
		"":                                                                        "not print a token",
		"\n":                                                                      "not print a token",
		"s3cret and more":                                                         "not print a token",
		"s3cret\nmore":                                                            "not print a token",
	} {
		token, life, err := parseToken([]byte(out))
		got := fmt.Sprintf("%s %s", token, life)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || strings.Contains(got, "s3cret") {
			t.Errorf("%q: %s, want %s", out, got, want)
		}
	}
}

// counted is a command that prints another token at each run.
func counted(out func(n int) (string, error)) (*TokenCommand, *int) {
	c, n := NewTokenCommand([]string{"/bin/x"}), 0
	c.run = func(context.Context, []string) ([]byte, error) {
		n++
		s, err := out(n)
		return []byte(s), err
	}
	return c, &n
}

// TestTokenIsKept: until a minute before it expires, or until it is refused.
func TestTokenIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := counted(func(n int) (string, error) { return fmt.Sprintf(`{"access_token":"t%d","expires_in":3600}`, n), nil })
		want := func(want string) {
			t.Helper()
			if got, err := c.Token(t.Context()); got != want || err != nil {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
		}
		want("t1")
		time.Sleep(59*time.Minute - time.Second)
		want("t1")
		time.Sleep(time.Second)
		want("t2")
		c.Refused("t1") // an old one, of a connection that was slow
		want("t2")
		c.Refused("t2")
		want("t3")
	})
}

// A token that lives for less than that is used all the same.
func TestTokenThatIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, runs := counted(func(n int) (string, error) { return `{"access_token":"t","expires_in":20}`, nil })
		for range 3 {
			if _, err := c.Token(t.Context()); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(9 * time.Second)
		_, _ = c.Token(t.Context())
		if *runs != 1 {
			t.Errorf("%d runs", *runs)
		}
		time.Sleep(time.Second)
		if _, _ = c.Token(t.Context()); *runs != 2 {
			t.Errorf("%d runs", *runs)
		}
	})
}

// A command that fails is not run by everybody who waits, one after the other.
func TestTokenFailureIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, runs := counted(func(n int) (string, error) {
			if n == 1 {
				return "", errors.New("ended with exit status 1")
			}
			return "abc", nil
		})
		for range 5 {
			if _, err := c.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "/bin/x: ended with exit status 1") {
				t.Errorf("%v", err)
			}
		}
		if *runs != 1 {
			t.Errorf("%d runs", *runs)
		}
		time.Sleep(tokenPause)
		if token, err := c.Token(t.Context()); token != "abc" || err != nil {
			t.Errorf("%s, %v", token, err)
		}
	})
}

// Many ask at once, and one runs the command; whoever has no time gives up.
func TestTokenOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewTokenCommand([]string{"/bin/x"})
		runs := 0
		c.run = func(context.Context, []string) ([]byte, error) {
			runs++
			time.Sleep(10 * time.Second)
			return []byte("abc"), nil
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if token, err := c.Token(t.Context()); token != "abc" || err != nil {
					t.Errorf("%s, %v", token, err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Token(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		wg.Wait()
		if runs != 1 {
			t.Errorf("%d runs", runs)
		}
	})
}

// TestTokenRun: real commands; nothing that they say is in an error.
func TestTokenRun(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct{ text, want string }{
		"arguments": {`printf '%s' "$1"`, "$(id) `id`;id"},
		"fails":     {"echo s3cret; echo s3cret >&2; exit 3", "ended with exit status 3"},
		"too much":  {"head -c 70000 /dev/zero", "more than 65536 bytes"},
	} {
		out, err := runToken(t.Context(), []string{script(name, c.text), "$(id) `id`;id"})
		got := string(out)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) || strings.Contains(got, "s3cret") {
			t.Errorf("%s: %.100q", name, got)
		}
	}
	if _, err := runToken(t.Context(), []string{dir + "/absent"}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("absent: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := NewTokenCommand([]string{script("hangs", "echo up >"+dir+"/up; sleep 60")})
	done := make(chan error)
	go func() { _, err := c.Token(ctx); done <- err }()
	for !exists(dir + "/up") {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("hangs: %v", err)
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }
