package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"srvrelay/queue"
)

// Egress adds to the built-in rules of what delivery may connect to.
type Egress struct {
	Allow      []netip.Prefix // lifts the address check, not that of the port
	AllowPorts []uint16
	DenyPorts  []uint16 // stronger than AllowPorts
}

// Guard decides which addresses and ports that DNS names may be connected to:
// with SRV a stranger names both, and our relay stands where the stranger does
// not. It is not for hosts that the operator wrote into the configuration.
type Guard struct {
	egress Egress
	mxPort uint16 // always allowed
	own    *own
}

// Refusal says which rule refused, and what to write to lift it if that is
// meant. It is for the operator: it may show internal addresses.
type Refusal struct {
	Reason string // queue.ReasonEgress...
	Rule   string // "private address 10.0.0.0/8"
	Hint   string // the line of the configuration, "" when nothing lifts it
}

// NewGuard makes a Guard. The MX port is always allowed.
func NewGuard(egress Egress, mxPort uint16, ours Own) *Guard {
	return newGuard(egress, mxPort, newOwn(ours))
}

func newGuard(egress Egress, mxPort uint16, o *own) *Guard {
	allow := make([]netip.Prefix, 0, len(egress.Allow))
	for _, p := range egress.Allow {
		if p.Addr().Is4In6() && p.Bits() >= 96 { // compared as IPv4, like the addresses
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		allow = append(allow, p.Masked())
	}
	egress.Allow = allow
	return &Guard{egress: egress, mxPort: mxPort, own: o}
}

// Check returns nil when ap may be connected to. It is asked when a plan is
// made, and again right before dialling, about the very address that is
// dialled. relayDomain is set for mail to one of our own relay domains: its
// home may stand behind our own address, on another port.
func (g *Guard) Check(ap netip.AddrPort, relayDomain bool) *Refusal {
	if r := g.checkRanges(ap.Addr()); r != nil {
		return r
	}
	if !relayDomain {
		if r := g.checkOwn(ap.Addr()); r != nil {
			return r
		}
	}
	return g.checkPort(ap.Port())
}

// checkRanges judges the address and any IPv4 address inside of it, each as
// itself: an allowed NAT64 prefix does not open the private network behind it.
func (g *Guard) checkRanges(a netip.Addr) *Refusal {
	switch {
	case !a.IsValid():
		return &Refusal{Reason: queue.ReasonEgressAddress, Rule: "not an address"}
	case a.Zone() != "":
		// A zone means something on this machine only; it cannot come from DNS.
		return &Refusal{Reason: queue.ReasonEgressAddress, Rule: "address with a zone"}
	}
	for _, v := range views(a) {
		r, bad := rangeOf(v.addr)
		if !bad || g.allowed(v.addr) {
			continue
		}
		rule := fmt.Sprintf("%s address %s", r.what, r.prefix)
		if v.how != "" {
			rule += fmt.Sprintf(" (%s inside of a %s address)", v.addr, v.how)
		}
		return &Refusal{Reason: queue.ReasonEgressAddress, Rule: rule, Hint: allowHint(v.addr)}
	}
	return nil
}

// checkOwn keeps strangers from using us to pass our own firewall.
func (g *Guard) checkOwn(a netip.Addr) *Refusal {
	set := g.own.now(time.Now())
	for _, v := range views(a) {
		if set.isOwn(v.addr) && !g.allowed(v.addr) {
			return &Refusal{
				Reason: queue.ReasonEgressOwn,
				Rule:   fmt.Sprintf("%s is our own address, and the domain is not in relay_domains", v.addr),
				Hint:   allowHint(v.addr),
			}
		}
	}
	return nil
}

func (g *Guard) allowed(a netip.Addr) bool {
	return slices.ContainsFunc(g.egress.Allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (g *Guard) checkPort(port uint16) *Refusal {
	var rule string
	hint := fmt.Sprintf("delivery: { egress: { allow_ports: [%d] } }", port)
	switch service := otherServices[port]; {
	case port == 0:
		rule, hint = "port 0 cannot be connected to", ""
	case port == g.mxPort:
	case slices.Contains(g.egress.DenyPorts, port):
		rule, hint = fmt.Sprintf("port %d is in delivery.egress.deny_ports", port), ""
	case slices.Contains(g.egress.AllowPorts, port):
	case service != "":
		rule = fmt.Sprintf("port %d is that of %s, not of mail", port, service)
	case port < firstFreePort && !slices.Contains(mailPorts[:], port):
		rule = fmt.Sprintf("port %d is neither 25, 465, 587 nor above 1023", port)
	}
	if rule == "" {
		return nil
	}
	return &Refusal{Reason: queue.ReasonEgressPort, Rule: rule, Hint: hint}
}

// allowHint is the line of the configuration that allows one address.
func allowHint(a netip.Addr) string {
	return fmt.Sprintf(`delivery: { egress: { allow: ["%s"] } }`, netip.PrefixFrom(a, a.BitLen()))
}
