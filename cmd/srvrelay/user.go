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
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/config"
)

func userCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Manage who may submit with a password", RunE: parent,
		Long: `The names and passwords with which programs and mail servers log in at submission
listeners (RFC 4954). They are in auth.users_file, the passwords as hashes only. A
running relay takes changes up at once; nothing needs a restart or a reload.`,
		Example: `  srvrelay user add shop                                           # asks for the password
  printf %s "$PASSWORD" | srvrelay user add shop --password-stdin
  srvrelay user remove shop`,
	}
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
			_, missing := os.Stat(file)
			if err := relay.AddUser(file, a[0], password); err != nil {
				return &exitError{exitData, err}
			}
			if missing != nil {
				if err := handOver(file); err != nil {
					return err
				}
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
		if c.Name() == "add" && filepath.Dir(usersFile(cfg)) == cfg.DataDir { // before the relay's first start
			err = os.MkdirAll(cfg.DataDir, 0o700)
		}
		if err == nil {
			err = do(c, usersFile(cfg), a)
		}
		if errors.Is(err, fs.ErrPermission) {
			return &exitError{exitNoPerm, fmt.Errorf("%w\nRun this as root, or as the user that the relay runs as", err)}
		}
		return err
	}
}

func usersFile(cfg *config.Config) string { return cfg.Auth.UsersFile }

// handOver gives a file that root has made to the owner of its folder: the
// user that the relay runs as, who must read it.
func handOver(file string) error {
	st, err := os.Stat(filepath.Dir(file))
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner := st.Sys().(*syscall.Stat_t)
	// That user may have put another file of root's in its place by now.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil || st.Sys().(*syscall.Stat_t).Nlink != 1 {
		return err
	}
	return f.Chown(int(owner.Uid), int(owner.Gid))
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
