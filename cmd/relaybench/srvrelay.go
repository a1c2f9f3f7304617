//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// srvrelay is ours, with its defaults as far as a loopback allows.
type srvrelay struct {
	binary string
	retry  time.Duration // between two looks at a dead hop
}

func (srvrelay) name() string { return "srvrelay" }

func (s srvrelay) prepare(dir string, f *field) (launch, error) {
	port, err := freePort()
	if err != nil {
		return launch{}, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	config := filepath.Join(dir, "srvrelay.yaml")
	text := fmt.Sprintf(`hostname: relay.%s
data_dir: %s
listeners: [{ address: "%s", mode: submission, tls: none }]
dns: { servers: ["%s"] }
delivery:
  egress: { allow: [127.0.0.0/8], allow_ports: [%s] }
  retry: { schedule: [%s], expire_after: 5d, delay_notice_after: 0s }
log: { level: info, format: json }
`, suffix, filepath.Join(dir, "data"), addr, f.dns.Addr(),
		strings.Trim(strings.Join(strings.Fields(fmt.Sprint(f.allPorts())), ", "), "[]"), s.retry)
	return launch{[]string{s.binary, "serve", "--config", config}, addr}, os.WriteFile(config, []byte(text), 0o644)
}
