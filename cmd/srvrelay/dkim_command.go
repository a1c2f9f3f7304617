package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/dnsutil"
	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/config"
	"srvrelay/relay/dkim"
	"srvrelay/relay/publish"
)

func dkimCommand() *cobra.Command {
	c := &cobra.Command{Use: "dkim", Short: "Make, show and check the keys that sign mail (DKIM)", RunE: parent,
		Long: `Keys with which the relay signs submitted mail, and what must be published for them in
the DNS. docs/dkim.md has the steps, also for changing a key.`,
		Example: `  srvrelay dkim keygen --domain example.org    # make keys, and say what to publish
  srvrelay dkim check                          # can everybody see the records, and are they right?`,
	}
	c.AddCommand(dkimKeygenCommand(), dkimShowCommand(), dkimCheckCommand())
	return c
}

func dkimKeygenCommand() *cobra.Command {
	var domain, selector, dir string
	var onlyRSA, onlyEd25519 bool
	c := &cobra.Command{
		Use: "keygen", Short: "Make keys for a domain and print their DNS records", Args: args(cobra.NoArgs),
		Long: `Makes an RSA key (2048 bits, which everybody verifies) and an Ed25519 key (shorter and
stronger, which some do not know yet), each in a file of its own that only the relay can
read, and prints what to publish and to configure. Nothing is signed before you configure
it. The Ed25519 key has the selector with -ed at its end: one name has one record.

Exit code: 0 made, 65 a name is wrong or a file is there already, 77 the system does not let it.`,
		RunE: func(c *cobra.Command, _ []string) error {
			algorithms := []string{dkim.RSA, dkim.Ed25519}
			switch {
			case onlyRSA && !onlyEd25519:
				algorithms = algorithms[:1]
			case onlyEd25519 && !onlyRSA:
				algorithms = algorithms[1:]
			}
			name, err := mailDomain(domain)
			if err != nil {
				return &exitError{exitData, err}
			}
			if selector, err = config.Selector(selector); err != nil {
				return &exitError{exitData, err}
			}
			if dir == "" {
				cfg, err := parseConfig(c)
				if err != nil {
					return fmt.Errorf("%w\n(or name the folder for the keys: --dir)", err)
				}
				dir = filepath.Join(cfg.DataDir, "dkim")
			}
			if dir, err = filepath.Abs(dir); err != nil {
				return err
			}
			made, err := makeKeys(dir, name, selector, algorithms)
			if err != nil {
				return err
			}
			printMade(newScreen(c.OutOrStdout()), name, made)
			return nil
		},
	}
	c.Flags().StringVar(&domain, "domain", "", "the `DOMAIN` of the From addresses (required)")
	c.Flags().StringVar(&selector, "selector", "s"+time.Now().Format("200601"), "the `NAME` of the key, new for each key")
	c.Flags().StringVar(&dir, "dir", "", "the `FOLDER` for the files (default: dkim in data_dir)")
	c.Flags().BoolVar(&onlyRSA, "rsa", false, "an RSA key only")
	c.Flags().BoolVar(&onlyEd25519, "ed25519", false, "an Ed25519 key only")
	return c
}

// mailDomain is a domain as A-labels, lower case.
func mailDomain(domain string) (string, error) {
	if domain == "" {
		return "", errors.New("--domain is missing: the domain of the From addresses, such as example.org")
	}
	a, err := relay.ParseAddress("postmaster@"+domain, true)
	if err != nil || strings.HasPrefix(a.Domain, "[") {
		return "", fmt.Errorf("--domain %q is not the name of a domain such as example.org", domain)
	}
	return a.Domain, nil
}

// madeKey is a key in its file.
type madeKey struct {
	dkim.Key
	file string
}

func makeKeys(dir, domain, selector string, algorithms []string) (made []madeKey, err error) {
	if err := makeKeyFolder(dir); err != nil {
		return nil, keygenError(err)
	}
	for _, algorithm := range algorithms {
		name := selector
		if algorithm == dkim.Ed25519 && len(algorithms) > 1 {
			name += "-ed"
		}
		signer, err := dkim.Generate(algorithm)
		if err != nil {
			return nil, err
		}
		k := madeKey{dkim.NewKey(domain, name, signer), filepath.Join(dir, domain+"."+name+".pem")}
		if err := dkim.WriteKey(k.file, signer); err != nil {
			return nil, keygenError(err)
		}
		if err := ownedLike(k.file, dir); err != nil {
			return nil, keygenError(err)
		}
		made = append(made, k)
	}
	return made, nil
}

func keygenError(err error) error {
	switch {
	case errors.Is(err, fs.ErrExist):
		return &exitError{exitData, fmt.Errorf("%w: mail may be signed with that key already. Choose another --selector", err)}
	case errors.Is(err, fs.ErrNotExist):
		return &exitError{exitData, fmt.Errorf("%w: make that folder, or name another one with --dir", err)}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitNoPerm, err}
	}
	return err
}

// makeKeyFolder makes the folder, and only it: what is above must be there.
func makeKeyFolder(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return ownedLike(dir, filepath.Dir(dir))
}

// ownedLike gives what root has made to whom the folder belongs that it is in: the
// relay's own user must be able to read it. That user may have put a link there in
// between, which is not followed.
func ownedLike(path, folder string) error {
	info, err := os.Stat(folder)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

func printMade(s screen, domain string, made []madeKey) {
	for _, k := range made {
		fmt.Fprintf(s, "made %s (%s)\n", k.file, k.Strength())
	}
	fmt.Fprintf(s, "\n%s in the DNS of %s, as lines of a zone file:\n\n", s.bold("1. Publish"), domain)
	for _, k := range made {
		fmt.Fprintln(s, publish.TXT(k.Name(), k.Record()).Line())
	}
	fmt.Fprint(s, "\n   or in the form of a DNS provider, each value as one text:\n\n")
	for _, k := range made {
		fmt.Fprintf(s, "   name   %s   (in the zone of %s)\n   type   TXT\n   value  %s\n\n", strings.TrimSuffix(k.Name(), "."+domain), domain, k.Record())
	}
	fmt.Fprintf(s, "%s, together with the keys that are there:\n\ndkim:\n", s.bold("2. Add to the configuration"))
	for _, k := range made {
		fmt.Fprintf(s, "  - { domain: %s, selector: %s, key_file: %q }\n", domain, k.Selector, k.file)
	}
	fmt.Fprintf(s, "\n%s until it is content: srvrelay dkim check\n%s: srvrelay reload\n", s.bold("3. Check"), s.bold("4. Sign"))
}

// keyReport is a configured key as show and check print it.
type keyReport struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Signs     bool   `json:"signs"` // false: kept for a change of keys
	Name      string `json:"name"`
	Record    string `json:"record"`
	Result    string `json:"result,omitempty"` // of check: good, wrong, unknown
	Problem   string `json:"problem,omitempty"`

	key dkim.Key
}

// configuredKeys are the keys in the order of the configuration.
func configuredKeys(c *cobra.Command) ([]keyReport, *config.Config, error) {
	cfg, err := parseConfig(c)
	if err != nil {
		return nil, nil, err
	}
	keys, problems := dkimKeys(cfg, "")
	if len(problems) > 0 {
		return nil, nil, problems
	}
	if len(keys) == 0 {
		return nil, nil, &exitError{exitData, errors.New("the configuration has no keys (dkim), so nothing is signed\nMake one: srvrelay dkim keygen --domain example.org")}
	}
	sign := dkim.NewKeys(keys)
	var all []keyReport
	for _, k := range keys {
		all = append(all, keyReport{
			Domain: k.Domain, Selector: k.Selector, Algorithm: k.Algorithm(), Signs: sign.Sign(k), Name: k.Name(), Record: k.Record(), key: k,
		})
	}
	return all, cfg, nil
}

// title is the first line about a key.
func (r keyReport) title(s screen) string {
	use := "signs"
	if !r.Signs {
		use = "does not sign: another " + r.Algorithm + " key of the domain is first"
	}
	return fmt.Sprintf("%s  %s, %s", s.bold(r.Name), r.key.Strength(), use)
}

func dkimShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Show the configured keys and the records to publish", Args: args(cobra.NoArgs),
		Long: `Shows the keys of the configuration, which of them sign, and the DNS records that belong
to them. It shows nothing of the private keys, and asks nobody; see also dkim check.

Exit code: 0 shown, 65 there are no keys, 78 the configuration is wrong.`,
		RunE: func(c *cobra.Command, _ []string) error {
			all, _, err := configuredKeys(c)
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(c.OutOrStdout(), all)
			}
			s := newScreen(c.OutOrStdout())
			for _, r := range all {
				fmt.Fprintf(s, "%s\n%s\nas one text: %s\n\n", r.title(s), publish.TXT(r.key.Name(), r.Record).Line(), r.Record)
			}
			return nil
		},
	}
	c.Flags().Bool("json", false, "print JSON: a list of keys")
	return c
}

// Results of a check.
const (
	keyGood    = "good"
	keyWrong   = "wrong"
	keyUnknown = "unknown" // the DNS did not answer
)

func dkimCheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "check", Short: "Compare the published DKIM records with the configured keys", Args: args(cobra.NoArgs),
		Long: `Looks up the record of every configured key, with the resolvers of the configuration,
compares it with the key, and says what to change. A resolver may remember for some time
what was there before.

Exit code: 0 all keys that sign can be verified, 65 a record is missing or wrong, 75 the
DNS did not answer, 78 the configuration is wrong.`,
		RunE: func(c *cobra.Command, _ []string) error {
			all, cfg, err := configuredKeys(c)
			if err != nil {
				return err
			}
			resolver, err := dnsutil.New(dnsutil.Config{Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD})
			if err != nil {
				return &exitError{exitConfig, err}
			}
			code := exitOK
			for i := range all {
				all[i].check(c.Context(), resolver)
				if now := all[i].exitCode(); now != exitOK && code != exitData { // what is wrong is more than what is not known
					code = now
				}
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				err = printJSON(c.OutOrStdout(), all)
			} else {
				printChecked(newScreen(c.OutOrStdout()), all)
			}
			if err != nil || code == exitOK {
				return err
			}
			return &exitError{Code: code}
		},
	}
	c.Flags().Bool("json", false, "print JSON: a list of keys, each with result good, wrong or unknown")
	return c
}

func (r *keyReport) check(ctx context.Context, resolver *dnsutil.Client) {
	found, err := resolver.TXT(ctx, r.Name)
	if _, none := errors.AsType[*dnsutil.NotFound](err); err != nil && !none {
		r.Result, r.Problem = keyUnknown, queue.Safe(err.Error(), 400)
		return
	}
	if r.Problem = queue.Safe(r.key.Check(found.Records), 2000); r.Problem != "" {
		r.Result = keyWrong
		return
	}
	r.Result = keyGood
	if dkim.Testing(found.Records[0]) {
		r.Problem = "the record says t=y (a test): many treat such mail as if it were not signed; take it out when all is well"
	}
}

// exitCode: a key that does not sign need not be there yet, or any more.
func (r *keyReport) exitCode() int {
	switch {
	case r.Result == keyUnknown:
		return exitTempFail
	case r.Result == keyWrong && r.Signs:
		return exitData
	}
	return exitOK
}

func printChecked(s screen, all []keyReport) {
	for _, r := range all {
		paint := map[string]func(string) string{keyGood: s.good, keyWrong: s.bad, keyUnknown: s.wait}[r.Result]
		if r.Result == keyWrong && !r.Signs {
			paint = s.wait
		}
		fmt.Fprintf(s, "%-7s  %s\n", paint(r.Result), r.title(s))
		if r.Problem != "" {
			fmt.Fprintf(s, "         %s\n", r.Problem)
		}
	}
}
