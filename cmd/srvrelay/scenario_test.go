package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/admin"
	"srvrelay/relay/sendmail"
	"srvrelay/relay/sink"
)

// A scenario is one fault in one file, testdata/scenarios/NAME.txtar, played
// with the real binary over real sockets. Its sections:
//
//	zone, zone 2 ...           what the DNS server says ("zone N" swaps it in)
//	config, config 2 ...       laid over the base configuration ("reload N" takes the next)
//	file NAME, file NAME 2     written to @dir@ ("file NAME 2" exchanges it)
//	server NAME, server NAME 2 a receiving server and its script ("script NAME 2")
//	server NAME unix           the same on a Unix socket
//	message                    what "send" submits, a short mail when absent
//	steps                      what happens and what must be seen; see steps_test.go
//
// @NAME@ stands for the port of a server, or the path of its Unix socket,
// everywhere; @dir@ for the scenario's directory, where ca.pem is the authority
// of the servers' certificates ("cert" in a script), which the relay trusts.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("../../testdata/scenarios/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			play(t, a)
		})
	}
}

// waitLimit bounds how long a step waits for what it wants to see.
const waitLimit = 20 * time.Second

// scenario is a play under way.
type scenario struct {
	*testing.T
	sections map[string]string
	dns      *dnsserver.Server
	servers  map[string]*sink.Server
	relay    *relayProcess
	dir      string
	ca       *sink.CA
	config   string // file
	compared int    // events of the relay whose plans have been compared
}

func newScenario(t *testing.T) *scenario {
	t.Helper()
	s := &scenario{T: t, sections: map[string]string{}, servers: map[string]*sink.Server{}, dir: t.TempDir()}
	var err error
	if s.ca, err = sink.NewCA("Scenario CA"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, caFile), s.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func play(t *testing.T, a *txtar.Archive) *scenario {
	s := newScenario(t)
	for _, f := range a.Files {
		s.sections[f.Name] = string(f.Data)
	}
	for _, f := range a.Files {
		if name, ok := strings.CutPrefix(f.Name, "server "); ok {
			switch name, kind, _ := strings.Cut(name, " "); kind {
			case "":
				s.startServer(name, "127.0.0.1:0", string(f.Data))
			case "unix":
				s.startServer(name, "unix:"+filepath.Join(s.dir, name), string(f.Data))
			}
		}
	}
	dns, err := dnsserver.Start("127.0.0.1:0", s.ports(s.sections["zone"]))
	if err != nil {
		t.Fatal("zone:", err)
	}
	t.Cleanup(func() { dns.Close() })
	s.dns = dns
	for name := range s.sections {
		if file, ok := strings.CutPrefix(name, "file "); ok && !strings.Contains(file, " ") {
			s.writeFile(file, s.sections[name])
		}
	}
	s.config = s.writeConfig("config")
	s.relay = startRelay(t, s.config)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the relay:\n%s", s.relay.log())
			for name, srv := range s.servers {
				t.Logf("dialogue of %s:\n%s", name, strings.Join(srv.Dialogue(), "\n"))
			}
			t.Logf("DNS queries: %s", strings.Join(s.dns.Queries(), ", "))
		}
	})
	for n, line := range strings.Split(strings.TrimSpace(s.sections["steps"]), "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.step(splitStep(s.ports(line))); err != nil {
			t.Fatalf("step %d: %s\n%v", n+1, line, err)
		}
	}
	if err := s.samePlans(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scenario) writeFile(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(s.ports(text)), 0o600); err != nil {
		s.Fatal(err)
	}
}

func (s *scenario) startServer(name, addr, script string) {
	srv, err := sink.Start(addr, sink.Options{Script: script, CA: s.ca})
	if err != nil {
		s.Fatal("server", name, err)
	}
	s.Cleanup(srv.Close)
	s.servers[name] = srv
}

var portMark = regexp.MustCompile(`@([a-z0-9]+)@`)

// ports replaces what stands between @ and @.
func (s *scenario) ports(text string) string {
	return portMark.ReplaceAllStringFunc(text, func(m string) string {
		srv := s.servers[strings.Trim(m, "@")]
		switch {
		case m == "@dir@":
			return s.dir
		case srv == nil:
			return m
		case srv.Port() == 0:
			return srv.Addr()
		}
		return strconv.Itoa(srv.Port())
	})
}

// writeConfig lays a section of the scenario over the base configuration.
func (s *scenario) writeConfig(section string) string {
	base := fmt.Sprintf(`
hostname: relay.test
data_dir: %s/data
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
dns: { servers: ["%s"] }
delivery:
  timeouts: { connect: 2s, greeting: 2s }
  retry: { schedule: [300ms], expire_after: 1h, delay_notice_after: 0s }
  egress: { allow: [127.0.0.0/8, "::1/128"] }
log: { level: debug, format: json }
`, s.dir, s.dns.Addr())
	var conf, over map[string]any
	if err := yaml.Unmarshal([]byte(base), &conf); err != nil {
		s.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(s.ports(s.sections[section])), &over); err != nil {
		s.Fatal("config:", err)
	}
	merge(conf, over)
	b, err := yaml.Marshal(conf)
	if err != nil {
		s.Fatal(err)
	}
	file := filepath.Join(s.dir, "srvrelay.yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		s.Fatal(err)
	}
	return file
}

func merge(into, over map[string]any) {
	for k, v := range over {
		if sub, ok := v.(map[string]any); ok {
			if have, ok := into[k].(map[string]any); ok {
				merge(have, sub)
				continue
			}
		}
		into[k] = v
	}
}

// mainEnv makes the test binary behave as srvrelay itself.
const mainEnv = "SRVRELAY_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) == "1" {
		os.Exit(run(sendmail.AsCalled(os.Args)))
	}
	// Most of these tests wait for other processes, and not for the processor.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
	}
	os.Exit(m.Run())
}

// caFile, where it lies beside the configuration, is what the program trusts.
const caFile = "ca.pem"

// command is the real program, run by the test.
func command(ctx context.Context, config string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "SRVRELAY_") }), mainEnv+"=1")
	if config != "" {
		cmd.Env = append(cmd.Env, "SRVRELAY_CONFIG="+config)
		if ca := filepath.Join(filepath.Dir(config), caFile); exists(ca) {
			cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+ca)
		}
	}
	return cmd
}

func exists(file string) bool { _, err := os.Stat(file); return err == nil }

// startRelay starts the relay and waits until it listens.
func startRelay(t testing.TB, config string) *relayProcess {
	t.Helper()
	r, err := startProcess(command(context.Background(), config, "serve"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	return r
}

// submit hands a message in and returns the first refusal, "" for none.
func submit(addr, from string, to []string, params, message string) (refusal string, err error) {
	return submitWith(addr, from, "BODY=8BITMIME", to, params, message)
}

// submitWith is submit with other parameters of MAIL.
func submitWith(addr, from, mailParams string, to []string, params, message string) (refusal string, err error) {
	c, err := textproto.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	type exchange struct {
		want int
		cmd  string
	}
	dialogue := []exchange{{220, ""}, {250, "EHLO client.test"}, {250, "MAIL FROM:<" + from + "> " + mailParams}}
	for _, r := range to {
		dialogue = append(dialogue, exchange{250, strings.TrimSpace("RCPT TO:<" + r + "> " + params)})
	}
	for _, x := range append(dialogue, exchange{354, "DATA"}) {
		if x.cmd != "" {
			if err := c.PrintfLine("%s", x.cmd); err != nil {
				return "", err
			}
		}
		if refusal, err := answer(c, x.want); refusal != "" || err != nil {
			return refusal, err
		}
	}
	w := c.DotWriter()
	if _, err := io.WriteString(w, message); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return answer(c, 250)
}

// answer reads a reply; one with another code than wanted is a refusal.
func answer(c *textproto.Conn, want int) (refusal string, err error) {
	code, msg, err := c.ReadResponse(want)
	var no *textproto.Error
	if errors.As(err, &no) {
		return fmt.Sprintf("%d %s", code, msg), nil
	}
	return "", err
}

// queueList is what `srvrelay queue list --json` prints.
func queueList(config string) ([]admin.Message, error) {
	out, err := command(context.Background(), config, "queue", "list", "--json").Output()
	if err != nil {
		return nil, fmt.Errorf("queue list: %w", err)
	}
	var list []admin.Message
	return list, json.Unmarshal(out, &list)
}
