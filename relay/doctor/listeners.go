package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"srvrelay/relay/config"
)

// checkListeners looks at each door: from outside if the relay runs, else
// whether it could be opened.
func checkListeners(ctx context.Context, e *Env) []Finding {
	listeners := e.Config.Listeners
	found := make([]Finding, len(listeners))
	var wg sync.WaitGroup
	for i, l := range listeners {
		wg.Go(func() {
			host, digits, _ := net.SplitHostPort(l.Address) // config has checked it
			port, _ := strconv.ParseUint(digits, 10, 16)
			switch {
			case port == 0:
				found[i] = skipped("listener %s: the system chooses its port", l.Address)
			case e.Relay == Stopped:
				found[i] = e.bindable(ctx, l, uint16(port))
			default:
				found[i] = e.answers(ctx, l, net.JoinHostPort(reachable(host), digits))
			}
		})
	}
	wg.Wait()
	if e.Relay == Stopped {
		found = append(found, Finding{
			Level: Note, What: "no relay is running with this configuration", Why: "No mail comes in or goes out; what is queued waits.",
			Fix: "systemctl start srvrelay   # or: srvrelay serve",
		})
	}
	return found
}

// reachable is the host by which this machine reaches a listener.
func reachable(host string) string {
	a, err := netip.ParseAddr(host)
	switch {
	case host == "", err == nil && a == netip.IPv4Unspecified():
		return "127.0.0.1"
	case err == nil && a.IsUnspecified():
		return "::1"
	}
	return host
}

// bindable opens the door of a relay that does not run, for a moment.
func (e *Env) bindable(ctx context.Context, l config.Listener, port uint16) Finding {
	n, err := new(net.ListenConfig).Listen(ctx, "tcp", l.Address)
	var call syscall.Errno
	switch {
	case err == nil:
		n.Close()
		return ok("listener %s: the port is free", l.Address)
	case errors.Is(err, syscall.EADDRINUSE):
		who := e.Machine.Holder(port)
		if who == "" {
			who = "another program"
		}
		return Finding{
			Level: Error, What: fmt.Sprintf("listener %s: the port is taken by %s", l.Address, who), Why: "The relay does not start while it is.",
			Fix: fmt.Sprintf("ss -ltnp 'sport = :%d'   # then stop that program, or give the listener another port", port),
		}
	case errors.Is(err, syscall.EACCES) && e.Machine.UID != 0:
		return Finding{
			Level: Skipped, What: fmt.Sprintf("listener %s: %s may not bind a port below 1024", l.Address, userName(e.Machine.UID)),
			Why: "The service's user may, with AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit.", Fix: "sudo srvrelay doctor",
		}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return Finding{
			Level: Error, What: fmt.Sprintf("listener %s: no network interface has this address", l.Address), Why: "The relay does not start without it.",
			Fix: "ip addr   # and correct listeners; \":" + fmt.Sprint(port) + "\" is every address",
		}
	case errors.As(err, &call):
		err = call
	}
	return Finding{Level: Error, What: fmt.Sprintf("listener %s cannot be opened: %v", l.Address, err), Why: "The relay does not start without it.", Fix: "correct listeners"}
}

// answers goes through the door of a running relay as a client would.
func (e *Env) answers(ctx context.Context, l config.Listener, address string) Finding {
	if e.waits(l) {
		return skipped("listener %s: it waits for a certificate, see \"certificate\"", l.Address)
	}
	var start func(net.Conn) net.Conn
	if l.TLS == config.TLSImplicit {
		start = implicitTLS // whom the certificate is for is looked at by itself
	}
	if tls := start; len(l.ProxyFrom) > 0 {
		start = func(c net.Conn) net.Conn {
			speakAsProxy(c, l)
			if tls != nil {
				return tls(c)
			}
			return c
		}
	}
	bad := func(what string) Finding {
		return Finding{
			Level: Error, What: fmt.Sprintf("listener %s: %s", l.Address, what), Why: "Clients that should come in there cannot.",
			Fix: "nc -v " + spaced(address) + "   # is the relay running? has the configuration changed since it was started?",
		}
	}
	p, err := e.connect(ctx, address, start)
	if err != nil {
		return bad(err.Error())
	}
	defer p.quit()
	words, err := p.extensions(e.Config.Hostname)
	if err != nil {
		return bad(err.Error())
	}
	offered := slices.Contains(words, "STARTTLS")
	if l.TLS == config.TLSStartTLS && !offered {
		return bad("STARTTLS is configured, and not offered")
	}
	return ok("listener %s answers as %s, tls %s", l.Address, l.Mode, l.TLS)
}

// speakAsProxy says what the listener wants to hear first if this machine is one
// of its proxies: that the connection is the proxy's own.
func speakAsProxy(c net.Conn, l config.Listener) {
	a, ok := c.LocalAddr().(*net.TCPAddr)
	if ok && slices.ContainsFunc(l.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(a.AddrPort().Addr().Unmap()) }) {
		_, _ = io.WriteString(c, "PROXY UNKNOWN\r\n") // an error comes again
	}
}

func spaced(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return host + " " + port
}
