package acmetest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// knotFolder is where .ci/peers unpacks Knot DNS.
const knotFolder = "/opt/srvrelay-peers/knot/usr"

// Knot is a name server that takes dynamic updates of TXT records.
type Knot struct {
	Addr               string // address:port, UDP and TCP
	Key, Secret, Other string // of the key, hmac-sha256, and another secret, in base64
}

// StartKnot serves a zone, or skips the test where there is no Knot DNS. rules
// are more lines of its access rule.
func StartKnot(t testing.TB, zone, records string, rules ...string) Knot {
	t.Helper()
	program := filepath.Join(knotFolder, "sbin", "knotd")
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("SRVRELAY_NOSKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	libraries, err := filepath.Glob(filepath.Join(knotFolder, "lib", "*-linux-gnu*"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	port := FreePort(t)
	k := Knot{net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "srvrelay", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhl"}
	for name, text := range map[string]string{
		"zone": fmt.Sprintf("%[1]s. 60 IN SOA ns.%[1]s. admin.%[1]s. 1 60 60 60 1\n%[1]s. 60 IN NS ns.%[1]s.\nns.%[1]s. 60 IN A 127.0.0.1\n%[2]s", zone, records),
		"knot.conf": fmt.Sprintf(`
server:
    listen: 127.0.0.1@%d
    rundir: "%s"
database:
    storage: "%[2]s"
log:
  - target: stderr
    any: info
key:
  - id: %s
    algorithm: hmac-sha256
    secret: %s
acl:
  - id: update
    key: %[3]s
    action: update
    %[5]s
zone:
  - domain: %[6]s
    storage: "%[2]s"
    file: zone
    acl: update
    zonefile-sync: -1
    journal-content: all
`, port, dir, k.Key, k.Secret, strings.Join(rules, "\n    "), zone),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-c", filepath.Join(dir, "knot.conf"))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan struct{}), make(chan string, 1)
	go func() {
		var log []string
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log = append(log, lines.Text())
			if strings.Contains(lines.Text(), "server started") {
				close(started)
			}
		}
		_ = cmd.Wait()
		ended <- strings.Join(log, "\n")
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if log := <-ended; t.Failed() {
			t.Logf("log of Knot:\n%s", log)
		}
	})
	select {
	case <-started:
	case log := <-ended:
		ended <- log
		t.Fatal("Knot did not start")
	}
	return k
}
