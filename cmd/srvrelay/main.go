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
	"srvrelay/relay/sendmail"
)

// Exit codes, those of sysexits.h where mail programs use them.
const (
	exitOK          = 0
	exitUsage       = 64 // EX_USAGE: the command line is wrong
	exitData        = 65 // EX_DATAERR: what was given is wrong
	exitUnavailable = 69 // EX_UNAVAILABLE: no relay is running; mail has no way
	exitSoftware    = 70 // EX_SOFTWARE
	exitIO          = 74 // EX_IOERR: the files of the queue are damaged
	exitTempFail    = 75 // EX_TEMPFAIL: try again later
	exitNoPerm      = 77 // EX_NOPERM: the system does not let us
	exitConfig      = 78 // EX_CONFIG
)

func main() { os.Exit(run(sendmail.AsCalled(os.Args))) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	return report(os.Stderr, c.Name(), err)
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

// report prints an error of a command for a person and returns the exit code.
func report(w io.Writer, command string, err error) int {
	if err == nil {
		return exitOK
	}
	var problems config.Problems
	if errors.As(err, &problems) {
		outcome := "nothing was done, and a running relay goes on as before"
		if command == "serve" || strings.HasPrefix(command, "check") {
			outcome = "nothing was started"
		}
		fmt.Fprintf(w, "%s\n%d %s; %s\n", problems, len(problems), plural(len(problems), "problem"), outcome)
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
	cobra.EnableCommandSorting = false // they stand in the order of their use
	root := &cobra.Command{
		Use:     "srvrelay",
		Version: version,
		Short:   "An SMTP relay that delivers by DNS SRV records",
		Long: `srvrelay takes mail in, keeps it on disk, and delivers it to the hosts and ports
that the recipient's domain names in its SRV records (_smtp._tcp.DOMAIN), or in
its MX records when there are none; it fails over, retries and reports.`,
		Example: `  srvrelay demo                          see it work, on this machine, in 15 seconds
  srvrelay config init smarthost         write a configuration (or app, edge, home)
  srvrelay explain you@example.org       where would mail for you go, and why?
  srvrelay explain message ID            why is this message not delivered?`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.ArbitraryArgs, RunE: parent,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.PersistentFlags().String("config", "", "configuration `FILE` (else $SRVRELAY_CONFIG, else /etc/srvrelay/srvrelay.yaml)")
	root.SetUsageTemplate(strings.NewReplacer(
		// A command that only has others below it cannot be run by itself.
		"{{if .Runnable}}", "{{if and .Runnable (not (and .HasAvailableSubCommands (eq .Use .Name)))}}",
		"{{rpad .Name .NamePadding }} ", "{{rpad .Name .NamePadding }}  ",
	).Replace(root.UsageTemplate()))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w\nSee: %s --help", err, c.CommandPath()))
	})
	group(root, "Try it and set it up:", demoCommand(), configCommand(), checkConfigCommand("check-config"), userCommand(), dkimCommand(), dnsCommand())
	group(root, "Run it:", serveCommand(), reloadCommand(), sendmailCommand(), backupCommand(), restoreCommand())
	group(root, "Why is my mail not delivered?", statusCommand(), topCommand(), explainCommand(), queueCommand(), traceCommand(), doctorCommand())
	group(root, "Who is shut out, or held?", banCommand(), submissionCommand())
	root.AddCommand(labCommand(), versionCommand())
	for _, command := range more {
		root.AddCommand(command())
	}
	return root
}

// more are commands of a special build; see manpages.go.
var more []func() *cobra.Command

// group adds commands under a title of their own in the help.
func group(parent *cobra.Command, title string, commands ...*cobra.Command) {
	parent.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
	}
	parent.AddCommand(commands...)
}

// parent is the RunE of a command that only has others below it.
func parent(c *cobra.Command, a []string) error {
	if len(a) > 0 {
		meant := ""
		c.SuggestionsMinimumDistance = 2 // letters, as cobra has it at its root
		if near := c.SuggestionsFor(a[0]); len(near) > 0 {
			meant = fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
		}
		return usage(fmt.Errorf("unknown command %q for %q%s\nSee: %s --help", a[0], c.CommandPath(), meant, c.CommandPath()))
	}
	return c.Help()
}

// args wraps cobra's checks of arguments so that they exit with 64.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := check(c, a); err != nil {
			return usage(fmt.Errorf("%s\nUsage: %s   (more: %s --help)", misfit(c, a), c.UseLine(), c.CommandPath()))
		}
		return nil
	}
}

// misfit says which argument is missing or too much, by the names in Use.
func misfit(c *cobra.Command, a []string) string {
	names, path := strings.Fields(c.Use)[1:], strings.TrimPrefix(c.CommandPath(), "srvrelay ")
	if len(a) < len(names) {
		return fmt.Sprintf("%s: %s is missing", path, names[len(a)])
	}
	return fmt.Sprintf("%s: %q is one argument too many", path, a[len(names)])
}
