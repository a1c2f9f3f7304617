package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// invoke runs the real program and returns its exit code and all it printed.
func invoke(t *testing.T, config, stdin string, args ...string) (int, string) {
	t.Helper()
	cmd := command(context.Background(), config, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(cmd.Env, "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "srvrelay.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCommandLine: what people type wrong, and right, with the exit code and
// what must be in the answer.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	good := configFile(t, "hostname: relay.test\ndata_dir: "+dir+"\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\ndns: { servers: [\"127.0.0.1:1\"] }\n")
	bad := configFile(t, "hostname: relay.test\nlisteners:\n  - { address: \":587\", mode: submission, tls: startls }\ndelivery:\n  retries: 3\n  retry: { expire_after: 120 }\n")
	for _, c := range []struct {
		name, config, stdin string
		args                []string
		code                int
		want                []string
	}{
		{"version", "", "", []string{"version"}, 0, []string{"srvrelay ", "go1."}},
		{"help", "", "", []string{"--help"}, 0, []string{"srvrelay demo", "srvrelay explain", "Why is my mail not delivered?"}},
		{"unknown command", "", "", []string{"frobnicate"}, exitUsage, []string{"unknown command", "--help"}},
		{"unknown flag", "", "", []string{"serve", "--frob"}, exitUsage, []string{"unknown flag: --frob"}},
		{"a typing error below a command", "", "", []string{"queue", "lst"}, exitUsage, []string{"unknown command \"lst\"", "srvrelay queue --help"}},
		{"a typing error with a guess", "", "", []string{"qeue"}, exitUsage, []string{`unknown command "qeue" for "srvrelay" (did you mean queue?)`}},
		{"and below a command", "", "", []string{"queue", "sho"}, exitUsage, []string{"(did you mean show?)", "See: srvrelay queue --help"}},
		{"an argument too many", "", "", []string{"queue", "list", "example.org"}, exitUsage, []string{`srvrelay queue list: "example.org" is one argument too many`, "more: srvrelay queue list --help"}},
		{"an argument too few", "", "", []string{"user", "add"}, exitUsage, []string{"srvrelay user add: NAME is missing"}},
		{"no relay and no queue", good, "", []string{"queue", "summary"}, exitUnavailable, []string{"no relay is running", "and there is no queue yet in " + dir}},
		{"an age without a unit", good, "", []string{"queue", "list", "--age", "5"}, exitUsage, []string{`"5" has no unit (write 5s, 5m or 5h)`}},
		{"an age in days", good, "", []string{"queue", "fail", "--age", "3d"}, exitUnavailable, []string{"no relay is running"}},
		{"no such reason", good, "", []string{"queue", "fail", "--reason", "bad-luck"}, exitUsage, []string{`"bad-luck" is not a reason code`, "docs/reasons.md"}},
		{"no queue id", good, "", []string{"explain", "message", "abc"}, exitData, []string{`srvrelay: "abc" is not a queue id`}},
		{"two ats", good, "", []string{"explain", "a@b@example.org"}, exitUsage, []string{"a@b@example.org is no address"}},
		{"a sender that is none", good, "", []string{"explain", "example.org", "--from", "a b@example.org"}, exitUsage, []string{"a b@example.org is no address"}},
		{"mistakes, and a relay that may be running", bad, "", []string{"queue", "list"}, exitConfig, []string{"3 problems; nothing was done, and a running relay goes on as before"}},
		{"no users yet", good, "", []string{"user", "list"}, 0, []string{"no users yet"}},
		{"version as a flag", "", "", []string{"--version"}, 0, []string{"srvrelay"}},
		{"missing argument", "", "", []string{"queue", "show"}, exitUsage, []string{"Usage: srvrelay queue show ID"}},
		{"config is fine", good, "", []string{"check-config"}, 0, []string{"is fine: 1 listener"}},
		{"all mistakes at once", bad, "", []string{"check-config"}, exitConfig, []string{
			`srvrelay.yaml:3:47: listeners[0].tls: "startls" is not one of none, starttls, implicit (did you mean starttls?)`,
			"srvrelay.yaml:5:3: delivery.retries: unknown key (did you mean retry?)",
			`srvrelay.yaml:6:26: delivery.retry.expire_after: "120" has no unit`,
			"3 problems; nothing was started",
		}},
		{"serve with mistakes", bad, "", []string{"serve"}, exitConfig, []string{"3 problems; nothing was started"}},
		{"no such file", filepath.Join(dir, "none.yaml"), "", []string{"serve"}, exitConfig, []string{"does not exist"}},
		{"no relay is running", good, "", []string{"queue", "list"}, exitUnavailable, []string{"no relay is running", "srvrelay serve"}},
		{"explain without a relay", good, "", []string{"explain", "me@[10.0.0.1]"}, exitUnavailable, []string{"[10.0.0.1] → no way", "egress-address", "What to do: ", "No relay is running here"}},
		{"explain without DNS", good, "", []string{"explain", "example.test"}, exitTempFail, []string{"no way for now", "dns-failed", "connection refused"}},
		{"a password as an argument", good, "", []string{"user", "add", "me"}, exitUsage, []string{"--password-stdin"}},
		{"an empty password", good, "\n", []string{"user", "add", "me", "--password-stdin"}, exitUsage, []string{"empty"}},
		{"a name that cannot be", good, "x\n", []string{"user", "add", "a:b", "--password-stdin"}, exitData, []string{"a:b"}},
		{"remove nobody", good, "", []string{"user", "remove", "nobody"}, exitData, []string{"users file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := invoke(t, c.config, c.stdin, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is missing", w)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// TestUserCommands: a user's life; the password is in no file and no output.
func TestUserCommands(t *testing.T) {
	dir := t.TempDir()
	config := configFile(t, "hostname: relay.test\ndata_dir: "+dir+"\nauth: { users_file: "+dir+"/users }\n")
	for _, step := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"s3cret-one\n", []string{"user", "add", "app", "--password-stdin"}, "app may submit now"},
		{"s3cret-two", []string{"user", "add", "zoe", "--password-stdin"}, "zoe may submit now"},
		{"", []string{"user", "list"}, "app\nzoe\n"},
		{"s3cret-three\n", []string{"user", "add", "zoe", "--password-stdin"}, "zoe was there already: password changed"},
		{"s3cret-one\n", []string{"user", "check", "app", "--password-stdin"}, "app is a user, and this is the password"},
		{"", []string{"user", "remove", "app"}, "app is removed"},
		{"", []string{"user", "list"}, "zoe\n"},
	} {
		code, out := invoke(t, config, step.stdin, step.args...)
		if code != 0 || !strings.HasPrefix(out, step.want) {
			t.Fatalf("%v: exit %d, %q", step.args, code, out)
		}
		if strings.Contains(out, "s3cret") {
			t.Errorf("%v printed the password", step.args)
		}
	}
	b, err := os.ReadFile(dir + "/users")
	if err != nil || strings.Contains(string(b), "s3cret") || !strings.Contains(string(b), "zoe:$argon2id$") {
		t.Errorf("users file: %v\n%s", err, b)
	}
	if fi, _ := os.Stat(dir + "/users"); fi.Mode().Perm() != 0o600 {
		t.Errorf("users file has mode %v", fi.Mode())
	}
}

// TestQueueInHand: list, show, delete as an operator uses them, and the JSON
// that programs rely on.
func TestQueueInHand(t *testing.T) {
	dir := t.TempDir()
	config := configFile(t, "hostname: relay.test\ndata_dir: "+dir+"\nlisteners: [{ address: \"127.0.0.1:0\", mode: submission, tls: none }]\ndns: { servers: [\"127.0.0.1:1\"] }\nlog: { format: json }\n")
	relay := startRelay(t, config)
	if refusal, err := submit(relay.address(), "a@client.test", []string{"u@example.test", "v@example.test"}, "", "Subject: x\n\nhello\n"); refusal != "" || err != nil {
		t.Fatal(refusal, err)
	}
	if !relay.await(waitLimit, func() bool { return relay.matching("deferred", map[string]string{"reason": "dns-failed"}) == 2 }) {
		t.Fatal(relay.log())
	}
	_, out := invoke(t, config, "", "queue", "list", "--json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, key := range []string{"id", "sender", "size", "received", "recipients"} {
		if list[0][key] == nil {
			t.Errorf("%q is missing in %s", key, out)
		}
	}
	for _, key := range []string{"address", "hop", "state", "attempts", "next_attempt", "last_status", "reason"} {
		if list[0]["recipients"].([]any)[0].(map[string]any)[key] == nil {
			t.Errorf("recipients[].%q is missing in %s", key, out)
		}
	}
	id := list[0]["id"].(string)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"queue", "list"}, 0, "1 message, "},
		{[]string{"queue", "show", id}, 0, "dns-failed"},
		{[]string{"queue", "show", strings.ToLower(id)}, 0, id}, // as people type it
		{[]string{"queue", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"}, exitData, "no such message"},
		{[]string{"queue", "show", "nonsense"}, exitData, "is not a queue id"},
		{[]string{"queue", "delete", id}, 0, "deleted"},
		{[]string{"queue", "list"}, 0, "The queue is empty."},
		{[]string{"queue", "list", "--json"}, 0, "[]\n"},
	} {
		code, out := invoke(t, config, "", c.args...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", c.args, code, c.code, c.want, out)
		}
	}
	second, out := invoke(t, config, "", "serve")
	if second != exitTempFail || !strings.Contains(out, "in use by another process") {
		t.Errorf("a second relay on the same data: exit %d\n%s", second, out)
	}
	if err := relay.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !relay.await(waitLimit, func() bool { return relay.matching("reloaded", nil) == 1 }) {
		t.Error("SIGHUP is not answered")
	}
	if took, err := relay.terminate(); err != nil {
		t.Errorf("SIGTERM: %v after %s", err, took)
	}
}

// TestDemo: the README's first command does what it says, and cleans up.
func TestDemo(t *testing.T) {
	cmd := command(context.Background(), "", "demo")
	tmp := t.TempDir()
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"A relay, a DNS server and two mail servers are running on this machine.",
		"delivered to primary", "primary refused the connection → delivered to backup", "deferred: connection refused by both",
		"killed (kill -9) and started again: 1 message is still there", "primary is back → delivered to primary",
		"550 5.1.1 no such user", "Action: failed", "Remote-MTA: dns; primary.demo.example",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for _, line := range strings.Split(string(out), "\n") {
		if len([]rune(line)) > 100 {
			t.Errorf("wider than 100 columns: %s", line)
		}
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
