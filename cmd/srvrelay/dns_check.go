package main

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"srvrelay/relay/config"
	"srvrelay/relay/dkim"
	"srvrelay/relay/doctor"
)

func dnsCheckCommand() *cobra.Command {
	var asJSON, verbose, connect, dynamic bool
	c := &cobra.Command{
		Use: "check DOMAIN", Short: "Check what is published for a domain", Args: args(cobra.ExactArgs(1)),
		Long: `Looks up what is published for a domain, with the resolvers of the configuration, plans
with it as delivery would, and says what is wrong and which line to publish instead:
SRV and MX records and their order, addresses, how long they are kept, SPF, the DKIM
keys of the configuration, and the names of this relay's addresses (PTR). With --connect
it connects to the servers too, reads their banner and quits. Nothing is changed. A
resolver may remember for some time what was there before.

Exit code: 0 nothing is wrong (there may be notes), 1 warnings, 2 errors, 75 the DNS did
not answer, 78 the configuration is wrong.`,
		Example: `  srvrelay dns check example.org
  srvrelay dns check example.org --connect --dynamic   # a server at home, with a dynamic address
  srvrelay dns check example.org --json                # for a monitor`,
		RunE: func(c *cobra.Command, a []string) error {
			name, err := publicName(a[0])
			if err != nil {
				return usage(err)
			}
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			flag, _ := c.Flags().GetString("config")
			d := doctor.Domain{Name: name, Dynamic: dynamic, Elsewhere: config.Find(flag, os.Environ()) == ""}
			if d.Route, err = routeOf(cfg, name); err != nil {
				return err
			}
			if d.Keys, d.Hidden, err = keysOf(cfg, name); err != nil {
				return err
			}
			// What is published is looked at, and not what the routes make of it.
			bare := *cfg
			bare.Routes, bare.Delivery.MXFallback = nil, true
			env, err := doctorEnv(c.Context(), &bare, nil, connect)
			if err != nil {
				return &exitError{exitConfig, err}
			}
			env.Config = cfg
			r := doctor.NewReport(doctor.CheckDomain(c.Context(), env, d), env.Relay)
			if c.Context().Err() != nil {
				return &exitError{exitSoftware, errors.New("stopped")}
			}
			if asJSON {
				if err := printJSON(c.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				printReport(newScreen(c.OutOrStdout()), r, verbose, "srvrelay dns check -v "+name)
			}
			if unanswered(r) {
				return &exitError{Code: exitTempFail}
			}
			return reportExit(r)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "one JSON object, as of doctor (docs/doctor.md)")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "also show what is in order")
	c.Flags().BoolVar(&connect, "connect", false, "connect to the servers; no mail is sent")
	c.Flags().BoolVar(&dynamic, "dynamic", false, "the addresses of the servers may change at any time")
	return c
}

// unanswered tells whether all that is wrong is that the DNS does not answer: what
// is wrong is more than what is not known.
func unanswered(r doctor.Report) bool {
	return r.Errors > 0 && !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Level == doctor.Error && f.Check != doctor.LookUp })
}

// routeOf is the route of this relay that takes a domain's mail, in words.
func routeOf(cfg *config.Config, domain string) (string, error) {
	rs, err := routesOf(cfg, false)
	if err != nil {
		return "", &exitError{exitConfig, err}
	}
	if hop := rs.HopOf("", domain, false); hop != domain {
		return hop, nil
	}
	return "", nil
}

// keysOf are the DKIM keys for a domain. Some may be hidden from this user: a
// monitor need not see them.
func keysOf(cfg *config.Config, domain string) (keys []doctor.Key, hidden bool, err error) {
	all, problems := dkimKeys(cfg, domain)
	secret := func(p config.Problem) bool { return errors.Is(p.Err, fs.ErrPermission) }
	hidden = slices.ContainsFunc(problems, secret)
	if problems = slices.DeleteFunc(problems, secret); len(problems) > 0 {
		return nil, false, problems
	}
	sign := dkim.NewKeys(all)
	for _, k := range all {
		keys = append(keys, doctor.Key{Key: k, Signs: sign.Sign(k)})
	}
	return keys, hidden, nil
}
