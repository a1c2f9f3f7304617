package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

var compare = cmp.Options{
	cmpopts.IgnoreUnexported(Config{}),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

func prefixes(words ...string) []netip.Prefix {
	ps := []netip.Prefix{}
	for _, w := range words {
		ps = append(ps, netip.MustParsePrefix(w))
	}
	return ps
}

// defaults is what the documentation promises for a start without a file.
func defaults() *Config {
	return &Config{
		Hostname:  "host.example.net",
		DataDir:   "/home/test/.local/state/srvrelay",
		Listeners: []Listener{{Address: "127.0.0.1:2525", Mode: Submission, TLS: TLSNone}},
		TLS: TLS{ACME: ACME{
			Challenge: ACMENone, Directory: "https://acme-v02.api.letsencrypt.org/directory", Names: []string{},
			DNS: ACMEUpdate{KeyAlgorithm: "hmac-sha256", Propagation: 10 * time.Second},
		}},
		TrustedNetworks: prefixes("127.0.0.0/8", "::1/128"),
		Auth:            Auth{UsersFile: "/home/test/.local/state/srvrelay/users"},
		RelayDomains:    []string{},
		Recipients:      Recipients{Check: "none", List: []string{}, Unknown: "accept", PositiveFor: time.Hour, NegativeFor: 5 * time.Minute},
		PublicAddresses: []netip.AddrPort{},
		Submission: SubmissionRules{Senders: []SenderRule{}, Limits: []LimitRule{{User: "*", Recipients: "5000/h"}}, Headers: HeaderRules{Add: []string{"date", "message-id"}, Remove: []string{"bcc"}}, OAuth: OAuth{UserClaim: "email"},
			Anomaly: Anomaly{Action: "warn", VolumeFactor: 5, VolumeFloor: 500, UnknownShare: 30, UnknownFloor: 50, Exempt: []string{}, Networks: prefixes()}},
		DKIM:    []DKIMKey{},
		Routes:  []Route{},
		Homes:   []Home{},
		Fetch:   []Fetch{},
		Limits:  Limits{MaxMessageSize: 50 << 20, MaxRecipients: 1000, MinFree: 100 << 20, MaxQueuedMessages: 2_000_000, MaxQueueSize: 8 << 30, MaxConnections: 500, MaxConnectionsPerAddress: 50, MaxConnectionsPerMinute: 6000, MaxCommandsPerSecond: 5000},
		Bans:    Bans{Failures: 10, Within: 10 * time.Minute, For: time.Hour, Max: 24 * time.Hour, NameFailures: 30, Exempt: prefixes()},
		DNS:     DNS{Servers: []string{}},
		History: History{Keep: 14 * 24 * time.Hour, MaxSize: 1 << 30},
		Delivery: Delivery{
			Services: []string{"_smtp._tcp"}, MXFallback: true, MXPort: 25, ConnectionsPerTarget: 10, Concurrency: 200,
			Timeouts: Timeouts{Connect: 10 * time.Second, Greeting: 30 * time.Second},
			Retry: Retry{
				Schedule:    []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour},
				ExpireAfter: 120 * time.Hour, DelayNoticeAfter: 4 * time.Hour,
			},
			HomeRetry: HomeRetry{ExpireAfter: 14 * 24 * time.Hour}, AwayNoticeAfter: 24 * time.Hour,
			Egress: Egress{Allow: prefixes(), AllowPorts: []uint16{}, DenyPorts: []uint16{}},
		},
		Admin:   Admin{Socket: "/home/test/.local/state/srvrelay/admin.sock", Hosts: []string{}},
		Tracing: Tracing{OneIn: 1},
		Log:     Log{Level: "info", Format: "auto"},
	}
}

func TestDefaults(t *testing.T) {
	none, err := load(source{environ: testEnv, machine: testMachine})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults(), none, compare); diff != "" {
		t.Error("without a file:", diff)
	}
	want := defaults()
	want.File = "srvrelay.yaml"
	for _, text := range []string{"", "# nothing\n", "---\n", "\ufeff", "{}", "delivery:\n"} {
		got, err := loadText(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, got, compare); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// TestExample: the documentation's example has every key, and means this.
func TestExample(t *testing.T) {
	got, err := loadText(Example())
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.File = "srvrelay.yaml"
	want.Hostname = "relay.example.net"
	want.DataDir = "/var/lib/srvrelay"
	want.Listeners = []Listener{
		{Address: ":587", Mode: Submission, TLS: TLSStartTLS, TrustedNetworks: prefixes()},
		{Address: ":465", Mode: Submission, TLS: TLSImplicit},
		{Address: ":25", Mode: Inbound, TLS: TLSStartTLS},
	}
	want.TLS.Certificate, want.TLS.Key = "/etc/srvrelay/tls.crt", "/etc/srvrelay/tls.key"
	want.Auth.UsersFile = "/etc/srvrelay/users"
	want.RelayDomains = []string{"home.example.org"}
	want.Recipients.Check = "ask"
	want.PublicAddresses = []netip.AddrPort{netip.MustParseAddrPort("203.0.113.5:0"), netip.MustParseAddrPort("203.0.113.5:25")}
	want.Postmaster = "admin@example.org"
	loop := netip.MustParsePrefix("127.0.0.0/8")
	want.Bans.Exempt = prefixes("198.51.100.0/24")
	want.Submission.Senders = []SenderRule{
		{User: "newsletter", From: []string{"news@example.org", "bounce+*@example.org", "@lists.example.org"}},
		{Network: &loop, From: []string{"@example.org", "@.example.org"}},
	}
	want.Submission.Limits = []LimitRule{
		{User: "*", Messages: "200/h", Recipients: "1000/h", Bytes: "1GiB/d"},
		{User: "newsletter", Recipients: "20000/h"},
		{Network: &loop, Messages: "3000/h"},
	}
	want.Submission.Anomaly = Anomaly{
		Action: "hold", VolumeFactor: 5, VolumeFloor: 200, UnknownShare: 30, UnknownFloor: 20,
		Exempt: []string{"newsletter", "mailserver"}, Networks: prefixes("10.0.0.0/8"),
	}
	want.Submission.OAuth = OAuth{
		IntrospectionURL: "https://login.example.org/introspect", ClientID: "srvrelay", ClientSecretFile: "/etc/srvrelay/oauth.secret",
		Issuer: "https://login.example.org", Audience: "smtp", UserClaim: "email",
	}
	want.Submission.Total = Rates{Messages: "10000/h", Recipients: "50000/h", Bytes: "20GiB/d"}
	want.Submission.Headers = HeaderRules{Add: []string{"date", "message-id", "from"}, Remove: []string{"bcc", "received"}}
	want.DKIM = []DKIMKey{{Domain: "example.org", Selector: "s2026", KeyFile: "/var/lib/srvrelay/dkim/example.org.s2026.pem"}}
	day := 24 * time.Hour
	want.Routes = []Route{
		{Name: "isp", Domains: []string{"a.example", ".a.example"}, Senders: []string{"@app.example"}, Action: Deliver, ExpireAfter: &day, To: []RouteTarget{
			{URL: "submissions://smtp.isp.example", Username: "me", PasswordFile: "/etc/srvrelay/isp.pass", Auth: AuthBest, TLS: TLSVerify, Scheme: SchemeSubmissions, Host: "smtp.isp.example", Port: 465},
			{URL: "smtp://[2001:db8::1]:2525", TLS: TLSEncrypt, Scheme: SchemeSMTP, Host: "2001:db8::1", Port: 2525},
		}},
		{Domains: []string{"e.example"}, Action: Hold},
		{Domains: []string{"f.example"}, Action: Reject, Text: "mail for f.example has ended"},
	}
	want.Homes = []Home{{User: "home", Domains: []string{"home.example.org"}}}
	want.Fetch = []Fetch{{
		From: "atrn://vps.example.net:366", User: "home", PasswordFile: "/etc/srvrelay/fetch.pass", Deliver: "smtp://127.0.0.1",
		Host: "vps.example.net", Port: 366, DeliverHost: "127.0.0.1", DeliverPort: 25,
	}}
	want.DNS.Servers = []string{"127.0.0.1:53"}
	want.Admin.Socket, want.Admin.Listen, want.Admin.TokenFile = "/var/lib/srvrelay/admin.sock", "127.0.0.1:8025", "/etc/srvrelay/admin-token"
	if diff := cmp.Diff(want, got, compare); diff != "" {
		t.Error(diff)
	}
	for _, n := range schema().leaves() {
		if _, written := got.origins[n.Path]; !written {
			t.Errorf("%s is not in the example", n.Path)
		}
	}
}

// TestCanonical: what may be written in several ways comes out in one.
func TestCanonical(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(goldenDir, "inbound-home.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := loadText(string(text))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Hostname, c.Postmaster, c.Listeners[0].Address, c.Listeners[0].TLS}
	got = append(append(got, c.RelayDomains...), c.DNS.Servers...)
	for _, a := range c.PublicAddresses {
		got = append(got, a.String())
	}
	want := []string{
		"mx.home.example.org", "Admin@xn--bcher-kva.example", "[::]:2525", "starttls",
		"home.example.org", ".lan", "xn--bcher-kva.example",
		"127.0.0.1:53", "[::1]:53", "[::1]:5353", "resolver.example:53",
		"203.0.113.5:0", "[2001:db8::5]:0", "[2001:db8::5]:25",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLayers(t *testing.T) {
	const file = "hostname: file.example.net\ndelivery: { mx_port: 1025, mx_fallback: true, timeouts: { connect: 1s, greeting: 2s } }\n"
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(fs)
	fs.Bool("json", false, "no key of ours")
	if err := fs.Parse([]string{"--delivery-mx-port=3025", "--dns-trust-ad", "--json", "--log-level", "debug"}); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"SRVRELAY_DELIVERY_MX_PORT=9", "SRVRELAY_DELIVERY_MX_PORT=2025", "SRVRELAY_DELIVERY_TIMEOUTS_CONNECT=3s",
		"SRVRELAY_DELIVERY_MX_FALLBACK=false", "SRVRELAY_DATA_DIR=/srv/mail", "SRVRELAY_POSTMASTER=", "SRVRELAY_DELIVERY_CONCURRENCY=",
		"SRVRELAY_CONFIG=/nowhere", "SRVRELAY_STRESS=1", "SRVRELAY_TEST_BIN=x", "HOME=/home/test", "OTHER_HOSTNAME=x",
	}
	c, err := load(source{"srvrelay.yaml", []byte(file), fs, env, testMachine})
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.File, want.Hostname, want.DataDir = "srvrelay.yaml", "file.example.net", "/srv/mail"
	want.Auth.UsersFile, want.Admin.Socket = "/srv/mail/users", "/srv/mail/admin.sock"
	want.DNS.TrustAD, want.Log.Level = true, "debug"
	want.Delivery.MXPort, want.Delivery.MXFallback = 3025, false
	want.Delivery.Timeouts = Timeouts{Connect: 3 * time.Second, Greeting: 2 * time.Second}
	if diff := cmp.Diff(want, c, compare); diff != "" {
		t.Error(diff)
	}
}

// TestLayerProblems: all layers at once, in their order, named as the operator
// set them.
func TestLayerProblems(t *testing.T) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(fs)
	if err := fs.Parse([]string{"--log-format=jsn", "--tls-key=/k"}); err != nil {
		t.Fatal(err)
	}
	env := []string{
		"SRVRELAY_DELIVERY_MX_PORT=abc", "SRVRELAY_HOSTNME=x", "SRVRELAY_RELAY_DOMAINS=a.example", "SRVRELAY_TRUSTED\x1b=1",
		"SRVRELAY_DATA_DIR=/" + strings.Repeat("d", 110), "HOME=/home/test",
	}
	_, err := load(source{"srvrelay.yaml", []byte("hostname: relay.example.net\nlog: { level: 5 }\n"), fs, env, testMachine})
	want := strings.TrimSpace(`
srvrelay.yaml:2:15: log.level: "5" is not one of debug, info, warn, error
SRVRELAY_DELIVERY_MX_PORT: "abc" is not a port from 1 to 65535
SRVRELAY_HOSTNME: no key of the configuration has this name (did you mean SRVRELAY_HOSTNAME?)
SRVRELAY_RELAY_DOMAINS: relay_domains is a list, which only the file can set
SRVRELAY_TRUSTED\x1b: no key of the configuration has this name
SRVRELAY_DATA_DIR: admin.sock in it has a path of 122 bytes, and a Unix socket's may have 104: set a shorter admin.socket
--log-format: "jsn" is not one of auto, text, json (did you mean json?)
--tls-key: is a key without tls.certificate: set both or none`)
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestFlagsInHelp(t *testing.T) {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(fs)
	var shown []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			shown = append(shown, f.Name)
		}
	})
	if want := []string{"data-dir", "hostname", "log-format", "log-level"}; !slices.Equal(shown, want) {
		t.Errorf("got %v, want %v", shown, want)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	there, env := filepath.Join(dir, "there.yaml"), []string{EnvFile + "=/from/env.yaml"}
	for _, name := range []string{there, "srvrelay.yaml"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		flag, system, want string
		env                []string
	}{
		{"/flag.yaml", there, "/flag.yaml", env},
		{"", there, "/from/env.yaml", env},
		{"", there, there, []string{EnvFile + "="}},
		{"", filepath.Join(dir, "missing.yaml"), "", nil}, // not ./srvrelay.yaml
	} {
		if got := find(c.flag, c.env, c.system); got != c.want {
			t.Errorf("find(%q, %v, %q) = %q, want %q", c.flag, c.env, c.system, got, c.want)
		}
	}
}

func TestDataDir(t *testing.T) {
	for _, c := range []struct {
		root              bool
		state, home, want string
	}{
		{true, "/s", "/root", "/var/lib/srvrelay"},
		{false, "/s", "/home/a", "/s/srvrelay"},
		{false, "s", "/home/a", "/home/a/.local/state/srvrelay"},
		{false, "", "/var/lib/srvrelay", "/var/lib/srvrelay"}, // the service of the packages
		{false, "", "", ""},
	} {
		if got := defaultDataDir(c.root, c.state, c.home); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
	_, err := load(source{machine: testMachine})
	if err == nil || err.Error() != "data_dir: has no default, as neither $XDG_STATE_HOME nor $HOME is set: name a folder" {
		t.Error(err)
	}
}

// TestLoadFile reads real files through the exported function.
func TestLoadFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "hostname: relay.example.net\r\ndata_dir: /srv/mail\r\n")
	if c, err := Load(good, nil, nil); err != nil || c.Hostname != "relay.example.net" || c.DataDir != "/srv/mail" || c.File != good {
		t.Errorf("got %+v, %v", c, err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing.yaml"): "missing.yaml: does not exist (--config FILE or $SRVRELAY_CONFIG names the configuration)",
		dir:                                ": is a folder, want a file",
		write("long.yaml", strings.Repeat("#", maxFile+1)): "long.yaml: is longer than 1MiB, which no configuration is",
		write("wrong\n.yaml", "a: 1\n"):                    `wrong\n.yaml:1:1: a: unknown key (known here: `,
	} {
		if _, err := Load(path, nil, nil); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
