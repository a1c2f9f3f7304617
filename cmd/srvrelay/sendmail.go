package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay/config"
	"srvrelay/relay/sendmail"
)

const (
	defaultServer = "127.0.0.1:2525" // where the relay takes mail when no configuration says more
	aliasesFile   = "/etc/aliases"
)

func sendmailCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sendmail [OPTION...] [RECIPIENT...]", Short: "Hand in mail as /usr/sbin/sendmail: for cron, PHP, mutt, git",
		Long: `Reads a message from standard input and hands it to the relay of this machine. Called
by the name sendmail (a link to this program) it is this command; mailq is
sendmail -bp, and newaliases has nothing to do. docs/sendmail.md has more.

  -t          send to those in To, Cc and Bcc, and take Bcc out
  -f ADDRESS  sender of the envelope; '<>' is the null sender (else your name at the relay's)
  -F NAME     full name, for a message without From
  -i, -oi     a line with a lone dot does not end the message
  -bs         speak SMTP on standard input and output
  -bp         list the queue (mailq)
  -N WHEN     reports: never, or success,failure,delay
  -R WHAT     what they contain: full or hdrs
  -V ID       envelope id, for the reports
  -v          say what the relay said
  -C FILE     configuration (also --config FILE)

Other options of sendmail are taken and have no effect. The relay is the first submission
listener of the configuration that takes mail from this machine without a password;
where the configuration cannot be read, 127.0.0.1:2525; or $SRVRELAY_SENDMAIL_SERVER.

Exit code: 0 the relay has the message, 64 the command line is wrong, 65 the message is,
67 a recipient is refused (the others have it), 75 no relay, or it says: later, 77 this
sender may not. Only what is said to be sent is sent.`,
		Example: `  printf 'Subject: hello\n\nHello.\n' | srvrelay sendmail you@example.org
  srvrelay sendmail -t -i < message.txt
  ln -s "$(command -v srvrelay)" /usr/sbin/sendmail`,
		DisableFlagParsing: true, // -oi and -fADDRESS are no flags as other commands have them
		RunE: func(c *cobra.Command, a []string) error {
			o, err := sendmail.Parse(a)
			if err != nil {
				return usage(fmt.Errorf("sendmail: %w\nSee: srvrelay sendmail --help", err))
			}
			return runSendmail(c, o)
		},
	}
}

func runSendmail(c *cobra.Command, o sendmail.Options) error {
	switch o.Mode {
	case sendmail.Help:
		return c.Help()
	case sendmail.Nothing:
		return nil
	case sendmail.List:
		return listAsMailq(c.Context(), o.Config)
	}
	// Who waits for input at a terminal can interrupt it; nothing is sent then.
	signal.Reset(syscall.SIGINT, syscall.SIGTERM)
	server, note, err := sendmailServer(o.Config, os.Environ())
	if err != nil {
		return err
	}
	client := caller(server, cmp.Or(lastOf(os.Environ(), config.EnvAliases), aliasesFile))
	if o.Mode == sendmail.SMTP {
		return sendmailError("", note, client.Speak(c.Context(), c.InOrStdin(), c.OutOrStdout()))
	}
	m, err := sendmail.Read(c.InOrStdin(), o.KeepDots)
	if err != nil {
		return sendmailError("", "", err)
	}
	defer m.Close()
	said, err := client.Submit(c.Context(), o, m)
	if err == nil && o.Verbose {
		fmt.Fprintln(c.OutOrStdout(), queue.Safe(said, 300))
	}
	return sendmailError(said, note, err)
}

// listAsMailq is `queue list`.
func listAsMailq(ctx context.Context, configFile string) error {
	root := rootCommand()
	args := []string{"queue", "list"}
	if configFile != "" {
		args = append(args, "--config", configFile)
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// sendmailError says what became of the message, and how sendmail would exit.
func sendmailError(said, note string, err error) error {
	var f *sendmail.Failure
	if !errors.As(err, &f) {
		return err
	}
	what := "nothing was sent"
	if said != "" {
		what = "only the other recipients have the message (" + queue.Safe(said, 100) + ")"
	}
	text := fmt.Sprintf("sendmail: %s: %s", what, queue.Safe(f.Error(), 4000))
	if note != "" && f.Code == sendmail.ExitTempFail {
		text += "\n" + note
	}
	return &exitError{f.Code, errors.New(text)}
}

// sendmailServer finds the relay of this machine. A user who may not read the
// configuration, and a mistake in it while the relay goes on with the one before, do not
// keep mail from being handed in: then note says, for an error, why the default was
// tried. A file that the command line names must be right.
func sendmailServer(file string, environ []string) (server, note string, err error) {
	if value := lastOf(environ, config.EnvSendmail); value != "" {
		if host, port, err := net.SplitHostPort(value); err != nil || host == "" || port == "" {
			return "", "", &exitError{exitConfig, fmt.Errorf("%s: %s is not HOST:PORT (such as %s)", config.EnvSendmail, strconv.Quote(value), defaultServer)}
		}
		return value, "", nil
	}
	cfg, err := config.Load(config.Find(file, environ), nil, environ)
	switch {
	case err != nil && file != "":
		return "", "", err
	case err != nil:
		return defaultServer, fmt.Sprintf("%s was tried, as the configuration cannot be used (%s names another address):\n%v", defaultServer, config.EnvSendmail, err), nil
	}
	if server = trustingDoor(cfg); server == "" {
		return "", "", &exitError{exitConfig, errors.New("sendmail: nothing was sent: no listener takes mail from this machine without a password.\nAdd to listeners: { address: \"127.0.0.1:2525\", mode: submission, tls: none }")}
	}
	return server, "", nil
}

// lastOf is the value of a variable, "" when it is not set.
func lastOf(environ []string, name string) string {
	for _, e := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// trustingDoor is the address of the first submission listener that takes mail
// from a loopback address of this machine without a password and without TLS
// from the first byte, "" for none.
func trustingDoor(cfg *config.Config) string {
	for _, l := range cfg.Listeners {
		addr, port := nearAddress(l.Address)
		if l.Mode != config.Submission || l.TLS == config.TLSImplicit || port == "0" || contains(l.ProxyFrom, addr) {
			continue
		}
		if contains(cfg.Trusted(l), addr) {
			return net.JoinHostPort(addr.String(), port)
		}
	}
	return ""
}

// nearAddress is where a listener is reached from its own machine; that is also
// the address that it then sees.
func nearAddress(listen string) (netip.Addr, string) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return netip.Addr{}, "0"
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "" || host == "localhost" || err == nil && addr == netip.IPv4Unspecified():
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case err == nil && addr == netip.IPv6Unspecified():
		addr = netip.IPv6Loopback()
	}
	return addr.Unmap(), port
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// caller is who hands in mail, as far as this machine knows.
func caller(server, aliases string) sendmail.Client {
	c := sendmail.Client{Server: server, User: "uid" + strconv.Itoa(os.Getuid())}
	if u, err := user.Current(); err == nil && u.Username != "" {
		c.User, c.FullName = u.Username, u.Name
	}
	if text, err := os.ReadFile(aliases); err == nil {
		c.Aliases = sendmail.ParseAliases(string(text))
	}
	return c
}
