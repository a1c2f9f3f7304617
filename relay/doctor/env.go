package doctor

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"time"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/relay/config"
)

// Env is what the checks look at.
type Env struct {
	Config   *config.Config
	Resolver *dnsutil.Client
	// Plan is the plan that delivery would make for a domain.
	Plan func(ctx context.Context, domain string) plan.Plan
	// PlanMX is that of everybody who does not know SRV.
	PlanMX func(ctx context.Context, domain string) plan.Plan
	// SPF is what SPF says of mail of a domain that comes from an address.
	SPF  func(ctx context.Context, addr netip.Addr, domain string) string
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Now  func() time.Time

	Relay   State
	Door    func(context.Context) (Door, error)       // of the running relay; nil: none, or not known
	Fetch   func(context.Context, config.Fetch) error // logs in where mail is fetched from
	PID     int                                       // of the running relay; 0: none, or not known
	Connect bool                                      // to other machines than the resolvers
	Probes  []string                                  // HOST:PORT in place of the mail servers of big domains

	Roots   *x509.CertPool // nil: the system's
	Machine Machine
}

// State is whether a relay runs with this configuration.
type State string

// The states.
const (
	Stopped State = "stopped"
	Running State = "running"
	Unknown State = "unknown" // this user may not ask
)

// Machine is what the system says about itself; Linux() asks a real one.
type Machine struct {
	Addresses func() ([]netip.Addr, error)
	Clock     func() (synchronised bool, err error)
	Disk      func(path string) (Disk, error)
	FileLimit func(pid int) (uint64, error) // 0: of this process
	Holder    func(port uint16) string      // who listens on a TCP port, "" when not known
	UID       int
}

// Disk is the file system of a folder.
type Disk struct {
	Kind       string // "tmpfs", "nfs", "overlay" ... "" for one to rely on
	Free       int64  // bytes for us
	FreeFiles  uint64 // inodes
	CountFiles bool   // it has a fixed number of inodes
}

// knownDomain exists and takes mail; nothing is sent there.
const knownDomain = "gmail.com"

// bigDomains are receivers whose port 25 is open to everybody.
var bigDomains = []string{"gmail.com", "outlook.com", "yahoo.com"}

// own are the addresses by which the world reaches this relay.
func (e *Env) own() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	addrs, _ := e.Machine.Addresses() // without: the configured ones
	for _, a := range addrs {
		own[a.Unmap().WithZone("")] = true
	}
	for _, p := range e.Config.PublicAddresses {
		own[p.Addr().Unmap()] = true
	}
	return own
}

// has tells whether there is a listener of a mode ("" for any) and kind of TLS
// (nil for any).
func (e *Env) has(mode string, tls func(string) bool) bool {
	for _, l := range e.Config.Listeners {
		if (mode == "" || l.Mode == mode) && (tls == nil || tls(l.TLS)) {
			return true
		}
	}
	return false
}

func withTLS(tls string) bool { return tls != config.TLSNone }
