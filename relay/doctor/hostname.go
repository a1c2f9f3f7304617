package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay/publish"
)

// maxOwn bounds how many of our addresses are looked up backwards.
const maxOwn = 4

const judgedByName = "Receivers judge a stranger by the name in its EHLO; many refuse one that does not lead back to it."

// checkHostname looks whether the relay's name and address lead to each other.
func checkHostname(ctx context.Context, e *Env) []Finding {
	name := e.Config.Hostname
	if !strings.Contains(name, ".") {
		return []Finding{skipped("hostname %s is not a full name, which no DNS knows", name)} // config warns
	}
	addrs, err := e.Resolver.Addrs(ctx, name)
	if _, none := errors.AsType[*dnsutil.NotFound](err); none {
		return []Finding{{
			Level: Error, What: fmt.Sprintf("hostname %s has no address in the DNS", name), Why: judgedByName,
			Fix: name + ". A 203.0.113.5   ; the public address of this machine",
		}}
	} else if err != nil {
		return []Finding{skipped("the addresses of %s: %s", name, lookupProblem(err))}
	}
	own := e.own()
	ours := slices.DeleteFunc(slices.Clone(addrs.Records), func(a netip.Addr) bool { return !own[a.Unmap()] })
	if len(ours) == 0 {
		return []Finding{{
			Level: Warning, What: fmt.Sprintf("hostname %s is %s, which is no address of this machine", name, list(addrs.Records)), Why: judgedByName,
			Fix: fmt.Sprintf("public_addresses: [%q]   # if a router stands in front; else correct the A record", addrs.Records[0]),
		}}
	}
	var found []Finding
	for _, a := range ours[:min(len(ours), maxOwn)] {
		found = append(found, e.backwards(ctx, name, a))
	}
	return found
}

// backwards looks at the PTR records of one of our addresses.
func (e *Env) backwards(ctx context.Context, name string, a netip.Addr) Finding {
	a = a.Unmap()
	if a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() {
		return Finding{
			Level: Warning, What: fmt.Sprintf("hostname %s is the private address %s", name, a), Why: judgedByName,
			Fix: name + ". A 203.0.113.5   ; the public address of this machine, and the same in public_addresses",
		}
	}
	names, err := e.Resolver.Names(ctx, a)
	if _, none := errors.AsType[*dnsutil.NotFound](err); none {
		return Finding{
			Level: Warning, What: fmt.Sprintf("the address %s has no name (PTR)", a), Why: "Big receivers refuse mail from such an address.",
			Fix: publish.PTR(a, name).OneLine(),
		}
	} else if err != nil {
		return skipped("the name (PTR) of %s: %s", a, lookupProblem(err))
	}
	if slices.Contains(names, name) {
		return ok("hostname %s is %s, and back", name, a)
	}
	for _, n := range names {
		back, _ := e.Resolver.Addrs(ctx, n) // not found is not back
		if slices.Contains(back.Records, a) {
			return Finding{
				Level: Note, What: fmt.Sprintf("the name (PTR) of %s is %s, and hostname is %s", a, n, name),
				Why: "Each leads back to the address, which is enough for most; one name for both is better.",
				Fix: publish.PTR(a, name).OneLine(),
			}
		}
	}
	return Finding{
		Level: Warning, What: fmt.Sprintf("the name (PTR) of %s is %s, which does not lead back to it", a, queue.Safe(strings.Join(names, ", "), 200)),
		Why: "Big receivers refuse mail from such an address.",
		Fix: publish.PTR(a, name).OneLine(),
	}
}

// lookupProblem is why a look-up says nothing, in a word or two.
func lookupProblem(err error) string {
	if failed, ok := errors.AsType[*dnsutil.LookupError](err); ok {
		return failed.Problem
	}
	return problem(err)
}

func list(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return strings.Join(words, ", ")
}
