package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"srvrelay/relay/config"
)

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "init", Short: "Write a configuration for what you want to do", RunE: parent,
		Long: `Write a commented configuration for one of four tasks, with the user and the key
that it needs, and say what to publish in DNS and what to write on the other side.

  srvrelay config init smarthost   Postfix, Exim or others hand their mail to this relay
  srvrelay config init app         programs on this machine or in this network send mail
  srvrelay config init edge        a public machine that takes mail for a server at home
  srvrelay config init home        the machine at home that sends through such an edge

On a terminal it asks; otherwise, and with --yes, flags and defaults answer.`,
	}
	for _, p := range profiles() {
		c.AddCommand(profileCommand(p))
	}
	return c
}

func profileCommand(p profile) *cobra.Command {
	c := &cobra.Command{Use: p.name, Short: p.short, Long: p.long, Args: args(cobra.NoArgs)}
	f := c.Flags()
	for _, q := range p.questions {
		f.String(q.flag, "", q.help)
	}
	f.String("out", "srvrelay.yaml", "write to `FILE`, keys and passwords beside it")
	f.String("data-dir", "", "the folder of the queue")
	f.Bool("force", false, "replace files that exist")
	f.Bool("yes", false, "ask nothing: take flags and defaults")
	if p.user || p.login {
		f.Bool("password-stdin", false, "read the password from standard input (one line)")
	}
	if p.user {
		f.Bool("self-signed", false, "make a certificate that nobody trusts by itself, for a laboratory")
	}
	switch p.name {
	case "edge":
		f.Bool("route", false, "hand mail to the home server by a route instead of SRV records")
		f.Bool("fetch", false, "nothing can reach home: it fetches its mail here")
	case "home":
		f.Bool("fetch", false, "nothing can reach this machine: it fetches its mail from the edge")
		edgeFlags(c)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return runInit(c, p) }
	return c
}

// runInit collects all answers, checks what stands in the way, and only then
// writes.
func runInit(c *cobra.Command, p profile) error {
	in := newInterview(c)
	known, err := waysOf(c)
	if err != nil {
		return err
	}
	a, err := in.answers(p, known)
	if err != nil {
		return err
	}
	if a["fetch"] != "" && a["domain"] == "" {
		return usage(errors.New("--fetch: the edge keeps mail for domains: name them with --domain"))
	}
	if err := askEdge(c, in, a); err != nil {
		return err
	}
	if err := placesOf(c, p, a); err != nil {
		return err
	}
	if a["password"], err = in.password(p, a); err != nil {
		return err
	}
	here, err := p.side(a)
	if err != nil {
		return err
	}
	sides := []side{here}
	if a["edgefiles"] != "" {
		there, err := edgeOf(a)
		if err != nil {
			return err
		}
		sides = append(sides, there)
	}
	force, _ := c.Flags().GetBool("force")
	if err := inTheWay(sides, force); err != nil {
		return err
	}
	for _, s := range sides {
		if err := s.write(); err != nil {
			return err
		}
	}
	text, err := fillTemplate(p.name+".txt", a)
	if err != nil {
		return err
	}
	fmt.Fprint(c.OutOrStdout(), text)
	return afterCheck(c, a["out"])
}

// waysOf is how mail gets home.
func waysOf(c *cobra.Command) (answers, error) {
	a := answers{}
	for _, name := range []string{"route", "fetch"} {
		if set, _ := c.Flags().GetBool(name); set {
			a[name] = "yes"
		}
	}
	if a["fetch"] == "" {
		return a, nil
	}
	for _, name := range unreachable {
		if f := c.Flags().Lookup(name); f != nil && f.Changed {
			return nil, usage(fmt.Errorf("--%s: with --fetch nothing connects to home: leave it out", name))
		}
	}
	return a, nil
}

// unreachable are the flags that mean nothing if no port of home can be reached.
var unreachable = []string{"home", "port", "route"}

// placesOf adds where everything goes: absolute paths, as the configuration
// wants them.
func placesOf(c *cobra.Command, p profile, a answers) error {
	if host, _ := splitHome(a["home"]); a["route"] == "" && net.ParseIP(host) != nil {
		return usage(fmt.Errorf("--home: an SRV record names a host, and %s is an address: give its name, or add --route", host))
	}
	out, _ := c.Flags().GetString("out")
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	dir := filepath.Dir(out)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return &exitError{exitData, fmt.Errorf("%s is not a folder: make it first, or name another file with --out", dir)}
	}
	a["profile"], a["out"], a["dir"] = p.name, out, dir
	if a["datadir"], err = dataDir(c); err != nil {
		return err
	}
	if p.user {
		a["usersfile"] = filepath.Join(dir, "users")
		if selfSigned, _ := c.Flags().GetBool("self-signed"); selfSigned {
			a["selfsigned"] = "yes"
			a["certificate"], a["key"] = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		}
	}
	if p.login {
		a["passwordfile"] = filepath.Join(dir, "edge.pass")
		if a["selfsigned"] != "" {
			a["cafile"] = filepath.Join(dir, "edge.crt")
		}
	}
	return nil
}

func dataDir(c *cobra.Command) (string, error) {
	if dir, _ := c.Flags().GetString("data-dir"); dir != "" {
		text, err := config.Accept("data_dir", dir)
		if err != nil {
			return "", usage(fmt.Errorf("--data-dir: %w", err))
		}
		return text, nil
	}
	cfg, err := config.Load("", nil, os.Environ())
	if err != nil {
		return "", err
	}
	return cfg.DataDir, nil
}

// afterCheck says what is still missing for the relay to start.
func afterCheck(c *cobra.Command, file string) error {
	cfg, err := config.Load(file, nil, nil)
	if err != nil {
		return err
	}
	problems := checkFiles(cfg)
	for _, w := range cfg.Warnings {
		fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
	}
	if len(problems) > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "\nNot yet there, before it can start:\n  %s\n", strings.ReplaceAll(problems.Error(), "\n", "\n  "))
	}
	return nil
}

var errNoAnswer = errors.New("the questions ended before they were answered")
