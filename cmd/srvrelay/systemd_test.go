//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// plainConfig writes a configuration with one submission listener; more is laid below it.
func plainConfig(t *testing.T, address, more string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "srvrelay.yaml")
	text := fmt.Sprintf("hostname: relay.test\ndata_dir: %s/data\ndns: { servers: [\"127.0.0.1:1\"] }\n"+
		"listeners: [{ address: %q, mode: submission, tls: none }]\nlog: { format: json }\n%s", dir, address, more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestNotify: the service manager hears when the relay is ready, that it is
// alive, when it reads its configuration and when it stops, in this order.
func TestNotify(t *testing.T) {
	t.Parallel()
	config := plainConfig(t, "127.0.0.1:0", "")
	path := filepath.Join(filepath.Dir(config), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	next := func(but string) string {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			_ = heard.SetReadDeadline(time.Now().Add(waitLimit))
			n, err := heard.Read(buf)
			if err != nil {
				t.Fatal("nothing more is heard:", err)
			}
			if s := string(buf[:n]); s != but {
				return s
			}
		}
	}
	cmd := command(context.Background(), config, "serve")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=60000")
	relay, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.kill)
	if s := next("WATCHDOG=1"); s != "READY=1" {
		t.Fatalf("%q, want READY=1", s)
	}
	for range 3 {
		if s := next(""); s != "WATCHDOG=1" {
			t.Errorf("%q, want WATCHDOG=1", s)
		}
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	if s := next("WATCHDOG=1"); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$`).MatchString(s) {
		t.Errorf("%q, want RELOADING=1 with the time", s)
	}
	if s := next("WATCHDOG=1"); s != "READY=1" {
		t.Errorf("%q after the reload, want READY=1", s)
	}
	go func() { _, _ = relay.terminate() }()
	if s := next("WATCHDOG=1"); s != "STOPPING=1" {
		t.Errorf("%q, want STOPPING=1", s)
	}
}

// TestWatchdogStops: a relay that hangs tells nothing.
func TestWatchdogStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		beats, hang := 0, make(chan struct{})
		go beat(ctx, time.Second, func() {
			if beats == 3 {
				<-hang
			}
			beats++
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if beats != 3 {
			t.Errorf("%d beats, the last one hangs", beats)
		}
		stop()
		close(hang)
	})
}

// TestSocketActivation: a client that comes before the relay runs waits, and is
// served when it does. The other side is systemd's own.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	activate := needs(t, "systemd-socket-activate")["systemd-socket-activate"]
	addr := "127.0.0.1:" + freePort(t)
	config := plainConfig(t, addr, "")
	inner := command(context.Background(), config, "serve")
	args := []string{"-l", addr}
	for _, e := range inner.Env {
		name, _, _ := strings.Cut(e, "=")
		args = append(args, "-E", name)
	}
	cmd := exec.Command(activate, append(args, inner.Args...)...)
	cmd.Env = inner.Env
	log, err := os.Create(filepath.Join(filepath.Dir(config), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			text, _ := os.ReadFile(log.Name())
			t.Errorf("the relay: %v\n%s", err, text)
		}
	}()
	var c net.Conn
	poll(t, waitLimit, "the port is open", func() bool { c, err = net.Dial("tcp", addr); return err == nil })
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(waitLimit))
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "220 relay.test") {
		t.Errorf("banner %q, %v", line, err)
	}

	// The socket is the manager's too: without its listener, clients would wait for ever.
	if err := os.WriteFile(config, []byte(strings.Replace(mustRead(t, config), addr, "127.0.0.1:0", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(context.Background(), config, "reload").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "disable its socket unit and restart") {
		t.Errorf("a reload that gives up the socket: %v\n%s", err, out)
	}
}

// TestSocketOfNobody: a socket that no listener is for is a mistake that is named.
func TestSocketOfNobody(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "u"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, x := range []struct {
		socket interface{ File() (*os.File, error) }
		code   int
		say    string
	}{
		{l.(*net.TCPListener), exitConfig, l.Addr().String() + ", and no listener has that address"},
		{u, exitUnavailable, "is not one that listens for TCP"},
	} {
		f, err := x.socket.File()
		if err != nil {
			t.Fatal(err)
		}
		inner := command(context.Background(), plainConfig(t, "127.0.0.1:0", ""), "serve")
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp exec "$0" serve`, inner.Path)
		cmd.Env, cmd.ExtraFiles = inner.Env, []*os.File{f}
		out, _ := cmd.CombinedOutput()
		f.Close()
		if got := cmd.ProcessState.ExitCode(); got != x.code || !strings.Contains(string(out), x.say) {
			t.Errorf("exit code %d, want %d and %q:\n%s", got, x.code, x.say, out)
		}
	}
}

// TestUnitSystemCalls: the relay makes no system call that its unit forbids, from
// its start over a message, a question at the admin socket and a reload to its end.
func TestUnitSystemCalls(t *testing.T) {
	t.Parallel()
	programs := needs(t, "systemd-analyze", "strace")
	allowed := allowedCalls(t, programs["systemd-analyze"], mustRead(t, "../../packaging/systemd/srvrelay.service"))
	addr := "127.0.0.1:" + freePort(t)
	config := plainConfig(t, addr, "")
	calls := filepath.Join(filepath.Dir(config), "calls")
	inner := command(context.Background(), config, "serve")
	// -D: the relay itself is our child, and gets the signals.
	cmd := exec.Command(programs["strace"], append([]string{"-D", "-f", "-qq", "-o", calls}, inner.Args...)...)
	cmd.Env = inner.Env
	relay, err := startProcess(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.kill)
	if refusal, err := submit(addr, "a@client.test", []string{"b@nowhere.test"}, "", "Subject: x\r\n\r\nx\r\n"); err != nil || refusal != "" {
		t.Fatalf("%q, %v", refusal, err)
	}
	for _, verb := range [][]string{{"queue", "list"}, {"backup", calls + ".backup"}, {"reload"}} {
		if out, err := command(context.Background(), config, verb...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", verb, err, out)
		}
	}
	if _, err := relay.terminate(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllStringSubmatch(mustRead(t, calls), -1) {
		seen[m[1]] = true
	}
	if len(seen) < 30 || !seen["accept4"] {
		t.Errorf("only %d system calls were seen", len(seen))
	}
	for call := range seen {
		if !allowed[call] {
			t.Errorf("%s is not allowed", call)
		}
	}
}

// allowedCalls are the system calls that a unit's filters allow, as systemd reads
// them (systemd.exec(5)).
func allowedCalls(t *testing.T, analyze, unit string) map[string]bool {
	allowed := map[string]bool{}
	var set func(group string, to bool)
	set = func(group string, to bool) {
		out, err := exec.Command(analyze, "syscall-filter", group).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.Split(string(out), "\n")[1:] {
			switch word = strings.TrimSpace(word); {
			case strings.HasPrefix(word, "@"):
				set(word, to)
			case word != "" && word[0] != '#':
				allowed[word] = to
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^SystemCallFilter=(~?)(.*)$`).FindAllStringSubmatch(unit, -1) {
		for _, group := range strings.Fields(m[2]) {
			set(group, m[1] == "")
		}
	}
	return allowed
}

// TestUnits: systemd understands the units, and rates the sandbox.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	var units []string
	for _, f := range unitFiles(t) { // the program need not be installed here
		unit := filepath.Join(dir, filepath.Base(f))
		if err := os.WriteFile(unit, []byte(strings.ReplaceAll(mustRead(t, f), "/usr/bin/srvrelay", os.Args[0])), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	checkUnits(t, units)
}

// unitFiles are the units that the packages install, the service first.
func unitFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../packaging/systemd/*.s[eo][rc]*")
	if err != nil || len(files) != 4 {
		t.Fatalf("%d units, %v", len(files), err)
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(filepath.Ext(a), filepath.Ext(b)) })
	return files
}

// checkUnits has systemd verify units, and rate the sandbox of the first. Options
// say where they are installed.
func checkUnits(t *testing.T, units []string, options ...string) {
	t.Helper()
	analyze := needs(t, "systemd-analyze")["systemd-analyze"]
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(analyze, append(args, options...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemd-analyze %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run(append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	out := run("security", "--offline=true", "--no-pager", units[0])
	rated := regexp.MustCompile(`exposure level for srvrelay.service: ([0-9.]+)`).FindStringSubmatch(out)
	if rated == nil {
		t.Fatalf("systemd-analyze security: %s", out)
	}
	if level, _ := strconv.ParseFloat(rated[1], 64); level >= 2.0 {
		t.Errorf("exposure %.1f, less than 2.0 is wanted\n%s", level, out)
	}
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
