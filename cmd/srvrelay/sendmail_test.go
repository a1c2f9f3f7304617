//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/config"
	"srvrelay/relay/sink"
)

// letterbox is a relay whose mail for dest.example and admin.example ends in a
// sink, and the folder with the program under its other names.
type letterbox struct {
	t      *testing.T
	config string
	bin    string
	env    []string
	world  *sink.Server
	relay  *peerRelay
}

// newLetterbox starts one. over is more configuration.
func newLetterbox(t *testing.T, over string) *letterbox {
	t.Helper()
	dir := sharedDir(t, "")
	l := &letterbox{t: t, bin: dir, world: peerSink(t, "world", "")}
	dns, err := dnsserver.Start("127.0.0.1:0", fmt.Sprintf(`
_smtp._tcp.dest.example. SRV 0 0 %d mail.dest.example.
_smtp._tcp.admin.example. SRV 0 0 %[1]d mail.dest.example.
mail.dest.example. A 127.0.0.1
`, l.world.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	// A port that is known from the file: peerHost is this process's alone.
	free, err := net.Listen("tcp", peerHost()+":0")
	if err != nil {
		t.Fatal(err)
	}
	door := free.Addr().String()
	free.Close()
	l.config = peerConfig(t, dir, dns.Addr(), "listeners: [{ address: \""+door+"\", mode: submission, tls: none }]\npostmaster: me@admin.example\n"+over)
	l.relay = startPeerRelay(t, l.config)
	for _, name := range []string{"sendmail", "mailq", "newaliases"} {
		if err := os.Symlink(os.Args[0], filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	aliases := writeFile(t, dir, "aliases", "boss: Boss <boss@admin.example>\n")
	l.env = append(command(t.Context(), l.config).Env, config.EnvAliases+"="+aliases, "HOME="+dir, "PATH="+dir+":"+os.Getenv("PATH"))
	return l
}

// call runs a program and returns its exit code and all that it said.
func (l *letterbox) call(stdin, program string, args ...string) (int, string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), processLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = l.env, l.bin, strings.NewReader(stdin)
	if !strings.Contains(program, "/") {
		cmd.Path = filepath.Join(l.bin, program)
		cmd.Err = nil
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatalf("%s %q: %v", program, args, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// must is call where nothing may go wrong, or be said.
func (l *letterbox) must(stdin, program string, args ...string) {
	l.t.Helper()
	if code, out := l.call(stdin, program, args...); code != 0 || out != "" {
		l.t.Fatalf("%s %q: exit %d\n%s", program, args, code, out)
	}
}

// arrives waits for the nth message, which is from somebody to somebody.
func (l *letterbox) arrives(n int, from string, to ...string) sink.Message {
	l.t.Helper()
	m := received(l.t, l.world, n)[n-1]
	var got []string
	for _, r := range m.Rcpts {
		got = append(got, r.To)
	}
	if m.From != from || !slices.Equal(got, to) {
		l.t.Errorf("message %d is from <%s> to %q, want <%s> and %q", n, m.From, got, from, to)
	}
	return m
}

// TestSendmail: the command with a real relay, from the arguments to the message that arrives.
func TestSendmail(t *testing.T) {
	t.Parallel()
	l := newLetterbox(t, "limits: { max_message_size: 20KiB }\n")
	n := 0
	arrives := func(from string, to ...string) sink.Message {
		t.Helper()
		n++
		return l.arrives(n, from, to...)
	}
	l.must("Subject: x\n\nHello.\n.\nnot this\n", "sendmail", "-f", "me@client.test", "-F", "Me, too", "a@dest.example")
	m := string(arrives("me@client.test", "a@dest.example").Data)
	for _, want := range []string{"From: \"Me, too\" <me@client.test>\r\n", "Date: ", "Message-ID: <", "Subject: x\r\n\r\nHello.\r\n"} {
		if !strings.Contains(m, want) {
			t.Errorf("%q is not in:\n%s", want, m)
		}
	}
	if strings.Contains(m, "not this") {
		t.Errorf("what stands behind the dot is there:\n%s", m)
	}

	l.must("To: a@dest.example\nBcc: Bee <b@dest.example>\nSubject: y\n\none\n.\ntwo gr\xc3\xbcn\n", "sendmail", "-t", "-oi", "-f<>")
	m = string(arrives("", "a@dest.example", "b@dest.example").Data)
	if strings.Contains(m, "b@dest") || !strings.Contains(m, "\r\none\r\n.\r\ntwo gr\xc3\xbcn\r\n") {
		t.Errorf("-t -oi:\n%s", m)
	}

	// A name of this machine is postmaster's, and has the relay's name in the header.
	l.must("From: root (Cron Daemon)\nTo: nobody-here\n\nx\n", "sendmail", "-i", "-froot", "nobody-here")
	m = string(arrives("root@relay.test", "me@admin.example").Data)
	if !strings.Contains(m, "From: root@relay.test (Cron Daemon)\r\n") || !strings.Contains(m, "To: nobody-here@relay.test\r\n") {
		t.Errorf("to a name of this machine:\n%s", m)
	}

	l.must("Subject: x\n\n", "sendmail", "-f", "me@client.test", "boss@localhost")
	arrives("me@client.test", "boss@admin.example")

	// By its full name, with the configuration as an argument, and with words.
	if code, out := invoke(t, "", "Subject: z\n\nx\n", "--config", l.config, "sendmail", "-v", "-f", "me@client.test", "-Nnever", "-V", "id-7", "a@dest.example"); code != 0 || !strings.HasPrefix(out, "250 2.0.0") {
		t.Errorf("-v: exit %d: %s", code, out)
	}
	arrives("me@client.test", "a@dest.example")

	for name, c := range map[string]struct {
		stdin string
		args  string
		code  int
		want  string
	}{
		"nobody":         {"Subject: x\n\n", "-i", exitUsage, "no recipient"},
		"nobody in To":   {"Subject: x\n\n", "-t", exitUsage, "no recipient"},
		"a broken To":    {"To: a@b.example c@d.example\n\n", "-t", exitData, "the field To"},
		"usage":          {"", "-Z", exitUsage, "srvrelay sendmail --help"},
		"too large":      {strings.Repeat("xxxxxxxxx\n", 3000), "a@dest.example", exitData, "and the relay takes 20480 at most"},
		"a CR":           {"a\rb\n", "a@dest.example", exitData, "line 1 has a CR"},
		"no address":     {"", "a@b@c.example", 67, "nothing was sent: <a@b@c.example> is refused: 5"},
		"list the queue": {"", "-bp", 0, "The queue is empty."},
		"nothing to do":  {"", "-bi", 0, ""},
	} {
		if code, out := l.call(c.stdin, "sendmail", strings.Fields(c.args)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit %d, want %d: %s", name, code, c.code, out)
		}
	}
	for program, want := range map[string]string{"mailq": "The queue is empty.\n", "newaliases": ""} {
		if code, out := l.call("", program); code != 0 || out != want {
			t.Errorf("%s: exit %d: %s", program, code, out)
		}
	}

	// One of two is refused: the other gets it, and the exit code says so.
	code, out := l.call("Subject: x\n\n", "sendmail", "-f", "me@client.test", "a@dest.example", "a@b@c.example")
	if code != 67 || !strings.Contains(out, "only the other recipients have the message (250 2.0.0") || !strings.Contains(out, "<a@b@c.example> is refused") {
		t.Errorf("one of two: exit %d: %s", code, out)
	}
	arrives("me@client.test", "a@dest.example")

	// SMTP over standard input, as the client of -bs sends it.
	code, out = l.call("EHLO x\r\nMAIL FROM:<me@client.test>\r\nRCPT TO:<a@dest.example>\r\nDATA\r\nSubject: bs\r\n\r\nx\r\n.\r\nQUIT\r\n", "sendmail", "-bs")
	if code != 0 || !strings.HasPrefix(out, "220 relay.test") || !strings.Contains(out, "\r\n221 ") {
		t.Errorf("-bs: exit %d: %s", code, out)
	}
	arrives("me@client.test", "a@dest.example")
}

// TestSendmailWithoutRelay: nothing is lost in silence.
func TestSendmailWithoutRelay(t *testing.T) {
	t.Parallel()
	l := newLetterbox(t, "")
	l.relay.kill()
	code, out := l.call("Subject: x\n\n", "sendmail", "a@dest.example")
	if code != exitTempFail || !strings.Contains(out, "nothing was sent: no relay answers on 127.") || !strings.Contains(out, "connection refused") {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, out := l.call("QUIT\r\n", "sendmail", "-bs"); code != exitTempFail || !strings.Contains(out, "421 4.3.2 ") {
		t.Errorf("-bs: exit %d: %s", code, out)
	}
}

// TestSendmailReplies: what a server says and how sendmail exits then.
func TestSendmailReplies(t *testing.T) {
	t.Parallel()
	l := newLetterbox(t, "")
	for _, c := range []struct {
		script string // of the server
		to     string
		code   int
		want   string
		taken  int
	}{
		{"", "a@x.example", 0, "", 1},
		{"banner 421 4.3.2 not now\n", "a@x.example", 75, "nothing was sent", 0},
		{"banner 554 5.7.1 banned\n", "a@x.example", 77, "banned", 0},
		{"banner 554 5.3.2 closed\n", "a@x.example", 69, "closed", 0},
		{"mail 530 5.7.0 log in\n", "a@x.example b@x.example", 77, "the sender <me@client.test> is refused: 530 5.7.0 log in", 0},
		{"mail 452 4.3.1 full\n", "a@x.example", 75, "full", 0},
		{"mail 501 5.1.7 no such sender\n", "a@x.example", 65, "no such sender", 0},
		{"rcpt a@* 550 5.1.1 nobody\n", "a@x.example", 67, "<a@x.example> is refused: 550 5.1.1 nobody", 0},
		{"rcpt a@* 550 5.7.1 not from you\n", "a@x.example", 77, "nothing was sent", 0},
		{"rcpt a@* 550 5.1.1 nobody\n", "a@x.example b@x.example", 67, "only the other recipients have the message", 1},
		// Who is put off would otherwise be lost, or the other one get it twice.
		{"rcpt a@* 450 4.2.1 later\n", "a@x.example b@x.example", 75, "nothing was sent: <a@x.example> is refused: 450 4.2.1 later", 0},
		{"rcpt a@* 450 4.2.1 later\nrcpt b@* 550 5.1.1 nobody\n", "b@x.example a@x.example c@x.example", 75, "nothing was sent", 0},
		{"rcpt postmaster 550 5.1.1 nobody\n", "root", 67, "'root: you@example.org' to /etc/aliases", 0},
		{"data 451 4.3.0 later\n", "a@x.example", 75, "the message is refused: 451", 0},
		{"dot 554 5.6.0 bad\n", "a@x.example", 65, "the message is refused: 554 5.6.0 bad", 0},
		{"dot drop-unstored\n", "a@x.example", 75, "the relay may have it or not", 0},
	} {
		s := peerSink(t, "server", c.script)
		env := l.env
		l.env = append(l.env[:len(l.env):len(l.env)], config.EnvSendmail+"="+s.Addr())
		code, out := l.call("Subject: x\n\nHello.\n", "sendmail", append([]string{"-f", "me@client.test"}, strings.Fields(c.to)...)...)
		l.env = env
		if code != c.code || !strings.Contains(out, c.want) || len(s.Messages()) != c.taken {
			t.Errorf("%q: exit %d, want %d; %d messages, want %d: %s", c.script, code, c.code, len(s.Messages()), c.taken, out)
		}
	}
}

// TestSendmailBcc: no server ever sees the field, not even one that would not remove it;
// and a large message arrives whole.
func TestSendmailBcc(t *testing.T) {
	t.Parallel()
	l := newLetterbox(t, "")
	s := peerSink(t, "server", "")
	l.env = append(l.env, config.EnvSendmail+"="+s.Addr())
	l.must("To: a@x.example\nBcc: b@x.example,\n c@x.example\nSubject: x\n\nHello.\n", "sendmail", "-t")
	m := received(t, s, 1)[0]
	if len(m.Rcpts) != 3 || strings.Contains(string(m.Data), "b@x") || strings.Contains(string(m.Data), "c@x") {
		t.Errorf("to %v:\n%s", m.Rcpts, m.Data)
	}
	// More than is kept in memory, after the attempt that asks for the recipients.
	body := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1<<16)
	l.must("Subject: large\n\n"+body, "sendmail", "a@x.example", "b@x.example")
	if m := received(t, s, 2)[1]; len(m.Rcpts) != 2 || !strings.HasSuffix(string(m.Data), "\r\nSubject: large\r\n\r\n"+body) {
		t.Errorf("%d of %d bytes have arrived", len(m.Data), len(body))
	}
}

// TestSendmailServer: where mail is handed in.
func TestSendmailServer(t *testing.T) {
	t.Parallel()
	const in, out = "mode: submission, tls: ", "trusted_networks: ["
	for listeners, want := range map[string]string{
		`{ address: "127.0.0.1:2526", ` + in + `none }`:                                                                          "127.0.0.1:2526",
		`{ address: "[::1]:2526", ` + in + `none }`:                                                                              "[::1]:2526",
		`{ address: ":25", mode: inbound }, { address: "127.0.0.1:2526", ` + in + `none }`:                                       "127.0.0.1:2526",
		`{ address: ":587", ` + in + `starttls }, { address: "localhost:2526", ` + in + `none }`:                                 "127.0.0.1:2526",
		`{ address: ":2526", ` + in + `none, ` + out + `127.0.0.0/8] }`:                                                          "127.0.0.1:2526",
		`{ address: "0.0.0.0:2526", ` + in + `none, ` + out + `192.0.2.0/24] }`:                                                  "",
		`{ address: "192.0.2.1:2526", ` + in + `none, ` + out + `192.0.2.0/24] }`:                                                "192.0.2.1:2526",
		`{ address: ":465", ` + in + `implicit, ` + out + `127.0.0.0/8] }`:                                                       "",
		`{ address: "127.0.0.1:0", ` + in + `none }`:                                                                             "",
		`{ address: "127.0.0.1:2526", ` + in + `none, proxy_from: [127.0.0.0/8], ` + out + `127.0.0.0/8] }`:                      "",
		`{ address: "127.0.0.1:2526", ` + in + `none, ` + out + `192.0.2.0/24] }, { address: "127.0.0.1:2527", ` + in + `none }`: "127.0.0.1:2527",
	} {
		file := configFile(t, "hostname: relay.test\nrelay_domains: [home.example]\ntls: { certificate: /x, key: /y }\nlisteners: ["+listeners+"]\n")
		got, note, err := sendmailServer(file, nil)
		if got != want || note != "" || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %q, %v", listeners, got, note, err)
		}
	}
	broken := configFile(t, "hostnam: x\n")
	if got, note, err := sendmailServer("", []string{"SRVRELAY_CONFIG=" + broken}); got != defaultServer || err != nil || !strings.Contains(note, "hostnam: unknown key") {
		t.Errorf("a broken configuration: %q, %q, %v", got, note, err)
	}
	if _, _, err := sendmailServer(broken, nil); err == nil {
		t.Error("a broken file that was named is not used, and nobody hears of it")
	}
	if got, _, err := sendmailServer(broken, []string{config.EnvSendmail + "=relay.example.net:25"}); got != "relay.example.net:25" || err != nil {
		t.Errorf("the variable: %q, %v", got, err)
	}
	if _, _, err := sendmailServer("", []string{config.EnvSendmail + "=2525"}); err == nil {
		t.Error("a port is no server")
	}
}
