package metrics

import (
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the tables of docs/metrics.md anew")

// full has a value for everything that may be shown.
func full() *Metrics {
	now := time.Now()
	return New("test", func() State {
		return State{Oldest: now, Certificate: now, ByState: ByState{At: now}, Store: &Store{}}
	})
}

// TestDocs: docs/metrics.md has every metric and every alert, as they are.
func TestDocs(t *testing.T) {
	const file, mark = "../../docs/metrics.md", "<!-- generated: go test ./relay/metrics -update -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(text), mark)
	if !found {
		t.Fatal("the mark is not in", file)
	}
	want := head + mark + metricTable(t) + alertTable(t)
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not what the registry and the rules are: go test ./relay/metrics -update", file)
	}
}

func metricTable(t *testing.T) string {
	families, err := full().registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("\n## All metrics\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), labelsOf(f), f.GetHelp())
	}
	return b.String()
}

// labelsOf lists the labels of a metric with their values, if they are few.
func labelsOf(f *dto.MetricFamily) string {
	values := map[string]map[string]bool{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			if values[l.GetName()] == nil {
				values[l.GetName()] = map[string]bool{}
			}
			values[l.GetName()][l.GetValue()] = true
		}
	}
	var out []string
	for name, vs := range values {
		switch name {
		case "reason":
			out = append(out, "`reason` ([codes](reasons.md))")
		case "version":
			out = append(out, "`version`")
		default:
			var words []string
			for v := range vs {
				words = append(words, v)
			}
			sort.Strings(words)
			out = append(out, "`"+name+"`: "+strings.Join(words, ", "))
		}
	}
	sort.Strings(out)
	return strings.Join(out, "; ")
}

func alertTable(t *testing.T) string {
	text, err := os.ReadFile("../../packaging/prometheus/srvrelay.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, For, Expr    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("\n## All alerts\n\n| alert | severity | what it means | what to do |\n|---|---|---|---|\n")
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			summary, _, _ := strings.Cut(r.Annotations["summary"], ": ") // which relay it is comes first
			_, what, _ := strings.Cut(r.Annotations["summary"], ": ")
			if !strings.Contains(summary, "$labels.instance") || what == "" || !strings.HasSuffix(r.Annotations["runbook"], ".") || r.Labels["severity"] == "" {
				t.Errorf("%s: a summary %q that begins with the instance, a runbook sentence and a severity are wanted", r.Alert, r.Annotations["summary"])
			}
			fmt.Fprintf(&b, "| [%s](%s) | %s | %s | %s |\n", r.Alert, strings.TrimPrefix(r.Annotations["page"], "docs/"), r.Labels["severity"], what, r.Annotations["runbook"])
		}
	}
	return b.String()
}
