package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/sink"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "See it work: a relay, DNS and two mail servers on this machine, 15 seconds", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := newDemo(c.Context(), newScreen(c.OutOrStdout()))
			if err != nil {
				return err
			}
			defer d.close()
			return d.play()
		},
	}
}

// demo is the main job for real, on embedded parts: an authoritative DNS
// server, receiving servers, and `srvrelay serve` as a process of its own with
// its queue on disk. Everything listens on 127.0.0.1 and ports of the system's
// choice.
type demo struct {
	screen
	ctx     context.Context
	dir     string
	dns     *dnsserver.Server
	primary *sink.Server
	backup  *sink.Server
	home    *sink.Server // of the sender, for the report
	relay   *relayProcess
	config  string
	sent    int
}

func newDemo(ctx context.Context, s screen) (d *demo, err error) {
	d = &demo{screen: s, ctx: ctx}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.dir, err = os.MkdirTemp("", "srvrelay-demo-"); err != nil {
		return d, err
	}
	for _, srv := range []struct {
		to     **sink.Server
		script string
	}{{&d.primary, "rcpt nobody@* 550 5.1.1 no such user\n"}, {&d.backup, ""}, {&d.home, ""}} {
		if *srv.to, err = sink.Start("127.0.0.1:0", sink.Options{Script: srv.script}); err != nil {
			return d, err
		}
	}
	if d.dns, err = dnsserver.Start("127.0.0.1:0", fmt.Sprintf(`
_smtp._tcp.demo.example.   SRV 10 0 %d primary.demo.example.
_smtp._tcp.demo.example.   SRV 20 0 %d backup.demo.example.
primary.demo.example.      A 127.0.0.1
backup.demo.example.       A 127.0.0.1
_smtp._tcp.sender.example. SRV 0 0 %d home.sender.example.
home.sender.example.       A 127.0.0.1
`, d.primary.Port(), d.backup.Port(), d.home.Port())); err != nil {
		return d, err
	}
	d.config = filepath.Join(d.dir, "srvrelay.yaml")
	err = os.WriteFile(d.config, fmt.Appendf(nil, `
hostname: relay.demo.example
data_dir: %s
listeners: [{ address: "127.0.0.1:0", mode: submission, tls: none }]
dns: { servers: ["%s"] }
limits: { min_free: 1MiB }
delivery:
  retry: { schedule: [2s], expire_after: 1h }
  egress: { allow: [127.0.0.0/8] }   # this machine, for once
log: { format: json, level: info }
`, d.dir, d.dns.Addr()), 0o600)
	if err == nil {
		err = d.startRelay()
	}
	return d, err
}

// startRelay starts this very program as `srvrelay serve`.
func (d *demo) startRelay() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve", "--config", d.config)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SRVRELAY_") || strings.HasPrefix(e, "SRVRELAY_TEST_MAIN=") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	d.relay, err = startProcess(cmd)
	return err
}

func (d *demo) close() {
	if d.relay != nil {
		d.relay.kill()
	}
	for _, s := range []*sink.Server{d.primary, d.backup, d.home} {
		if s != nil {
			s.Close()
		}
	}
	if d.dns != nil {
		d.dns.Close()
	}
	if d.dir != "" {
		os.RemoveAll(d.dir)
	}
}

func (d *demo) play() error {
	d.introduce()
	for _, act := range []func() error{d.plan, d.delivery, d.failover, d.recovery, d.bounce} {
		if err := act(); err != nil {
			return fmt.Errorf("demo: %w\nlog of the relay:\n%s", err, d.relay.log())
		}
		if d.ctx.Err() != nil {
			return &exitError{Code: exitTempFail}
		}
	}
	fmt.Fprintf(d, "\nEverything above was real SMTP, DNS and disk; it is cleaned up now.\n"+
		"Next: srvrelay config init smarthost   (or app, edge, home) writes a configuration;\n"+
		"      srvrelay explain you@your-domain.example   says where mail for you would go\n")
	return nil
}

func (d *demo) introduce() {
	fmt.Fprintf(d, "%s\n\n", d.bold("A relay, a DNS server and two mail servers are running on this machine."))
	fmt.Fprintf(d, "  DNS      _smtp._tcp.demo.example   10 0 %d primary   20 0 %d backup\n", d.primary.Port(), d.backup.Port())
	fmt.Fprintf(d, "  relay    smtp://%s\n  queue    %s, on disk\n", d.relay.address(), d.dir)
}

// plan shows what explain would print for the domain.
func (d *demo) plan() error {
	e, err := admin.NewClient(filepath.Join(d.dir, "admin.sock")).Explain(d.ctx, admin.Question{Domain: "demo.example"})
	if err != nil {
		return err
	}
	fmt.Fprintf(d, "\nWhere would mail for demo.example go?   (srvrelay explain demo.example)\n")
	for _, t := range e.Targets {
		fmt.Fprintf(d, "  %d  %-22s %s   TLS %s   %s\n", t.Order, t.Host, netip.AddrPortFrom(t.Address, t.Port), t.TLS, d.good("ok"))
	}
	return nil
}

func (d *demo) delivery() error {
	fmt.Fprintf(d, "\n%s  one message in …\n", d.bold("1"))
	return d.sendAndSee("you@demo.example", "", "primary", d.primary)
}

func (d *demo) failover() error {
	d.primary.Stop()
	fmt.Fprintf(d, "\n%s  primary is stopped; one message in …\n", d.bold("2"))
	return d.sendAndSee("you@demo.example", "primary refused the connection → ", "backup", d.backup)
}

// recovery stops both servers, kills the relay, and brings one server back.
func (d *demo) recovery() error {
	d.backup.Stop()
	fmt.Fprintf(d, "\n%s  both are stopped; one message in …\n", d.bold("3"))
	id, err := d.send("you@demo.example")
	if err != nil {
		return err
	}
	// The relay remembers that primary is down; it finds out about backup now.
	if err := d.await("deferred", id); err != nil {
		return err
	}
	fmt.Fprintf(d, "     %s: connection refused by both; it waits on disk, next look in 2 s\n", d.wait("deferred"))
	d.relay.kill()
	if err := d.startRelay(); err != nil {
		return err
	}
	list, err := d.queued()
	if err != nil {
		return err
	}
	fmt.Fprintf(d, "     the relay is killed (kill -9) and started again: %d message is still there\n", len(list))
	if err := d.primary.Restart(); err != nil {
		return err
	}
	begin := time.Now()
	if err := d.await("delivered", id); err != nil {
		return err
	}
	fmt.Fprintf(d, "     primary is back → %s to primary, port %d   after %.1f s\n", d.good("delivered"), d.primary.Port(), time.Since(begin).Seconds())
	return nil
}

// bounce sends to somebody who does not exist and shows the report.
func (d *demo) bounce() error {
	fmt.Fprintf(d, "\n%s  a message to nobody@demo.example …\n", d.bold("4"))
	id, err := d.send("nobody@demo.example")
	if err != nil {
		return err
	}
	if err := d.await("failed", id); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(d.ctx, processLimit)
	defer cancel()
	if err := d.home.Wait(ctx, 1); err != nil {
		return err
	}
	fmt.Fprintf(d, "     %s: 550 5.1.1 no such user → a report went back to the sender:\n", d.bad("failed"))
	for _, line := range strings.Split(string(d.home.Messages()[0].Data), "\r\n") {
		for _, field := range []string{"Action:", "Status:", "Remote-MTA:", "Diagnostic-Code:"} {
			if strings.HasPrefix(line, field) {
				fmt.Fprintf(d, "       %s\n", line)
			}
		}
	}
	return nil
}

// sendAndSee sends one message and waits until it is delivered.
func (d *demo) sendAndSee(to, how, name string, srv *sink.Server) error {
	id, err := d.send(to)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := d.await("delivered", id); err != nil {
		return err
	}
	fmt.Fprintf(d, "     %s%s to %s, port %d   %d ms\n", how, d.good("delivered"), name, srv.Port(), max(1, time.Since(begin).Milliseconds()))
	return nil
}

// send submits one message as any mail program would, and shows the reply.
func (d *demo) send(to string) (id string, err error) {
	d.sent++
	text, err := sendMail(d.relay.address(), "me@sender.example", []string{to}, fmt.Sprintf("message %d of the demo", d.sent))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(d, "     %-42s for %s\n", text, to)
	words := strings.Fields(text)
	return words[len(words)-1], nil
}

// await waits for an event about a message in the relay's log.
func (d *demo) await(event, id string) error {
	if !d.relay.await(processLimit, func() bool { return d.relay.matching(event, map[string]string{"id": id}) > 0 }) {
		return fmt.Errorf("message %s: no %q in the log", id, event)
	}
	return nil
}

func (d *demo) queued() (list []admin.Message, err error) {
	err = admin.NewClient(filepath.Join(d.dir, "admin.sock")).List(d.ctx, queue.Filter{}, func(m admin.Message) error {
		list = append(list, m)
		return nil
	})
	return list, err
}
