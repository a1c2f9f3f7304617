//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestPeersSendmail: other people's programs, whose sendmail is the real
// program, as docs/sendmail.md sets them up.
func TestPeersSendmail(t *testing.T) {
	t.Parallel()
	bin := needs(t, "php", "mutt", "git", "bsd-mailx", "python3")
	l := newLetterbox(t, "")
	sendmail := filepath.Join(l.bin, "sendmail")
	writeFile(t, l.bin, "muttrc", `set sendmail="`+sendmail+` -oem -oi" from=me@client.test realname="Me, too" use_from=yes use_envelope_from=yes
set dsn_notify=failure,delay dsn_return=hdrs copy=no send_charset=utf-8 use_8bitmime=yes allow_8bit=yes ssl_starttls=no
`)
	writeFile(t, l.bin, "mailrc", "set sendmail="+sendmail+"\nset sendwait\n")
	l.env = append(l.env, "MAILRC="+filepath.Join(l.bin, "mailrc"), "LC_ALL=C.UTF-8", "EMAIL=me@client.test", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Me", "GIT_AUTHOR_EMAIL=me@client.test", "GIT_COMMITTER_NAME=Me", "GIT_COMMITTER_EMAIL=me@client.test")
	repo := filepath.Join(l.bin, "repo")
	for _, args := range []string{"init -q " + repo, "-C " + repo + " commit -q --allow-empty -m first"} {
		l.must("", bin["git"], strings.Fields(args)...)
	}
	writeFile(t, repo, "file", "one\n.\ntwo\n")
	for _, args := range []string{"add file", "commit -q -m second"} {
		l.must("", bin["git"], append([]string{"-C", repo}, strings.Fields(args)...)...)
	}
	for i, c := range []struct {
		name, program, stdin string
		args                 []string
		from                 string
		to                   []string
		want, never          []string // in the message
		params               string   // of MAIL at the next server
	}{
		{
			name: "php", program: bin["php"], args: []string{"-n", "-d", "sendmail_path=" + sendmail + " -t -i", "-r", `exit(mail("A <a@dest.example>", "php",
				"one\n.\ntwo\n", "From: me@client.test\r\nBcc: b@dest.example", "-fbounce@client.test") ? 0 : 1);`},
			from: "bounce@client.test", to: []string{"a@dest.example", "b@dest.example"},
			want: []string{"Subject: php\r\n", "\r\none\r\n.\r\ntwo\r\n", "From: me@client.test\r\n", "Date: ", "Message-ID: "}, never: []string{"b@dest.example"},
		},
		{
			name: "mutt", program: bin["mutt"], stdin: "grün\n.\n", args: []string{"-n", "-F", filepath.Join(l.bin, "muttrc"), "-s", "mutt", "-b", "b@dest.example", "a@dest.example"},
			from: "me@client.test", to: []string{"a@dest.example", "b@dest.example"},
			want: []string{"Subject: mutt\r\n", "grün\r\n.\r\n"}, never: []string{"b@dest.example"}, params: "RET=HDRS",
		},
		{
			name: "git send-email", program: bin["git"], args: []string{"-C", repo, "send-email", "--quiet", "--confirm=never", "--smtp-server=" + sendmail,
				"--from=me@client.test", "--envelope-sender=bounce@client.test", "--to=a@dest.example", "--suppress-cc=all", "-1"},
			from: "bounce@client.test", to: []string{"a@dest.example"}, want: []string{"Subject: [PATCH] second\r\n", "+one\r\n+.\r\n+two\r\n"},
		},
		{
			name: "mailx", program: bin["bsd-mailx"], stdin: "one\n", args: []string{"-s", "mailx", "-c", "c@admin.example", "root"},
			from: "root@relay.test", to: []string{"me@admin.example", "c@admin.example"}, want: []string{"Subject: mailx\r\n", "To: root@relay.test\r\n", "\r\none\r\n"},
		},
		{
			name: "python", program: bin["python3"], args: []string{"-c", `
import subprocess, email.message
m = email.message.EmailMessage()
m["To"], m["Bcc"], m["From"], m["Subject"] = "a@dest.example", "Bee <b@dest.example>", "Grün <me@client.test>", "python"
m.set_content("one\n.\ntwo\n")
subprocess.run(["` + sendmail + `", "-t", "-i", "-f", "me@client.test"], input=bytes(m), check=True)`},
			from: "me@client.test", to: []string{"a@dest.example", "b@dest.example"}, want: []string{"Subject: python\r\n", "\r\none\r\n.\r\ntwo\r\n"}, never: []string{"b@dest.example"},
		},
	} {
		if code, out := l.call(c.stdin, c.program, c.args...); code != 0 {
			t.Fatalf("%s: exit %d\n%s", c.name, code, out)
		}
		m := l.arrives(i+1, c.from, c.to...)
		for _, w := range c.want {
			if !strings.Contains(string(m.Data), w) {
				t.Errorf("%s: %q is not in the message:\n%s", c.name, w, m.Data)
			}
		}
		for _, w := range c.never {
			if strings.Contains(string(m.Data), w) {
				t.Errorf("%s: %q is in the message:\n%s", c.name, w, m.Data)
			}
		}
		if !strings.Contains(m.MailParams, c.params) {
			t.Errorf("%s: MAIL has %q, want %s", c.name, m.MailParams, c.params)
		}
	}
	// What fails is seen by the program.
	l.relay.kill()
	if code, out := l.call("", bin["php"], "-n", "-d", "sendmail_path="+sendmail+" -t -i", "-r", `exit(mail("a@dest.example", "x", "y") ? 0 : 1);`); code != 1 || !strings.Contains(out, "no relay answers") {
		t.Errorf("php without a relay: exit %d: %s", code, out)
	}
	if code, out := l.call("", bin["git"], "-C", repo, "send-email", "--confirm=never", "--smtp-server="+sendmail, "--from=me@client.test", "--to=a@dest.example", "-1"); code == 0 || !strings.Contains(out, "no relay answers") {
		t.Errorf("git without a relay: exit %d: %s", code, out)
	}
}

// TestPeersCron: Debian's cron mails what a job prints. Its job runs at the start (@reboot), in
// a mount namespace where /usr/sbin/sendmail is the real program.
func TestPeersCron(t *testing.T) {
	t.Parallel()
	bin := needs(t, "cron", "sendmail", "unshare", "mount")
	if os.Geteuid() != 0 {
		unable(t, "a mount namespace needs root")
	}
	l := newLetterbox(t, "")
	tab := writeFile(t, l.bin, "crontab", "MAILTO=a@dest.example\n@reboot nobody echo said by the job\n")
	script := fmt.Sprintf(`set -e
mount --make-rprivate /
mount -t tmpfs none /run
mount -t tmpfs none /var/spool/cron
mkdir -m 1730 /var/spool/cron/crontabs
mkdir /run/empty
mount --bind /run/empty /etc/cron.d
mount --bind %s /etc/crontab
mount --bind %s %s
exec %s -f`, tab, os.Args[0], bin["sendmail"], bin["cron"])
	cmd := exec.Command(bin["unshare"], "--mount", "sh", "-c", script)
	cmd.Env = l.env
	startPeer(t, "cron", cmd)
	m := string(l.arrives(1, "nobody@relay.test", "a@dest.example").Data)
	for _, want := range []string{"From: root@relay.test (Cron Daemon)\r\n", "To: a@dest.example\r\n", "echo said by the job\r\n", "\r\nsaid by the job\r\n"} {
		if !strings.Contains(m, want) {
			t.Errorf("%q is not in:\n%s", want, m)
		}
	}
}

// TestSendmailAsNobody: a user who may not read the configuration hands in mail
// all the same, and has no right to look at the queue.
func TestSendmailAsNobody(t *testing.T) {
	t.Parallel()
	host := newNetns(t, "host")
	dir := sharedDir(t, "")
	config := peerConfig(t, dir, "127.0.0.1:1", "listeners: [{ address: \"127.0.0.1:2525\", mode: submission, tls: none }]\n")
	if err := os.Chmod(config, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sendmail") // of go's folder, nobody may run nothing
	text, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string) {
		cmd := command(t.Context(), config)
		cmd.Path, cmd.Args, cmd.Dir = program, append([]string{"sendmail"}, args...), "/"
		cmd.Stdin = strings.NewReader("Subject: x\n\nHello.\n")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := host.do(cmd.Run)
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String()
	}
	code, out := run("a@dest.example")
	if code != exitTempFail || !strings.Contains(out, "127.0.0.1:2525 was tried, as the configuration cannot be used") || !strings.Contains(out, "permission denied") {
		t.Errorf("without a relay: exit %d: %s", code, out)
	}
	host.startRelay(config)
	if code, out := run("-v", "a@dest.example"); code != 0 || !strings.HasPrefix(out, "250 2.0.0") {
		t.Errorf("with it: exit %d: %s", code, out)
	}
	if code, out := run("-bp"); code == 0 || !strings.Contains(out, "permission denied") {
		t.Errorf("-bp: exit %d: %s", code, out)
	}
}

// TestSendmailInterrupted: who waits for a message at a terminal can go.
func TestSendmailInterrupted(t *testing.T) {
	t.Parallel()
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		cmd := command(ctx, "", "sendmail", "-v", "a@dest.example")
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		// More than a pipe holds: when it is written, the program reads.
		if _, err := in.Write(bytes.Repeat([]byte("x\n"), 1<<17)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != sig {
			t.Errorf("%v: %v", sig, err)
		}
		in.Close()
	}
}
