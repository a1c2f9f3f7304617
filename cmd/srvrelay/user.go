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
	c := &cobra.Command{Use: "user", Short: "Manage who may submit with a password", RunE: parent}
	add := &cobra.Command{
		Use: "add NAME", Short: "Add a user, or give one a new password", Args: args(cobra.ExactArgs(1)),
		RunE: withUsers(func(c *cobra.Command, file string, a []string) error {
			if err := relay.CheckUserName(a[0]); err != nil { // before a password is asked for
				return &exitError{exitData, err}
			}
			password, err := givenPassword(c, a[0])
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
			return nil
		}),
	}
	c.AddCommand(add, remove, list)
	return c
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
		return do(c, cfg.Auth.UsersFile, a)
	}
}

// givenPassword asks for a new password on a terminal, or reads it with
// --password-stdin.
func givenPassword(c *cobra.Command, name string) (string, error) {
	if stdin, _ := c.Flags().GetBool("password-stdin"); stdin {
		return readPassword(c.InOrStdin())
	}
	if f, ok := c.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return promptPassword(f, c.ErrOrStderr(), "Password of "+queue.Safe(name, 80), true)
	}
	return "", usage(errors.New("give the password on standard input, with --password-stdin\nFor instance: printf %s \"$PASSWORD\" | srvrelay user add NAME --password-stdin"))
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
