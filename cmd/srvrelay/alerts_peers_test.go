//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// well is a relay that is well, over a hundred minutes: series and their values minute
// by minute, as promtool writes them.
var well = map[string]string{
	`up{job="srvrelay"}`: "1x100", `process_start_time_seconds{job="srvrelay"}`: "1x100", `srvrelay_accepting`: "1x100",
	`srvrelay_queue_messages`: "5x100", `srvrelay_queue_messages_limit`: "1000x100", `srvrelay_queue_bytes`: "5x100", `srvrelay_queue_bytes_limit`: "1000x100",
	`srvrelay_disk_free_bytes`: "9e9x100", `srvrelay_delivered_total{mode="submission"}`: "0+100x100", `srvrelay_hops`: "30x100", `srvrelay_hops_parked`: "10x100",
	`srvrelay_deferred_total{reason="connect-timeout"}`: "0+30x100", `srvrelay_deferred_total{reason="dns-failed"}`: "0+1x100", `srvrelay_deferred_total{reason="auth-failed"}`: "0x100",
	`srvrelay_failed_total{reason="rejected"}`: "0+5x100", `srvrelay_alarms_total`: "0x100",
	`srvrelay_queue_wait_seconds_bucket{le="60"}`: "0+95x100", `srvrelay_queue_wait_seconds_bucket{le="300"}`: "0+100x100", `srvrelay_queue_wait_seconds_bucket{le="+Inf"}`: "0+100x100",
	`srvrelay_sync_seconds_bucket{le="0.5"}`: "0+100x100", `srvrelay_sync_seconds_bucket{le="1"}`: "0+100x100", `srvrelay_sync_seconds_bucket{le="+Inf"}`: "0+100x100",
	`srvrelay_store_stalls_total`: "0x100", `srvrelay_store_compactions_failed_total`: "0x100", `srvrelay_faults_total`: "0x100", `srvrelay_guards`: "0x100", `srvrelay_suspects`: "0x100",
	`srvrelay_reports_dropped_total`: "0x100", `srvrelay_certificate_expiry_timestamp_seconds`: "9e9x100",
	`process_open_fds{job="srvrelay"}`: "100x100", `process_max_fds{job="srvrelay"}`: "1000x100",
}

// ills are what is different when something is wrong, by the one alert that says so.
var ills = map[string]map[string]string{
	"SrvrelayDown":             {`up{job="srvrelay"}`: "0x100"},
	"SrvrelayRestarts":         {`process_start_time_seconds{job="srvrelay"}`: "0+5x100"},
	"SrvrelayRefusesMail":      {`srvrelay_accepting`: "0x100"},
	"SrvrelayQueueFillsUp":     {`srvrelay_queue_messages`: "801x100"},
	"SrvrelayQueueBytes":       {`srvrelay_queue_bytes`: "801x100"},
	"SrvrelayDiskFull":         {`srvrelay_disk_free_bytes`: "4e8x100"},
	"SrvrelayDeliversNothing":  {`srvrelay_delivered_total{mode="submission"}`: "7x100", `srvrelay_failed_total{reason="rejected"}`: "0x100"},
	"SrvrelayHopsParked":       {`srvrelay_hops_parked`: "16x100"},
	"SrvrelayAlarm":            {`srvrelay_alarms_total`: "0x60 1x40"},
	"SrvrelayMailIsLate":       {`srvrelay_queue_wait_seconds_bucket{le="60"}`: "0+85x100"},
	"SrvrelayManyFailures":     {`srvrelay_failed_total{reason="rejected"}`: "0+30x100"},
	"SrvrelayDNSFails":         {`srvrelay_deferred_total{reason="dns-failed"}`: "0+20x100"},
	"SrvrelayLoginFails":       {`srvrelay_deferred_total{reason="auth-failed"}`: "0x90 1x10"},
	"SrvrelayDiskSlow":         {`srvrelay_sync_seconds_bucket{le="0.5"}`: "0+95x100"},
	"SrvrelayStoreStalls":      {`srvrelay_store_stalls_total`: "0+1x100"},
	"SrvrelayCompactionsFail":  {`srvrelay_store_compactions_failed_total`: "0x90 1x10"},
	"SrvrelayFaults":           {`srvrelay_faults_total`: "0x90 1x10"},
	"SrvrelayPasswordsGuessed": {`srvrelay_guards`: "1x100"},
	"SrvrelaySuspect":          {`srvrelay_suspects`: "1x100"},
	"SrvrelayReportsDropped":   {`srvrelay_reports_dropped_total`: "0x50 1x50"},
	"SrvrelayCertificateEnds":  {`srvrelay_certificate_expiry_timestamp_seconds`: "1200000x100"}, // time begins at 0
	"SrvrelayDescriptors":      {`process_open_fds{job="srvrelay"}`: "801x100"},
}

// TestAlerts: each alert fires when what it is about is wrong, and is the only
// one to; none does while all is well. Prometheus' own promtool judges.
func TestAlerts(t *testing.T) {
	promtool := needs(t, "promtool")["promtool"]
	rules, err := filepath.Abs(rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(text), -1) {
		if ills[m[1]] == nil {
			t.Errorf("%s: nothing here makes it fire", m[1])
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%q]\nevaluation_interval: 1m\ntests:\n", rules)
	writeAlertTest(&b, "all is well", nil, "[]")
	for alert, ill := range ills {
		writeAlertTest(&b, alert, ill, fmt.Sprintf("[{ labels: '{alertname=%q}', value: 1 }]", alert))
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// writeAlertTest writes one test of promtool: which alerts fire at the end.
func writeAlertTest(b *strings.Builder, name string, ill map[string]string, want string) {
	fmt.Fprintf(b, "  - name: %q\n    interval: 1m\n    input_series:\n", name)
	for series, values := range well {
		if v, differs := ill[series]; differs {
			values = v
		}
		if !strings.Contains(series, "job=") { // a series of a scrape has both
			metric, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
			series = metric + `{job="srvrelay",` + labels + "}"
		}
		series = strings.Replace(series, "{", `{instance="one",`, 1)
		fmt.Fprintf(b, "      - { series: '%s', values: '%s' }\n", series, values)
	}
	fmt.Fprintf(b, "    promql_expr_test:\n      - { expr: 'count by (alertname) (ALERTS{alertstate=\"firing\"})', eval_time: 99m, exp_samples: %s }\n", want)
}
