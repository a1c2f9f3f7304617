package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"srvrelay/relay"
	"srvrelay/relay/config"
)

var profileArgs = map[string][]string{
	"smarthost":       {"smarthost", "--hostname", "Relay.example.net", "--address", "203.0.113.5, 2001:db8::5", "--self-signed", "--postmaster", "admin@example.net"},
	"app":             {"app", "--hostname", "relay.example.net"},
	"app-network":     {"app", "--hostname", "relay.example.net", "--network", "192.168.1.0/24", "--domain", "example.org"},
	"edge":            {"edge", "--hostname", "edge.example.net", "--address", "203.0.113.5", "--domain", "example.org,bücher.example", "--home", "home.example.org:2626", "--self-signed"},
	"edge-route":      {"edge", "--hostname", "edge.example.net", "--address", "203.0.113.5", "--domain", "example.org", "--home", "[2001:db8::9]:2525", "--route", "--self-signed", "--password-stdin"},
	"home":            {"home", "--hostname", "home.example.org", "--edge", "edge.example.net", "--domain", "example.org", "--port", "2626", "--password-stdin"},
	"home-lmtp":       {"home", "--hostname", "home.example.org", "--edge", "edge.example.net", "--domain", "example.org", "--local", "lmtp:///run/dovecot/lmtp", "--password-stdin"},
	"home-both":       {"home", "--hostname", "home.example.org", "--edge", "edge.example.net", "--domain", "example.org,example.com", "--edge-files", "EDGE", "--edge-address", "203.0.113.5", "--yes"},
	"edge-fetch":      {"edge", "--hostname", "edge.example.net", "--address", "203.0.113.5", "--domain", "example.org", "--fetch", "--self-signed"},
	"home-fetch":      {"home", "--hostname", "home.example.org", "--edge", "edge.example.net", "--domain", "example.org,example.com", "--fetch", "--password-stdin"},
	"home-fetch-both": {"home", "--hostname", "home.example.org", "--edge", "edge.example.net", "--domain", "example.org", "--fetch", "--edge-files", "EDGE", "--edge-address", "203.0.113.5", "--self-signed", "--yes"},
	"home-only-sends": {"home", "--hostname", "home.example.org", "--edge", "edge.example.net", "--user", "me", "--password-stdin"},
}

// TestInit: what each profile writes and says, to the letter; the files pass
// check-config without a warning, and the records are lines of a zone.
func TestInit(t *testing.T) {
	for name, args := range profileArgs {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "srvrelay.yaml")
			args := append([]string{"config", "init"}, args...)
			args = append(args, "--out", out, "--data-dir", "/var/lib/srvrelay")
			edge := filepath.Join(dir, "edge")
			if i := slices.Index(args, "EDGE"); i >= 0 {
				args[i] = edge
			}
			code, text := invoke(t, "", "s3cret-given\n", args...)
			if code != 0 {
				t.Fatalf("exit %d\n%s", code, text)
			}
			file, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			checkInitSecrets(t, dir, string(file), text)
			checkInitZone(t, text)
			if slices.Contains(args, edge) {
				text += "\n=====\n" + checkInitEdge(t, dir, edge)
			}
			checkInitText(t, name+".txt", noPassword.ReplaceAllString(strings.ReplaceAll(string(file)+"\n=====\n"+text, dir, "/etc/srvrelay"), "PASSWORD"))
			if code, text := invoke(t, out, "", "check-config"); code != 0 || strings.Contains(text, "warning") {
				t.Errorf("check-config: exit %d\n%s", code, text)
			}
			code, text = invoke(t, "", "s3cret-other\n", args...)
			if code != exitData || !strings.Contains(text, "exists already") || !strings.Contains(text, "Nothing was written: --force replaces") {
				t.Errorf("a second time: exit %d\n%s", code, text)
			}
			if again, _ := os.ReadFile(out); string(again) != string(file) {
				t.Error("the second time has changed the file")
			}
			if strings.Contains(string(file), "users_file") {
				code, text = invoke(t, "", "s3cret-other\n", append(args, "--out", filepath.Join(dir, "other.yaml"))...)
				if code != exitData || !strings.Contains(text, " exists already in "+dir+"/users") {
					t.Errorf("a user who exists: exit %d\n%s", code, text)
				}
			}
			if code, text := invoke(t, "", "s3cret-other\n", append(args, "--force")...); code != 0 {
				t.Errorf("with --force: exit %d\n%s", code, text)
			}
		})
	}
}

var updateInit = flag.Bool("update-init", false, "write testdata/init anew")

func checkInitText(t *testing.T, name, got string) {
	t.Helper()
	checkWritten(t, "../../testdata/init/"+name, got, "-update-init", *updateInit)
}

// checkWritten compares a text with a file, or writes the file anew, which the
// flag with this name asks for.
func checkWritten(t *testing.T, file, got, flag string, update bool) {
	t.Helper()
	if update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s; go test %s if it is meant):\n%s", got, file, flag, want)
	}
}

// noPassword is a password that was made.
var noPassword = regexp.MustCompile(`[a-z2-7]{5}(-[a-z2-7]{5}){4}`)

// checkInitSecrets: a user can log in with what was printed or given; no secret
// is in the configuration or in a file that others can read.
func checkInitSecrets(t *testing.T, dir, file, text string) {
	t.Helper()
	made := noPassword.FindString(text)
	if strings.Contains(file, "s3cret") || made != "" && strings.Contains(file, made) || strings.Contains(text, "s3cret") {
		t.Errorf("a password is shown:\n%s\n%s", file, text)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		public := e.Name() == "srvrelay.yaml" || e.Name() == "tls.crt" || e.Name() == "edge.crt"
		if public != (info.Mode().Perm()&0o004 != 0) || strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s has the mode %v", e.Name(), info.Mode())
		}
		if e.Name() != "users" {
			continue
		}
		password := made
		if made == "" {
			password = "s3cret-given"
		}
		users, err := relay.LoadUsers(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		name := regexp.MustCompile(`User (\S+) may log in`).FindStringSubmatch(text)[1]
		if ok, err := users.Authenticate(name, password); !ok || err != nil {
			t.Errorf("%s cannot log in with %q: %v", name, password, err)
		}
	}
}

// checkInitEdge: home logs in at the edge with the password that it was given;
// the secrets are nobody else's. It returns the edge's configuration.
func checkInitEdge(t *testing.T, dir, edge string) string {
	t.Helper()
	password, err := os.ReadFile(filepath.Join(dir, "edge.pass"))
	if err != nil {
		t.Fatal(err)
	}
	users, err := relay.LoadUsers(filepath.Join(edge, "users"))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := users.Authenticate("home", strings.TrimSpace(string(password))); !ok || err != nil || users.Exposed() {
		t.Errorf("home cannot log in, or everybody reads how: %v, %v, %v", ok, err, users.Exposed())
	}
	file := filepath.Join(edge, "srvrelay.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), strings.TrimSpace(string(password))) {
		t.Errorf("the password is in the configuration:\n%s", text)
	}
	return string(text)
}

// checkInitZone parses the lines that look like records as a zone.
func checkInitZone(t *testing.T, text string) {
	t.Helper()
	n := 0
	for _, line := range strings.Split(text, "\n") {
		if !regexp.MustCompile(`^\S+\.? [0-9]+ IN `).MatchString(line) {
			continue
		}
		n++
		if rr, err := dns.NewRR(line); err != nil || rr == nil || !strings.HasSuffix(rr.Header().Name, ".") {
			t.Errorf("not a record: %s: %v", line, err)
		}
	}
	if n == 0 {
		t.Error("no records")
	}
}

// TestInitForPostfix: Postfix knows every parameter that it is told.
func TestInitForPostfix(t *testing.T) {
	postconf := needs(t, "postconf")["postconf"]
	dir := t.TempDir()
	_, text := invoke(t, "", "", append(append([]string{"config", "init"}, profileArgs["edge"]...), "--out", filepath.Join(dir, "srvrelay.yaml"))...)
	var main strings.Builder
	for _, line := range strings.Split(text, "\n") {
		if regexp.MustCompile(`^(smtp_[a-z_CAS]+|relayhost|mydestination) = `).MatchString(line) {
			main.WriteString(line + "\n")
		}
	}
	if strings.Count(main.String(), "\n") != 7 {
		t.Errorf("not all lines are there:\n%s", main.String())
	}
	writeFile(t, dir, "main.cf", "compatibility_level = 3.6\n"+main.String())
	writeFile(t, dir, "master.cf", regexp.MustCompile(`(?m)^2626 inet .*$`).FindString(text)+"\n")
	out, err := exec.Command(postconf, "-c", dir, "-n").CombinedOutput()
	if err != nil || strings.Contains(string(out), "unused parameter") || strings.Contains(string(out), "warning") || !strings.Contains(string(out), "smtp_tls_security_level = secure") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := exec.Command(postconf, "-c", dir, "-M").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "2626 ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestInitRefuses: what is missing or wrong, all flags at once, and nothing
// written.
func TestInitRefuses(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "srvrelay.yaml")
	for _, c := range []struct {
		args string
		code int
		want []string
	}{
		{"", 0, []string{"smarthost", "app", "edge", "home"}},
		{"mailhost", exitUsage, []string{`unknown command "mailhost"`}},
		{"edge --hostname edge.example.net --address 203.0.113.5", exitUsage, []string{"these flags must be set", "--domain ", "--home ", "srvrelay config init edge --help"}},
		{"app --yes", exitUsage, []string{"--yes asks nothing, so these flags must be set", "--hostname ", "--domain "}},
		{"home --hostname h.example.org --edge e.example.net", exitUsage, []string{"--password-stdin"}},
		{"smarthost --hostname relay", exitUsage, []string{`--hostname: "relay" is not a full name`}},
		{"smarthost --hostname r.example.net --address relay", exitUsage, []string{`--address: "relay" is not an IP address`}},
		{"smarthost --hostname r.example.net --address 203.0.113.5:25", exitUsage, []string{`--address: "203.0.113.5:25" is not an IP address`}},
		{"smarthost --hostname r.example.net --address 203.0.113.5 --user a:b", exitUsage, []string{"--user: "}},
		{"smarthost --hostname r.example.net --address 203.0.113.5 --certificate tls.crt", exitUsage, []string{"--certificate: ", "not an absolute path"}},
		{"app --hostname r.example.net --network 0.0.0.0/0", exitUsage, []string{"--network: ", "open relay"}},
		{"edge --hostname e.example.net --address 203.0.113.5 --domain example.org --home smtp://h.example.org", exitUsage, []string{"--home: ", "is not host:port"}},
		{"edge --hostname e.example.net --address 203.0.113.5 --domain example.org,* --home h.example.org:2525", exitUsage, []string{"--domain: "}},
		{"edge --hostname e.example.net --address 203.0.113.5 --domain example.org --home 192.0.2.1:2525", exitUsage, []string{"--home: an SRV record names a host", "--route"}},
		{"edge --hostname e.example.net --address 203.0.113.5 --domain example.org --home h.example.org:0", exitUsage, []string{"--home: "}},
		{"home --hostname h.example.org --edge e.example.net --edge-files edge", exitUsage, []string{"--edge-files: an edge takes mail for domains: name them with --domain"}},
		{"home --hostname h.example.org --edge e.example.net --domain example.org --edge-files edge", exitUsage, []string{"these flags must be set", "--edge-address "}},
		{"home --hostname h.example.org --edge e.example.net --domain example.org --edge-files edge --edge-address 203.0.113.5 --self-signed --ca-file /etc/ssl/ca.pem", exitUsage, []string{"leave out --ca-file"}},
		{"home --hostname h.example.org --edge e.example.net --fetch", exitUsage, []string{"--fetch: the edge keeps mail for domains: name them with --domain"}},
		{"home --hostname h.example.org --edge e.example.net --domain example.org --port 2525 --fetch", exitUsage, []string{"--port: with --fetch nothing connects to home: leave it out"}},
		{"edge --hostname e.example.net --address 203.0.113.5 --domain example.org --home h.example.org:1 --fetch", exitUsage, []string{"--home: with --fetch nothing connects to home"}},
		{"home --hostname h.example.org --edge e.example.net --self-signed --password-stdin", exitUsage, []string{"--self-signed: only with --edge-files"}},
		{"app --hostname r.example.net --data-dir here", exitUsage, []string{"--data-dir: ", "not an absolute path"}},
		{"app --hostname r.example.net --out /nowhere/srvrelay.yaml", exitData, []string{"/nowhere is not a folder"}},
	} {
		args := []string{"config", "init"}
		if f := strings.Fields(c.args); len(f) > 1 {
			args = append(append(args, f[0], "--out", out), f[1:]...)
		} else {
			args = append(args, f...)
		}
		code, text := invoke(t, "", "", args...)
		if code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s", c.args, code, c.code, text)
		}
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is missing in\n%s", c.args, w, text)
			}
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestInitAsks: at a terminal each question is asked, again after a wrong
// answer, and passwords are not shown.
func TestInitAsks(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "srvrelay.yaml")
	code, text := invokeAtTerminal(t, "", []dialogue{
		{"Full name of this machine", "home"}, {`"home" is not a full name`, "home.example.org"},
		{"Full name of the edge", "edge.example.net"}, {"Name to log in with [home]: ", ""},
		{"Domains whose mail the edge brings here (empty: none)", "example.org"},
		{"Password of home at edge.example.net: ", "s3cret-typed"},
	}, "config", "init", "home", "--out", out, "--data-dir", dir)
	if code != 0 || strings.Contains(text, "s3cret") || !strings.Contains(text, "_smtp._tcp.example.org. 300 IN SRV 10 0 2525 home.example.org.") {
		t.Fatalf("exit %d\n%s", code, text)
	}
	cfg, err := config.Load(out, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	target := cfg.Routes[1].To[0]
	if password, err := target.Password(nil); err != nil || password != "s3cret-typed" || target.Username != "home" || target.Host != "edge.example.net" {
		t.Errorf("got %q, %v, %+v", password, err, target)
	}
	if code, text := invokeAtTerminal(t, "", nil, "config", "init", "app", "--yes", "--hostname", "a.example.net", "--out", filepath.Join(dir, "app.yaml")); code != 0 {
		t.Errorf("with --yes it asks: exit %d\n%s", code, text)
	}
}

// TestUserAddAsks: twice, without showing it.
func TestUserAddAsks(t *testing.T) {
	dir := t.TempDir()
	file := configFile(t, "hostname: relay.test\ndata_dir: "+dir+"\n")
	code, text := invokeAtTerminal(t, file, []dialogue{{"Password of app: ", "s3cret-one"}, {"The same again: ", "s3cret-two"}}, "user", "add", "app")
	if code != exitUsage || !strings.Contains(text, "not the same") || strings.Contains(text, "s3cret") {
		t.Errorf("two different ones: exit %d\n%s", code, text)
	}
	code, text = invokeAtTerminal(t, file, []dialogue{{"Password of app: ", "s3cret-one"}, {"The same again: ", "s3cret-one"}}, "user", "add", "app")
	if code != 0 || !strings.Contains(text, "app may submit now") || strings.Contains(text, "s3cret") {
		t.Errorf("exit %d\n%s", code, text)
	}
	users, err := relay.LoadUsers(filepath.Join(dir, "users"))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := users.Authenticate("app", "s3cret-one"); !ok || err != nil {
		t.Errorf("cannot log in: %v", err)
	}
}

// TestConfigCommands: show is a configuration, with the sources; schema is the
// stored one.
func TestConfigCommands(t *testing.T) {
	dir := t.TempDir()
	file := configFile(t, "hostname: relay.test.example\ndata_dir: "+dir+"\nroutes: [{ domains: [a.example], to: [{ url: \"submission://b.example\", username: me, password_file: "+dir+"/pass }] }]\n")
	writeFile(t, dir, "pass", "s3cret\n")
	code, shown := invoke(t, file, "", "config", "show", "--log-level=debug")
	for _, want := range []string{"hostname: relay.test.example", "# " + file + ":1", "# flag --log-level", "# default", "password_file: " + dir + "/pass"} {
		if code != 0 || !strings.Contains(shown, want) {
			t.Errorf("exit %d, %q is missing in\n%s", code, want, shown)
		}
	}
	again := configFile(t, shown)
	if code, text := invoke(t, again, "", "config", "check"); code != 0 || !strings.Contains(text, "1 route, ") {
		t.Errorf("config check of what is shown: exit %d\n%s", code, text)
	}
	code, text := invoke(t, file, "", "config", "show", "--json")
	if code != 0 || !strings.Contains(text, `"key": "routes[0].to[0].password_file"`) || strings.Contains(text+shown, "s3cret") {
		t.Errorf("exit %d\n%s", code, text)
	}
	stored, err := os.ReadFile("../../docs/srvrelay.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if code, text := invoke(t, file, "", "config", "schema"); code != 0 || text != string(stored) {
		t.Errorf("exit %d, or not the stored schema", code)
	}
}

// TestCheckConfigFiles: all files that are wrong, at once.
func TestCheckConfigFiles(t *testing.T) {
	dir := t.TempDir()
	users := writeFile(t, dir, "users", "app:no-hash\n")
	file := configFile(t, "hostname: relay.test.example\ndata_dir: "+dir+"\nauth: { users_file: "+users+" }\ntls:\n  certificate: /none/crt\n  key: /none/key\n"+
		"routes: [{ domains: [a.example], to: [{ url: \"submission://b.example\", username: me, password_env: NONE }] }]\n")
	code, text := invoke(t, file, "", "check-config")
	if !strings.Contains(text, ":7:100: routes[0].to[0].password_env: the environment variable NONE is not set, or empty\n4 problems") {
		t.Error("not in the order of the file")
	}
	for _, want := range []string{
		":3:21: auth.users_file: " + users + ":1: ", ":5:16: tls.certificate: \"/none/crt\" cannot be read", ":6:8: tls.key: \"/none/key\" cannot be read",
		":7:100: routes[0].to[0].password_env: the environment variable NONE is not set", "can be read by every user", "4 problems",
	} {
		if code != exitConfig || !strings.Contains(text, want) {
			t.Errorf("exit %d, %q is missing in\n%s", code, want, text)
		}
	}
}

// TestInitForExim: Exim takes the lines that it is told: mail for others goes
// to the edge, by verified TLS, and on the second port it takes mail from the
// edge only.
func TestInitForExim(t *testing.T) {
	const peers = "/opt/srvrelay-peers/exim"
	if _, err := os.Stat(peers); err != nil || os.Getuid() != 0 {
		unable(t, "Exim is not unpacked to "+peers+", or this is not root")
	}
	needs(t, "unshare", "bash")
	dir := peerDir(t)
	_, text := invoke(t, "", "", append(append([]string{"config", "init"}, profileArgs["edge"]...), "--out", filepath.Join(dir, "srvrelay.yaml"))...)
	part := func(from, to string) string {
		p := regexp.MustCompile(`(?ms)^` + from + `$.*?^` + to + `[^\n]*\n`).FindString(text)
		if p == "" {
			t.Fatalf("nothing from %s to %s in\n%s", from, to, text)
		}
		return p
	}
	writeFile(t, dir, "exim.conf", "primary_hostname = home.example.org\nspool_directory = "+dir+"/spool\nlog_file_path = "+dir+"/%slog\nacl_smtp_rcpt = check_rcpt\n"+
		part("daemon_smtp_ports [^\n]*", "domainlist")+
		"begin acl\ncheck_rcpt:\n"+part("  defer", "    !hosts")+"  accept\n"+
		"begin routers\n"+part("edge:", "  no_more")+
		"begin transports\n"+part("edge_smtp:", "  tls_verify_certificates")+
		"begin authenticators\n"+part("edge_login:", "  client_send"))
	writeFile(t, dir, "talk", "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<you@example.org>\r\nQUIT\r\n")
	// Debian's Exim wants its user, which is there within this namespace only.
	writeFile(t, dir, "passwd", "root:x:0:0::/root:/bin/sh\nDebian-exim:x:65533:65533::/:/bin/false\n")
	writeFile(t, dir, "group", "root:x:0:\nDebian-exim:x:65533:\n")
	exim := func(args string) string {
		script := "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec env LD_LIBRARY_PATH=" +
			peers + "/usr/lib:" + peers + "/usr/lib/x86_64-linux-gnu " + peers + "/usr/sbin/exim4 -C " + dir + "/exim.conf " + args
		cmd := exec.Command("unshare", "-m", "-n", "bash", "-c", script)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	for args, want := range map[string]string{
		"-bP transport edge_smtp":                        "tls_verify_hosts = *",
		"-bP authenticator edge_login":                   "public_name = PLAIN",
		"-bP router edge":                                "route_list = * edge.example.net::587 byname",
		"-bh 192.0.2.1.5000 -oMi 127.0.0.1.2626 <talk":   "only the edge brings mail here",
		"-bh 203.0.113.5.5000 -oMi 127.0.0.1.2626 <talk": "250 Accepted",
		"-bh 192.0.2.1.5000 -oMi 127.0.0.1.25 <talk":     "250 Accepted",
	} {
		if out := exim(args); !strings.Contains(out, want) {
			t.Errorf("exim %s: %q is missing in\n%s", args, want, out)
		}
	}
}
