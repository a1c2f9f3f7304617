// Command srvrelay is an SMTP relay that delivers by DNS SRV records: it takes
// mail in, keeps it on disk, and hands it to the hosts and ports that the
// recipient's domain names. This package only wires the others together and
// talks to the person at the terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

// Exit codes, those of sysexits.h where mail programs use them.
const (
	exitOK          = 0
	exitUsage       = 64 // EX_USAGE: the command line is wrong
	exitData        = 65 // EX_DATAERR: what was given is wrong
	exitUnavailable = 69 // EX_UNAVAILABLE: no relay is running; mail has no way
	exitSoftware    = 70 // EX_SOFTWARE
	exitTempFail    = 75 // EX_TEMPFAIL: try again later
	exitNoPerm      = 77 // EX_NOPERM: the system does not let us
	exitConfig      = 78 // EX_CONFIG
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return report(os.Stderr, err)
}

// exitError carries an exit code; with a nil Err the output has said it all.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

// report prints an error for a person and returns the exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintf(w, "%s\n%d %s; nothing was started\n", problems, len(problems), plural(len(problems), "problem"))
		return exitConfig
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.Err != nil {
			fmt.Fprintln(w, "srvrelay:", exit.Err)
		}
		return exit.Code
	}
	fmt.Fprintln(w, "srvrelay:", err)
	if strings.HasPrefix(err.Error(), "unknown command") { // cobra's, without a type of its own
		fmt.Fprintln(w, "See: srvrelay --help")
		return exitUsage
	}
	if errors.Is(err, admin.ErrNotAllowed) {
		return exitNoPerm
	}
	if errors.Is(err, admin.ErrNotRunning) {
		fmt.Fprintln(w, "Start it with: srvrelay serve   (another configuration: --config FILE)")
		return exitUnavailable
	}
	return exitSoftware
}

func usage(err error) error { return &exitError{exitUsage, err} }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:     "srvrelay",
		Version: version,
		Short:   "An SMTP relay that delivers by DNS SRV records",
		Long: `srvrelay takes mail in, keeps it on disk, and delivers it to the hosts and ports
that the recipient's domain names in its SRV records (_smtp._tcp.DOMAIN), or in
its MX records when there are none; it fails over, retries and reports.

  srvrelay demo                   see it work, on this machine, in 15 seconds
  srvrelay config init            write a configuration for what you want to do
  srvrelay serve                  run it
  srvrelay explain you@example.org  where would mail for you go, and why?
  srvrelay queue list             what waits, and for what
  srvrelay doctor                 what is wrong with this machine or configuration?`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().String("config", "", "configuration file (else $SRVRELAY_CONFIG, /etc/srvrelay/srvrelay.yaml, built-in defaults)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w\nSee: %s --help", err, c.CommandPath()))
	})
	root.AddCommand(
		serveCommand(), reloadCommand(), demoCommand(), labCommand(),
		explainCommand(), queueCommand(), userCommand(),
		configCommand(), checkConfigCommand("check-config"), doctorCommand(), versionCommand(),
	)
	return root
}

// parent is the RunE of a command that only has others below it.
func parent(c *cobra.Command, a []string) error {
	if len(a) > 0 {
		return usage(fmt.Errorf("unknown command %q for %q\nSee: %s --help", a[0], c.CommandPath(), c.CommandPath()))
	}
	return c.Help()
}

// args wraps cobra's checks of arguments so that they exit with 64.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return usage(fmt.Errorf("%w\nUsage: %s", err, c.UseLine()))
		}
		return nil
	}
}
