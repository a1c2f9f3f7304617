//go:build linux

package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/relay/sink"
)

func init() {
	faultsByHand = map[string]func(*testing.T) faultyPlace{
		"an-application-has-a-wrong-password": func(t *testing.T) faultyPlace {
			p := newFaultyPlace(t, "", "")
			p.user(t)
			p.stdin = "wrong\n"
			return p
		},
		"an-application-has-a-wrong-user-name": func(t *testing.T) faultyPlace {
			p := newFaultyPlace(t, "", "")
			p.user(t)
			return p
		},
		"a-password-file-is-missing": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, "", `routes: [{ domains: ["*"], to: [{ url: "submission://smtp.isp.example", username: me, password_file: /etc/srvrelay/isp.pass }] }]`)
		},
		"a-typing-error-in-the-configuration": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, "", "delivery: { retries: 3 }")
		},
		"another-program-has-the-port": func(t *testing.T) faultyPlace {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return newFaultyPlace(t, "", fmt.Sprintf(`listeners: [{ address: %q, mode: submission, tls: none }]`, l.Addr()))
		},
		"the-listener-s-address-is-not-there": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, "", "relay_domains: [example.org]\nlisteners: [{ address: \"192.0.2.1:2525\", mode: inbound, tls: starttls }]")
		},
		"the-relay-runs-already": func(t *testing.T) faultyPlace {
			p := newFaultyPlace(t, "", "")
			startRelay(t, p.config)
			return p
		},
		"the-relay-does-not-run": func(t *testing.T) faultyPlace {
			p := newFaultyPlace(t, "", "")
			if _, err := startRelay(t, p.config).terminate(); err != nil {
				t.Fatal(err)
			}
			return p
		},
		"no-resolver-answers": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, "", `dns: { servers: ["127.0.0.1:1"] }`).running(t, "you@example.org")
		},
		"the-resolver-invents-addresses": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, ";!invent 127.0.0.80", "")
		},
		"the-resolver-drops-questions-for-srv": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, ";!drop _smtp._tcp.gmail.com SRV", "")
		},
		"the-hostname-has-no-address": func(t *testing.T) faultyPlace {
			return newFaultyPlace(t, "", "hostname: mail.client.example")
		},
		"the-relay-s-certificate-has-expired": func(t *testing.T) faultyPlace {
			return withCertificate(t, "relay.test", true).running(t, "")
		},
		"the-relay-s-certificate-is-for-another-name": func(t *testing.T) faultyPlace {
			return withCertificate(t, "other.test", false).running(t, "")
		},
		"anybody-may-write-to-the-users-file": func(t *testing.T) faultyPlace {
			p := newFaultyPlace(t, "", "")
			p.user(t)
			if err := os.Chmod(filepath.Join(filepath.Dir(p.config), "users"), 0o666); err != nil {
				t.Fatal(err)
			}
			return p.running(t, "")
		},
		"the-disk-is-full": func(t *testing.T) faultyPlace {
			d := smallDisk(t, "32m")
			d.fill(8 << 20)
			return newFaultyPlace(t, "", fmt.Sprintf("data_dir: %s\nlimits: { min_free: 24MiB }", d.dir)).running(t, "")
		},
		"port-25-is-blocked-by-the-provider": func(t *testing.T) faultyPlace {
			return behindFirewall(t, "")
		},
		"a-firewall-drops-the-connection": func(t *testing.T) faultyPlace {
			return behindFirewall(t, "you@example.org")
		},
	}
}

// newFaultyPlace is a machine in order, but for what the zone and the
// configuration make of it. It is on a disk, for doctor's sake.
func newFaultyPlace(t *testing.T, zone, config string) faultyPlace {
	t.Helper()
	s := newScenario(t)
	dns, err := dnsserver.Start("127.0.0.1:0", "relay.test. A 127.0.0.1\n"+zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	s.dns, s.dir = dns, diskDir(t)
	writeFile(t, s.dir, caFile, string(s.ca.PEM()))
	s.sections["config"] = "auth: { users_file: \"@dir@/users\" }\n" + config
	return faultyPlace{config: s.writeConfig("config")}
}

// running has the relay started before status is asked, and a message to the
// recipient, if there is one, tried.
func (p faultyPlace) running(t *testing.T, recipient string) faultyPlace {
	p.later = func() {
		relay := startRelay(t, p.config)
		if recipient == "" {
			return
		}
		if refusal, err := submit(relay.address(), "a@client.example", []string{recipient}, "", "Subject: x\n\nhello\n"); err != nil || refusal != "" {
			t.Fatal("handing in:", refusal, err)
		}
		if !relay.await(waitLimit, func() bool { return relay.matching("parked", nil) == 1 }) {
			t.Fatal(relay.log())
		}
	}
	return p
}

// user makes the user app, with a password that is not "wrong".
func (p faultyPlace) user(t *testing.T) {
	t.Helper()
	if code, out := invoke(t, p.config, "right\n", "user", "add", "app", "--password-stdin"); code != 0 {
		t.Fatal(out)
	}
}

// withCertificate is a relay whose users verify a certificate.
func withCertificate(t *testing.T, name string, expired bool) faultyPlace {
	t.Helper()
	ca, err := sink.NewCA("CA")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue([]string{name}, expired)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	p := newFaultyPlace(t, "", `
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: starttls }]
tls: { certificate: "@dir@/tls.crt", key: "@dir@/tls.key" }`)
	p.user(t)
	dir := filepath.Dir(p.config)
	writeFile(t, dir, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	writeFile(t, dir, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	if err := os.Chmod(filepath.Join(dir, "tls.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// behindFirewall is a relay on a network of its own whose port 25 to the world
// is closed without a word. It has tried to deliver to recipient, if there is one.
func behindFirewall(t *testing.T, recipient string) faultyPlace {
	t.Helper()
	needs(t, "nft")
	wire := newLAN(newNetns(t, "the wire"))
	here, world := wire.join("here", "203.0.113.1/24"), wire.join("world", "203.0.113.2/24")
	var dns *dnsserver.Server
	err := world.do(func() (err error) {
		dns, err = dnsserver.Start("203.0.113.2:53", doctorZone+"_smtp._tcp.example.org. SRV 0 0 25 mx.example.org.\nmx.example.org. A 203.0.113.2\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	world.must("nft", "add table inet provider; add chain inet provider in { type filter hook input priority 0; }; add rule inet provider in tcp dport 25 drop")
	dir := diskDir(t)
	p := faultyPlace{host: here, config: writeFile(t, dir, "srvrelay.yaml", fmt.Sprintf(`
hostname: relay.example.net
data_dir: %s/data
listeners: [{ address: "127.0.0.1:2525", mode: submission, tls: none }]
dns: { servers: ["203.0.113.2:53"] }
delivery: { egress: { allow: [203.0.113.0/24] }, timeouts: { connect: 500ms }, retry: { schedule: [1h] } }
log: { format: json }
`, dir))}
	if recipient == "" {
		return p
	}
	relay := here.startRelay(p.config)
	err = here.do(func() error {
		if refusal, err := submit(relay.address(), "a@client.example", []string{recipient}, "", "Subject: x\n\nhello\n"); err != nil || refusal != "" {
			return fmt.Errorf("handing in: %q, %v", refusal, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !relay.await(waitLimit, func() bool { return relay.matching("parked", nil) == 1 }) {
		t.Error(relay.log())
	}
	return p
}
