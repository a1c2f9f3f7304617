//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// postfix is a Postfix of our own beside that of the machine, tuned for throughput.
type postfix struct {
	daemons string // the folder of its programs
	owner   int
	drop    int // the group of maildrop
	version string
}

// findPostfix finds an installed Postfix that can be started.
func findPostfix() (*postfix, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can start Postfix")
	}
	program := "postconf"
	if _, err := exec.LookPath(program); err != nil {
		program = "/usr/sbin/postconf" // is not in everybody's PATH
	}
	out, err := exec.Command(program, "-d", "-h", "daemon_directory", "mail_version").Output()
	if err != nil {
		return nil, fmt.Errorf("there is no Postfix: %w", err)
	}
	f := strings.Fields(string(out))
	if len(f) != 2 {
		return nil, fmt.Errorf("postconf says %q", out)
	}
	p := &postfix{daemons: f[0], version: f[1]}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	drop, err := user.LookupGroup("postdrop")
	if err != nil {
		return nil, err
	}
	p.owner, _ = strconv.Atoi(owner.Uid) // both are numbers on Linux
	p.drop, _ = strconv.Atoi(drop.Gid)
	return p, nil
}

func (*postfix) name() string { return "Postfix" }

func (p *postfix) prepare(dir string, f *field) (launch, error) {
	port, err := freePort()
	if err != nil {
		return launch{}, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	var transport strings.Builder
	for _, c := range []class{live, dead, slow} {
		for i, port := range f.ports[c] {
			fmt.Fprintf(&transport, ".%s%d.%s smtp:[127.0.0.1]:%d\n", c, i, suffix, port)
		}
	}
	fmt.Fprintf(&transport, "client.%s smtp:[127.0.0.1]:%d\n", suffix, f.ports[live][0])
	for name, text := range map[string]string{
		"main.cf":   fmt.Sprintf(postfixMain, dir, suffix),
		"master.cf": fmt.Sprintf(postfixMaster, port),
		"transport": transport.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return launch{}, err
		}
	}
	return launch{[]string{filepath.Join(p.daemons, "master"), "-c", dir, "-s"}, addr}, p.folders(dir)
}

// postfixMain: what is tuned is in the second part. The next hops are written
// down, as Postfix before 3.8 does not look for SRV: it is spared the look-ups.
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = relay.%[2]s
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
local_header_rewrite_clients =
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtpd_tls_security_level = none
transport_maps = texthash:%[1]s/transport
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions =
message_size_limit = 104857600

in_flow_delay = 0
default_process_limit = 200
initial_destination_concurrency = 100
default_destination_concurrency_limit = 100
`

const postfixMaster = `127.0.0.1:%d inet n - n - - smtpd
pickup    unix n - n 60   1 pickup
cleanup   unix n - n -    0 cleanup
qmgr      unix n - n 300  1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n -    - trivial-rewrite
bounce    unix - - n -    0 bounce
defer     unix - - n -    0 bounce
trace     unix - - n -    0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n -    - proxymap
smtp      unix - - n -    - smtp
relay     unix - - n -    - smtp
error     unix - - n -    - error
retry     unix - - n -    - error
anvil     unix - - n -    1 anvil
scache    unix - - n -    1 scache
postlog   unix-dgram n - n - 1 postlogd
`

// folders makes what "postfix start" would, which looks at the machine's own
// instance too.
func (p *postfix) folders(dir string) error {
	for _, f := range []struct {
		names    string
		uid, gid int
		mode     os.FileMode
	}{
		{"queue queue/pid", 0, 0, 0o755},
		{"data queue/active queue/bounce queue/corrupt queue/defer queue/deferred queue/flush queue/hold " +
			"queue/incoming queue/private queue/saved queue/trace", p.owner, 0, 0o700},
		{"queue/maildrop", p.owner, p.drop, 0o730 | os.ModeSticky},
		{"queue/public", p.owner, p.drop, 0o710 | os.ModeSetgid},
	} {
		for _, name := range strings.Fields(f.names) {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, f.uid, f.gid), os.Chmod(path, f.mode)); err != nil {
				return err
			}
		}
	}
	return nil
}
