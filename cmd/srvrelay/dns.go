package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/delivery/plan"
	"srvrelay/dnsutil"
	"srvrelay/relay"
	"srvrelay/relay/config"
	"srvrelay/relay/publish"
)

func dnsCommand() *cobra.Command {
	c := &cobra.Command{Use: "dns", Short: "Say what to publish in the DNS, and check what is", RunE: parent,
		Long: `The DNS records by which mail of a domain finds its way and is believed: what to
publish, for a zone file or for the form of a provider, and what is wrong with what
is published. docs/dns.md goes through them.`,
		Example: `  srvrelay dns suggest example.org --target home.example.org:2525
  srvrelay dns check example.org --connect`,
	}
	c.AddCommand(dnsSuggestCommand(), dnsCheckCommand())
	return c
}

// suggestion are the flags of dns suggest.
type suggestion struct {
	targets, mx, addresses, certificates []string
	zone, reports                        string
	share, panel                         bool
}

func dnsSuggestCommand() *cobra.Command {
	var f suggestion
	c := &cobra.Command{
		Use: "suggest DOMAIN", Short: "Print the records to publish for a domain", Args: args(cobra.ExactArgs(1)),
		Long: `Prints the records to publish for a domain whose mail is to be handed in at the
targets: SRV, MX, addresses, SPF, DKIM, TLSA, TLSRPT and DMARC. The hostname, its
public_addresses, the DKIM keys and the certificate are those of the configuration,
if there is one. Addresses of other hosts are looked up; --address is for those
that are not in the DNS yet. Nothing is changed.

A target is HOST:PORT, or a host for port 2525; the first one is tried first. A host
without a dot is in the domain. "--target ." is for a domain that takes no mail.

With --panel the records are a table for the form on the web page of a provider: names
without the zone, hosts without the dot at the end, texts without quotes.

Exit code: 0 printed, 64 the command line is wrong, 78 the configuration is wrong.`,
		Example: `  srvrelay dns suggest example.org --target home.example.org:2525
  srvrelay dns suggest example.org --target a.example.org:2525,b.example.org:2526 --share
  srvrelay dns suggest example.org --target home.example.org --panel`,
		RunE: func(c *cobra.Command, a []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			flag, _ := c.Flags().GetString("config")
			if config.Find(flag, os.Environ()) == "" {
				cfg.Hostname = "" // the name of this machine: it need not be a relay
			}
			w, err := f.wanted(c.Context(), cfg, a[0])
			if err != nil {
				return err
			}
			groups := w.Suggest()
			s := newScreen(c.OutOrStdout())
			asJSON, _ := c.Flags().GetBool("json")
			switch {
			case asJSON:
				return printJSON(c.OutOrStdout(), groups)
			case f.panel:
				return s.panel(groups, f.zone)
			}
			s.zoneFile(groups)
			return nil
		},
	}
	c.Flags().StringSliceVar(&f.targets, "target", nil, "`HOST:PORT` where mail is handed in (required; several with commas)")
	c.Flags().BoolVar(&f.share, "share", false, "the targets share the mail; else each is the backup of the one before")
	c.Flags().StringSliceVar(&f.mx, "mx", nil, "`HOST` that takes mail at port 25 (default: the hostname here)")
	c.Flags().StringArrayVar(&f.addresses, "address", nil, "`HOST=ADDRESS` of a host that is not in the DNS yet (repeatable)")
	c.Flags().StringArrayVar(&f.certificates, "certificate", nil, "`FILE` with the certificate of a server (default: tls.certificate)")
	c.Flags().StringVar(&f.reports, "reports", "", "`ADDRESS` for reports of others (default: postmaster of the domain)")
	c.Flags().BoolVar(&f.panel, "panel", false, "as a table for the form of a provider")
	c.Flags().StringVar(&f.zone, "zone", "", "the `ZONE` of the form, if the domain is below it (default: the domain)")
	c.Flags().Bool("json", false, "print JSON: a list of groups of records (docs/dns.md)")
	return c
}

// wanted is what the flags and the configuration come to.
func (f *suggestion) wanted(ctx context.Context, cfg *config.Config, domain string) (w publish.Wanted, err error) {
	if w.Domain, err = publicName(domain); err != nil {
		return w, usage(err)
	}
	if f.zone == "" {
		f.zone = w.Domain
	}
	if f.zone, err = publicName(f.zone); err != nil {
		return w, usage(fmt.Errorf("--zone: %w", err))
	}
	if w.Domain != f.zone && !strings.HasSuffix(w.Domain, "."+f.zone) {
		return w, usage(fmt.Errorf("--zone: %s is not in the zone %s", w.Domain, f.zone))
	}
	if w.Targets, err = targetsOf(f.targets, w.Domain); err != nil {
		return w, usage(err)
	}
	w.Share = f.share
	if w.MX, err = f.fallbacks(cfg); err != nil {
		return w, usage(err)
	}
	if err := f.hosts(ctx, cfg, &w); err != nil {
		return w, err
	}
	keys, problems := dkimKeys(cfg, w.Domain)
	if len(problems) > 0 {
		return w, problems
	}
	for _, k := range keys {
		w.DKIM = append(w.DKIM, publish.TXT(k.Name(), k.Record()))
	}
	if err := f.certs(cfg, &w); err != nil {
		return w, err
	}
	if w.Reports = f.reports; w.Reports == "" {
		w.Reports = "postmaster@" + w.Domain
	}
	a, err := relay.ParseAddress(w.Reports, false)
	if err != nil || !strings.Contains(w.Reports, "@") || strings.ContainsAny(w.Reports, `,;!"?%&#`) { // of a URI (RFC 6068)
		return w, usage(fmt.Errorf("--reports %q is not a plain mail address such as reports@example.org", w.Reports))
	}
	w.Reports = a.Local + "@" + a.Domain
	return w, nil
}

// publicName is a domain or host in the one form that the DNS has.
func publicName(s string) (string, error) {
	name, err := plan.NormalizeDomain(domainOf(s))
	if err != nil {
		return "", fmt.Errorf("%q: %w", s, err)
	}
	if strings.HasPrefix(name, "[") {
		return "", fmt.Errorf("%q is an address: records name hosts and domains", s)
	}
	return name, nil
}

func targetsOf(words []string, domain string) (targets []publish.Target, err error) {
	if len(words) == 0 {
		return nil, errors.New("--target is missing: where the mail is to be handed in, such as home.example.org:2525")
	}
	for _, word := range words {
		if word == "." {
			if len(words) > 1 {
				return nil, errors.New(`--target ".": the domain takes no mail, so there can be no other target`)
			}
			return []publish.Target{{Host: "."}}, nil
		}
		host, port := splitHome(word)
		if _, err := netip.ParseAddr(host); err == nil {
			return nil, fmt.Errorf("--target %q is an address: an SRV record names a host, so give it a name first", word)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("--target %q: the port is a number from 1 to 65535", word)
		}
		if host, err = publicName(host); err != nil {
			return nil, fmt.Errorf("--target: %w", err)
		}
		if !strings.Contains(host, ".") {
			host += "." + domain
		}
		t := publish.Target{Host: host, Port: uint16(n)}
		if slices.Contains(targets, t) {
			return nil, fmt.Errorf("--target %q is there twice", word)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// fallbacks are the MX hosts.
func (f *suggestion) fallbacks(cfg *config.Config) (hosts []string, err error) {
	words := f.mx
	if len(words) == 0 && strings.Contains(cfg.Hostname, ".") {
		words = []string{cfg.Hostname}
	}
	for _, word := range words {
		host, err := publicName(word)
		if _, _, split := net.SplitHostPort(word); split == nil {
			return nil, fmt.Errorf("--mx %q: an MX record has no port, mail comes to port 25; name the host alone", word)
		} else if err != nil {
			return nil, fmt.Errorf("--mx: %w", err)
		}
		hosts = append(hosts, host)
	}
	return hosts, nil
}

// lookupPatience is how long the addresses of one host are looked up for.
const lookupPatience = 10 * time.Second

// hosts fills in the addresses: those that were given, those of the configuration,
// and what the DNS has.
func (f *suggestion) hosts(ctx context.Context, cfg *config.Config, w *publish.Wanted) error {
	w.Fixed, w.Dynamic, w.Published = map[string][]netip.Addr{}, map[string][]netip.Addr{}, map[string][]netip.Addr{}
	named := append([]string{cfg.Hostname}, w.MX...)
	for _, t := range w.Targets {
		named = append(named, t.Host)
	}
	for _, word := range f.addresses {
		host, text, _ := strings.Cut(word, "=")
		host, err := publicName(host)
		if err != nil {
			return usage(fmt.Errorf("--address: %w", err))
		}
		for _, t := range strings.Split(text, ",") {
			a, err := netip.ParseAddr(t)
			if err != nil || a.Zone() != "" {
				return usage(fmt.Errorf("--address %q is not HOST=ADDRESS, such as home.example.org=203.0.113.7", word))
			}
			if slices.Contains(w.MX, host) {
				w.Fixed[host] = append(w.Fixed[host], a)
			} else {
				w.Dynamic[host] = append(w.Dynamic[host], a)
			}
		}
		if !slices.Contains(named, host) {
			return usage(fmt.Errorf("--address %q: %s is neither a target nor an MX host", word, host))
		}
	}
	if len(w.Fixed[cfg.Hostname]) == 0 {
		for _, p := range cfg.PublicAddresses {
			if a := p.Addr().Unmap(); !slices.Contains(w.Fixed[cfg.Hostname], a) {
				w.Fixed[cfg.Hostname] = append(w.Fixed[cfg.Hostname], a)
			}
		}
	}
	resolver, err := dnsutil.New(dnsutil.Config{Servers: cfg.DNS.Servers, Timeout: lookupPatience / 4, Attempts: 1})
	if err != nil {
		return &exitError{exitConfig, err}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	for _, host := range named {
		if host != "" && host != "." && len(w.Fixed[host])+len(w.Dynamic[host])+len(w.Published[host]) == 0 {
			ans, _ := resolver.Addrs(ctx, host) // without: it is said that there are none
			w.Published[host] = ans.Records
		}
	}
	return nil
}

// certs fills in the certificates of the servers.
func (f *suggestion) certs(cfg *config.Config, w *publish.Wanted) error {
	files := f.certificates
	if len(files) == 0 && cfg.TLS.ACME.On() {
		w.NewKeys = true
		return nil
	}
	if len(files) == 0 && cfg.TLS.Certificate != "" {
		files = []string{cfg.TLS.Certificate}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return &exitError{exitData, err}
		}
		block, _ := pem.Decode(text)
		if block == nil || block.Type != "CERTIFICATE" {
			return &exitError{exitData, fmt.Errorf("%s: there is no certificate in PEM at its beginning (-----BEGIN CERTIFICATE-----)", file)}
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return &exitError{exitData, fmt.Errorf("%s: the certificate is damaged", file)}
		}
		w.Certificates = append(w.Certificates, cert)
	}
	return nil
}

// zoneFile prints groups so that the whole of it can stand in a zone file.
func (s screen) zoneFile(groups []publish.Group) {
	for i, g := range groups {
		if i > 0 {
			fmt.Fprintln(s)
		}
		fmt.Fprintln(s, s.bold("; "+g.Title))
		fmt.Fprint(s, publish.Lines(g.Records...))
		s.notes(g, ";   ")
	}
}

func (s screen) notes(g publish.Group, indent string) {
	for _, n := range g.Notes {
		for _, line := range wrap(n, 100-len(indent)) {
			fmt.Fprintln(s, indent+line)
		}
	}
}

// panel prints groups for the form of a zone. What belongs to another zone comes
// last: it is to be entered elsewhere. Texts stand below the table, whole.
func (s screen) panel(groups []publish.Group, zone string) error {
	var here, there []publish.Field
	for _, g := range groups {
		for _, r := range g.Records {
			if f, inZone := r.Form(zone); inZone {
				here = append(here, f)
			} else {
				there = append(there, f)
			}
		}
	}
	fmt.Fprintf(s, "%s  (%s)\n\n", s.bold("In the zone "+zone), `"@" is the zone itself: some forms want it empty, or its name`)
	if err := s.fields(here); err != nil {
		return err
	}
	if len(there) > 0 {
		fmt.Fprintf(s, "\n%s  (PTR: at the provider of the address)\n\n", s.bold("In other zones"))
		if err := s.fields(there); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if len(g.Notes) > 0 {
			fmt.Fprintf(s, "\n%s\n", s.bold(g.Title))
			s.notes(g, "  ")
		}
	}
	return nil
}

// longValue is what no longer fits into a table, in bytes.
const longValue = 70

func (s screen) fields(fields []publish.Field) error {
	t := s.table()
	fmt.Fprintln(t, "name\ttype\tTTL\tpriority\tweight\tport\tvalue")
	var long []publish.Field
	for _, f := range fields {
		value := f.Value
		if len(value) > longValue {
			long = append(long, f)
			value = fmt.Sprintf("(text %d)", len(long))
		}
		fmt.Fprintln(t, strings.Join([]string{f.Name, f.Type, f.TTL, f.Priority, f.Weight, f.Port, value}, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i, f := range long {
		fmt.Fprintf(s, "\ntext %d, for %s:\n%s\n", i+1, f.Name, f.Value)
	}
	return nil
}
