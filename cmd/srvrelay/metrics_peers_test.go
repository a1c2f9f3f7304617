//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"srvrelay/relay/sink"
)

const metricsZone = `
_smtp._tcp.a.test. SRV 10 0 @one@ host.test.
_smtp._tcp.dead.test. SRV 10 0 1 host.test.
host.test. A 127.0.0.1
`

const metricsConfig = `
metrics: { listen: "127.0.0.1:0" }
relay_domains: [home.test]
delivery: { egress: { allow_ports: [1] }, retry: { schedule: [1h] } }
listeners:
  - { address: "127.0.0.1:0", mode: submission, tls: none }
  - { address: "127.0.0.1:0", mode: inbound, tls: starttls }
`

const rulesFile = "../../packaging/prometheus/srvrelay.rules.yml"

// prometheus is a real one.
type prometheus struct {
	*testing.T
	base string
}

// startPrometheus scrapes a relay every second, with our rules.
func startPrometheus(t *testing.T, target string) prometheus {
	t.Helper()
	program, dir := needs(t, "prometheus")["prometheus"], t.TempDir()
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [%q]
scrape_configs: [{ job_name: srvrelay, static_configs: [{ targets: [%q] }] }]
`, rules, target)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + freePort(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of Prometheus:\n%s", text)
		}
	})
	p := prometheus{t, "http://" + addr}
	poll(t, waitLimit, "Prometheus is ready", func() bool {
		resp, err := http.Get(p.base + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// get reads an answer of the API.
func (p prometheus) get(path string, params url.Values, data any) error {
	resp, err := http.Get(p.base + path + "?" + params.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s", answer.Error)
	}
	return nil
}

// query returns the values of an expression.
func (p prometheus) query(expr string) (values []float64, err error) {
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := p.get("/api/v1/query", url.Values{"query": {expr}}, &data); err != nil {
		return nil, err
	}
	if data.ResultType == "scalar" {
		return []float64{0}, nil
	}
	var series []struct{ Value []any }
	if err := json.Unmarshal(data.Result, &series); err != nil {
		return nil, err
	}
	for _, s := range series {
		v, err := strconv.ParseFloat(s.Value[1].(string), 64)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// settles waits until an expression has one value, and this.
func (p prometheus) settles(expr string, want float64) {
	p.Helper()
	var got []float64
	var err error
	defer func() {
		if p.Failed() {
			p.Logf("%s: %v %v, want %v", expr, got, err, want)
		}
	}()
	poll(p.T, 3*waitLimit, expr, func() bool {
		got, err = p.query(expr)
		return err == nil && len(got) == 1 && got[0] == want
	})
}

// metricsURL is where the relay says that its metrics are, the newest of it.
func (r *relayProcess) metricsURL() (at string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e["msg"] == "metrics" {
			at = fmt.Sprint(e["url"])
		}
	}
	return at
}

func fetchMetrics(at string) (string, error) {
	resp, err := http.Get(at)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// dashboardQueries are all of the dashboard's, with its variables filled in.
func dashboardQueries(t *testing.T) (queries []string) {
	text, err := os.ReadFile("../../packaging/grafana/srvrelay.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	queries = []string{"srvrelay_build_info"} // of the variable
	fill := strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m")
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			queries = append(queries, fill.Replace(target.Expr))
		}
	}
	if len(queries) < 70 {
		t.Errorf("the dashboard has %d queries", len(queries))
	}
	return queries
}

// comparison parts an alert's expression: what is compared must have series,
// the comparison has none while all is well.
var comparison = regexp.MustCompile(` (?:==|!=|>|<|>=|<=|and|or|unless)(?: on \([a-z, ]+\))? `)

// alertQueries are what the alerts compare.
func alertQueries(t *testing.T) (queries []string) {
	text, err := os.ReadFile(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct{ Rules []struct{ Expr string } }
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			queries = append(queries, comparison.Split(r.Expr, -1)...)
		}
	}
	return queries
}

// TestPrometheus: a real Prometheus reads a real relay under load. Its numbers
// are those of the mail, and every query of the dashboard and of the alerts has
// series.
func TestPrometheus(t *testing.T) {
	promtool := needs(t, "promtool")["promtool"]
	r := newRig(t, metricsZone, metricsConfig, map[string]sink.Options{"one": {Script: "offer STARTTLS"}})
	at, err := url.Parse(r.relay.metricsURL())
	if err != nil || at.Host == "" { // said before "ready"
		t.Fatalf("the relay shows its metrics at %q", r.relay.metricsURL())
	}
	p := startPrometheus(t, at.Host)
	p.settles(`srvrelay_received_messages_total{mode="submission",tls="none"}`, 0) // so that rates see all of it

	const good, bad = 60, 5
	l := r.startLoad(3, false, func(n int) (letter, bool) {
		return letter{marker: fmt.Sprintf("m-%d", n), from: "a@client.test", to: []string{"b@a.test"}, size: 2000, want: []string{"a.test"}}, n < good
	})
	l.wg.Wait()
	for range bad {
		if refused, err := submit(r.relay.address(), "a@client.test", []string{"b@dead.test"}, "", "Subject: x\r\n\r\nx\r\n"); err != nil || refused != "" {
			t.Fatal(refused, err)
		}
	}
	if refused, _ := submit(r.relay.listening["inbound"], "a@client.test", []string{"b@elsewhere.test"}, "", "Subject: x\r\n\r\nx\r\n"); refused == "" {
		t.Fatal("the relay is open")
	}
	p.settles(`srvrelay_received_messages_total{mode="submission",tls="none"}`, good+bad)
	p.settles(`srvrelay_delivered_total{mode="submission"}`, good)
	p.settles(`srvrelay_refused_total{mode="inbound",class="permanent",subject="policy"}`, 1)
	p.settles(`srvrelay_queue_messages`, bad)
	p.settles(`srvrelay_hops_parked`, 1)
	p.settles(`srvrelay_targets_down`, 1)
	p.settles(`srvrelay_accept_seconds_count`, good+bad)
	p.settles(`srvrelay_transfer_seconds_count`, good)
	p.settles(`srvrelay_connect_seconds_count > bool 0`, 1)
	p.settles(`srvrelay_tls_handshake_seconds_count - srvrelay_connect_seconds_count`, 0)
	p.settles(`srvrelay_attempts_total{tls="1.3"}`, good)
	p.settles(`sum(srvrelay_queue_recipients)`, bad) // the walk through the queue comes every ten seconds
	p.settles(`sum(srvrelay_deferred_total) == bool sum(srvrelay_deferred_total{reason="connect-refused"})`, 1)

	for _, q := range append(dashboardQueries(t), alertQueries(t)...) {
		if values, err := p.query(q); err != nil || len(values) == 0 {
			t.Errorf("no series: %s (%v)", q, err)
		}
	}
	p.checkRules()

	text, err := fetchMetrics(at.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"client.test", "a.test", "dead.test", "127.0.0.1"} {
		if strings.Contains(text, name) {
			t.Errorf("%s is in the metrics", name)
		}
	}
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
	if out, err := exec.Command(promtool, "check", "rules", rulesFile).CombinedOutput(); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}

	r.stopWell()
	p.settles(`up{job="srvrelay"}`, 0)
	p.settles(`count(ALERTS{alertname="SrvrelayDown"})`, 1)
}

// checkRules: Prometheus could evaluate each alert, and none fires.
func (p prometheus) checkRules() {
	p.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError, State string }
		}
	}
	if err := p.get("/api/v1/rules", nil, &data); err != nil {
		p.Fatal(err)
	}
	n := 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" || r.State == "firing" {
				p.Errorf("%s is %s, health %s %s", r.Name, r.State, r.Health, r.LastError)
			}
		}
	}
	if n < 20 {
		p.Errorf("%d rules", n)
	}
}

// TestMetricsReload: a reload turns the metrics on, moves them and turns them
// off; what was counted before is in them, and an address that is taken leaves
// everything as it was.
func TestMetricsReload(t *testing.T) {
	r := newRig(t, metricsZone, "{}", map[string]sink.Options{"one": {}})
	if at := r.relay.metricsURL(); at != "" {
		t.Fatalf("by default they are at %s", at)
	}
	r.startLoad(1, false, func(n int) (letter, bool) {
		return letter{marker: fmt.Sprintf("m-%d", n), from: "a@client.test", to: []string{"b@a.test"}, size: 100, want: []string{"a.test"}}, n < 7
	}).wg.Wait()
	r.drained(waitLimit, r.adminClient())
	reload := func(listen string) []string {
		r.sections["config"] = "metrics: { listen: \"" + listen + "\" }"
		r.writeConfig("config")
		got, err := r.adminClient().Reload(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return got.Problems
	}
	one, two := "127.0.0.1:"+freePort(t), freePort(t)
	if p := reload(one); len(p) > 0 {
		t.Fatal(p)
	}
	text, err := fetchMetrics("http://" + one + "/metrics")
	if err != nil || !strings.Contains(text, "\nsrvrelay_delivered_total{mode=\"submission\"} 7\n") {
		t.Fatalf("turned on: %v\n%.300s", err, text)
	}
	if p := reload(r.relay.address()); len(p) != 1 || !strings.Contains(p[0], "metrics.listen") {
		t.Errorf("an address that is taken: %v", p)
	}
	if _, err := fetchMetrics("http://" + one + "/metrics"); err != nil {
		t.Errorf("after a reload that failed: %v", err)
	}
	if p := reload(":" + two); len(p) > 0 {
		t.Fatal(p)
	}
	poll(t, waitLimit, "the log says where they are", func() bool { return r.relay.metricsURL() == "http://127.0.0.1:"+two+"/metrics" })
	if _, err := fetchMetrics("http://127.0.0.1:" + two + "/metrics"); err != nil {
		t.Errorf("moved: %v", err)
	}
	if _, err := fetchMetrics("http://" + one + "/metrics"); err == nil {
		t.Error("the old address still answers")
	}
	if p := reload(""); len(p) > 0 {
		t.Fatal(p)
	}
	if _, err := fetchMetrics("http://127.0.0.1:" + two + "/metrics"); err == nil {
		t.Error("turned off, and it answers")
	}
}

// TestCountPause: the walk through the queue takes a twentieth of a core at most.
func TestCountPause(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond: 10 * time.Second, 500 * time.Millisecond: 10 * time.Second, time.Second: 20 * time.Second, 6 * time.Second: 2 * time.Minute,
	} {
		if got := countPause(took); got != want {
			t.Errorf("%s after %s, want %s", got, took, want)
		}
	}
}
