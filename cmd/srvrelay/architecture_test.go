package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed is the picture in ARCHITECTURE.md as a table: which of our packages
// each package may import.
var allowed = map[string][]string{
	"srvrelay/queue":               {},
	"srvrelay/queue/pebblestore":   {"srvrelay/queue"},
	"srvrelay/queue/queuetest":     {"srvrelay/queue"},
	"srvrelay/dnsutil":             {},
	"srvrelay/dnsutil/dnsserver":   {},
	"srvrelay/delivery":            {"srvrelay/queue", "srvrelay/delivery/plan", "srvrelay/delivery/smtpclient"},
	"srvrelay/delivery/plan":       {"srvrelay/queue", "srvrelay/dnsutil"},
	"srvrelay/delivery/smtpclient": {},
	"srvrelay/relay":               {"srvrelay/queue", "srvrelay/relay/dkim"},
	"srvrelay/relay/dkim":          {},
	"srvrelay/relay/mailauth":      {"srvrelay/dnsutil"},
	"srvrelay/relay/sendmail":      {"srvrelay/delivery/smtpclient"},
	"srvrelay/relay/sink":          {},
	"srvrelay/relay/acme":          {"srvrelay/dnsutil"},
	"srvrelay/relay/acme/acmetest": {},
	"srvrelay/relay/config":        {},
	"srvrelay/relay/metrics":       {"srvrelay/queue"},
	"srvrelay/relay/oauth":         {},
	"srvrelay/relay/publish":       {},
	"srvrelay/relay/fetch":         {"srvrelay/delivery/smtpclient"},
	"srvrelay/relay/admin":         {"srvrelay/queue", "srvrelay/delivery", "srvrelay/delivery/plan"},
	"srvrelay/relay/doctor":        {"srvrelay/queue", "srvrelay/dnsutil", "srvrelay/delivery/plan", "srvrelay/relay/config", "srvrelay/relay/acme", "srvrelay/relay/dkim", "srvrelay/relay/publish"},
	"srvrelay/cmd/srvrelay":        nil, // wires: everything
	"srvrelay/cmd/relaybench":      {"srvrelay/dnsutil/dnsserver"},
}

// keepers are the only packages that may import a library, so that it can be
// replaced.
var keepers = map[string][]string{
	"github.com/miekg/dns":                  {"srvrelay/dnsutil", "srvrelay/dnsutil/dnsserver"},
	"github.com/cockroachdb/pebble/v2":      {"srvrelay/queue/pebblestore"},
	"github.com/spf13/viper":                {"srvrelay/relay/config"},
	"go.yaml.in/yaml/v3":                    {"srvrelay/relay/config"},
	"github.com/emersion/go-smtp":           {"srvrelay/relay", "srvrelay/cmd/srvrelay"},
	"github.com/emersion/go-sasl":           {"srvrelay/relay", "srvrelay/delivery/smtpclient"},
	"github.com/emersion/go-msgauth":        {"srvrelay/relay/dkim", "srvrelay/relay/mailauth"},
	"github.com/pires/go-proxyproto":        {"srvrelay/relay"},
	"github.com/mholt/acmez/v3":             {"srvrelay/relay/acme"},
	"github.com/letsencrypt/pebble/v2":      {"srvrelay/relay/acme/acmetest"},
	"blitiri.com.ar/go/spf":                 {"srvrelay/relay/mailauth"},
	"github.com/xdg-go/scram":               {"srvrelay/relay", "srvrelay/delivery/smtpclient"},
	"github.com/go-jose/go-jose/v4":         {"srvrelay/relay/oauth"},
	"github.com/pb33f/libopenapi":           {}, // tests only
	"github.com/pb33f/libopenapi-validator": {},
	"github.com/spf13/cobra":                {"srvrelay/cmd/srvrelay"},
	"github.com/lmittmann/tint":             {"srvrelay/cmd/srvrelay"},
	"github.com/go-viper/mapstructure/v2":   {"srvrelay/relay/config"},
	"github.com/prometheus":                 {"srvrelay/relay/metrics"},
	"github.com/coreos/go-systemd/v22":      {"srvrelay/cmd/srvrelay"},
}

// TestImports keeps the packages blind to what they must not know.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "srvrelay/...").Output()
	if err != nil {
		t.Fatal("go list:", err)
	}
	seen := 0
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		pkg, imports, _ := strings.Cut(line, " ")
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s is not in the picture: add it there and in ARCHITECTURE.md", pkg)
			continue
		}
		seen++
		for _, imp := range strings.Fields(imports) {
			if strings.HasPrefix(imp, "srvrelay/") && may != nil && !slices.Contains(may, imp) {
				t.Errorf("%s must not import %s", pkg, imp)
			}
			for lib, who := range keepers {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(who, pkg) {
					t.Errorf("%s must not import %s: that is the business of %v", pkg, imp, who)
				}
			}
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d packages found, %d are in the picture", seen, len(allowed))
	}
}
