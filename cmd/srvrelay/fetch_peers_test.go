//go:build linux

package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeersFetchmail: fetchmail's ODMR mode, which is the one-shot form of RFC
// 2645, fetches what waits, twice, and hears that there is no mail.
func TestPeersFetchmail(t *testing.T) {
	t.Parallel()
	bin := needs(t, "fetchmail")
	e := newEdge(t)
	mx := peerSink(t, "home", "")
	dir := t.TempDir()
	host, port, _ := net.SplitHostPort(cramDoor(t, e))
	rc := filepath.Join(dir, "fetchmailrc")
	if err := os.WriteFile(rc, fmt.Appendf(nil, `
poll %s protocol odmr port %s
  user home password "%s" fetchdomains home.example,second.example
  smtphost %s/%d
`, host, port, peerPassword, "127.0.0.1", mx.Port()), 0o600); err != nil {
		t.Fatal(err)
	}
	fetch := func(wantCode int, want string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin["fetchmail"], "-f", rc, "-v", "--nosyslog", "--pidfile", filepath.Join(dir, "pid"))
		cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != wantCode || !strings.Contains(string(out), want) {
			t.Fatalf("fetchmail: exit code %d, want %d and %q\n%s", got, wantCode, want, out)
		}
	}
	fetch(0, "453 4.0.0 no mail for you now")
	for i := range 2 {
		e.mail("me@home.example", fmt.Sprint("one", i))
		e.mail("me@second.example", fmt.Sprint("two", i))
		e.saw(2*(i+1), "parked", map[string]string{"reason": "not-called"})
		fetch(0, "250 2.0.0 OK now reversing the connection")
		received(t, mx, 2*(i+1))
	}
	fetch(0, "453 4.0.0 no mail for you now")
}

// cramDoor is the address of a go-between for the one thing that fetchmail wants
// and the relay does not have: CRAM-MD5, in clear text, for which a server must
// keep the password. It logs in with PLAIN under TLS; all else is as it was sent.
func cramDoor(t *testing.T, e *edge) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if err := cramMD5(c, e.submit); err != nil {
					t.Log("go-between:", err)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// cramMD5 serves one connection of cramDoor.
func cramMD5(client net.Conn, port string) error {
	raw, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer raw.Close()
	server := textproto.NewConn(raw)
	ask := func(want int, line string) (string, error) {
		if line != "" {
			if err := server.PrintfLine("%s", line); err != nil {
				return "", err
			}
		}
		_, text, err := server.ReadResponse(want)
		return text, err
	}
	for _, step := range []struct {
		line string
		want int
	}{{"", 220}, {"EHLO go-between.test", 250}, {"STARTTLS", 220}} {
		if _, err := ask(step.want, step.line); err != nil {
			return err
		}
	}
	secure := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	server = textproto.NewConn(secure)
	offers, err := ask(250, "EHLO go-between.test")
	if err != nil {
		return err
	}
	if !strings.Contains(offers, "\nATRN") {
		return fmt.Errorf("no ATRN in %q", offers)
	}
	in := bufio.NewReader(client)
	fmt.Fprint(client, "220 go-between\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "EHLO":
			fmt.Fprint(client, "250-go-between\r\n250-AUTH CRAM-MD5\r\n250 ATRN\r\n")
			continue
		case "AUTH":
		default:
			return fmt.Errorf("%q before AUTH", line)
		}
		break
	}
	const challenge = "<1896.697170952@go-between.test>"
	fmt.Fprintf(client, "334 %s\r\n", base64.StdEncoding.EncodeToString([]byte(challenge)))
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	answer, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	user, digest, _ := strings.Cut(string(answer), " ")
	mac := hmac.New(md5.New, []byte(peerPassword))
	mac.Write([]byte(challenge))
	if digest != hex.EncodeToString(mac.Sum(nil)) {
		fmt.Fprint(client, "535 wrong\r\n")
		return fmt.Errorf("wrong digest of %q", user)
	}
	if _, err := ask(235, "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+peerPassword))); err != nil {
		return err
	}
	fmt.Fprint(client, "235 ok\r\n")
	done := make(chan struct{}, 2)
	go func() { io.Copy(secure, in); secure.CloseWrite(); done <- struct{}{} }()
	go func() { io.Copy(client, server.R); client.(*net.TCPConn).CloseWrite(); done <- struct{}{} }()
	<-done
	<-done
	return nil
}
