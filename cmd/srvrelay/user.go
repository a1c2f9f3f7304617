package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/config"
)

func userCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Manage who may submit with a password", RunE: parent,
		Long: `The names and passwords with which programs and mail servers log in at submission
listeners (RFC 4954). They are in auth.users_file, the passwords as hashes and as keys
of SCRAM-SHA-256 only. A running relay takes changes up at once; nothing needs a restart
or a reload.`,
		Example: `  srvrelay user add shop                                           # asks for the password
  printf %s "$PASSWORD" | srvrelay user add shop --password-stdin
  srvrelay user check shop                                         # why does it get 535?
  srvrelay user remove shop`,
	}
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a user, or give one a new password", Args: args(cobra.ExactArgs(1)),
		RunE: withUsers(func(c *cobra.Command, file string, a []string) error {
			if err := relay.CheckUserName(a[0]); err != nil { // before a password is asked for
				return &exitError{exitData, err}
			}
			password, err := givenPassword(c, a[0], true)
			if err != nil {
				return err
			}
			before, _ := relay.ListUsers(file) // AddUser says what is wrong with the file
			err = relay.AddUser(file, a[0], password)
			if errors.Is(err, fs.ErrNotExist) { // a file that is not there is made
				err = fmt.Errorf("users file %s: there is no folder %s: make it, or name another file in the configuration (auth.users_file)", file, filepath.Dir(file))
			}
			if err != nil {
				return &exitError{exitData, err}
			}
			what := "may submit now"
			if slices.Contains(before, a[0]) {
				what = "was there already: password changed"
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s (%s)\n", queue.Safe(a[0], 80), what, file)
			sayWithoutScram(c.ErrOrStderr(), file)
			return nil
		}),
	}
	add.Flags().Bool("password-stdin", false, "read the password from standard input (one line) instead of asking")
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Remove a user", Args: args(cobra.ExactArgs(1)),
		RunE: withUsers(func(c *cobra.Command, file string, a []string) error {
			if err := relay.RemoveUser(file, a[0]); err != nil {
				return &exitError{exitData, err}
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is removed (%s)\n", queue.Safe(a[0], 80), file)
			return nil
		}),
	}
	list := &cobra.Command{
		Use: "list", Short: "List the users", Args: args(cobra.NoArgs),
		RunE: withUsers(func(c *cobra.Command, file string, _ []string) error {
			names, err := relay.ListUsers(file)
			if errors.Is(err, fs.ErrNotExist) {
				fmt.Fprintf(c.ErrOrStderr(), "no users yet (%s)\n", file)
				return nil
			}
			if err != nil {
				return &exitError{exitData, err}
			}
			for _, n := range names {
				fmt.Fprintln(c.OutOrStdout(), n)
			}
			sayWithoutScram(c.ErrOrStderr(), file)
			return nil
		}),
	}
	c.AddCommand(add, remove, list, userCheckCommand())
	return c
}

// sayWithoutScram says why SCRAM is not offered, if it is not.
func sayWithoutScram(w io.Writer, file string) {
	users, err := relay.LoadUsers(file)
	if err != nil {
		return
	}
	names := users.WithoutScram()
	if len(names) == 0 {
		return
	}
	some := queue.Safe(strings.Join(names[:min(len(names), 3)], ", "), 200)
	if more := len(names) - 3; more > 0 {
		some += fmt.Sprintf(" and %d more", more)
	}
	fmt.Fprintf(w, "SCRAM-SHA-256 is not offered, as these users have no keys for it: %s (srvrelay user add with the same name and a password, which may be the old one, makes them)\n", some)
}

// userCheckCommand answers whether it is the name or the password that is
// wrong: a client is told neither (535).
func userCheckCommand() *cobra.Command {
	check := &cobra.Command{
		Use: "check NAME", Short: "Say whether a name and a password are right", Args: args(cobra.ExactArgs(1)),
		Long: `An application that gets "535 5.7.8" is not told whether its name or its password
is wrong. This says so, and changes nothing.

Exit code: 0 both are right, 65 one is not.`,
		RunE: withUsers(func(c *cobra.Command, file string, a []string) error {
			name := queue.Safe(a[0], 80)
			names, err := relay.ListUsers(file)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return &exitError{exitData, fmt.Errorf("%s is no user: there are no users yet (%s)", name, file)}
			case err != nil:
				return &exitError{exitData, err}
			case !slices.Contains(names, a[0]):
				return &exitError{exitData, fmt.Errorf("%s is no user in %s (srvrelay user list has the names)", name, file)}
			}
			password, err := givenPassword(c, a[0], false)
			if err != nil {
				return err
			}
			users, err := relay.LoadUsers(file)
			if err != nil {
				return &exitError{exitData, err}
			}
			right, err := users.Authenticate(a[0], password)
			switch {
			case err != nil:
				return &exitError{exitData, err}
			case !right:
				return &exitError{exitData, fmt.Errorf("the password of %s is wrong (a new one: srvrelay user add %s)", name, name)}
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is a user, and this is the password (%s)\n", name, file)
			return nil
		}),
	}
	check.Flags().Bool("password-stdin", false, "read the password from standard input (one line) instead of asking")
	return check
}

// withUsers runs a command on the users file of the configuration. It does not
// check the files that the configuration names: this is how one of them is made.
func withUsers(do func(*cobra.Command, string, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, a []string) error {
		cfg, err := parseConfig(c)
		if err != nil {
			return err
		}
		if cfg.File == "" && !cfg.Written("auth.users_file") && !cfg.Written("data_dir") {
			return &exitError{exitConfig, fmt.Errorf(`no configuration was found (no --config, no $%s, no %s).
Without one the users file would be %s, which no listener asks.
Name the relay's configuration: %s --config FILE ...   (srvrelay config init writes one)`,
				config.EnvFile, config.SystemFile, cfg.Auth.UsersFile, c.CommandPath())}
		}
		if c.Name() == "add" && filepath.Dir(cfg.Auth.UsersFile) == cfg.DataDir { // before the relay's first start
			err = os.MkdirAll(cfg.DataDir, 0o700)
		}
		if err == nil {
			err = do(c, cfg.Auth.UsersFile, a)
		}
		if errors.Is(err, fs.ErrPermission) {
			return &exitError{exitNoPerm, fmt.Errorf("%w\nRun this as root, or as the user that the relay runs as", err)}
		}
		return err
	}
}

// givenPassword asks for a password on a terminal (twice for a new one), or
// reads it with --password-stdin.
func givenPassword(c *cobra.Command, name string, twice bool) (string, error) {
	if stdin, _ := c.Flags().GetBool("password-stdin"); stdin {
		return readPassword(c.InOrStdin())
	}
	if f, ok := c.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return promptPassword(f, c.ErrOrStderr(), "Password of "+queue.Safe(name, 80), twice)
	}
	return "", usage(errors.New("give the password on standard input, with --password-stdin\nFor instance: printf %s \"$PASSWORD\" | " + c.CommandPath() + " NAME --password-stdin"))
}

// readPassword reads one line of at most 1 KiB.
func readPassword(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 1024)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", usage(errors.New("the password on standard input is empty"))
	}
	return line, nil
}
