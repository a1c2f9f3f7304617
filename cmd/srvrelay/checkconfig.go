package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"srvrelay/queue"
	"srvrelay/relay"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

// parseConfig reads the configuration that the command line names, without a
// look at the files that it names in turn.
func parseConfig(c *cobra.Command) (*config.Config, error) {
	flag, _ := c.Flags().GetString("config")
	return config.Load(config.Find(flag, os.Environ()), c.Flags(), os.Environ())
}

// askingConfig is parseConfig for a question to the running relay. With a mistake
// in the configuration that relay goes on with the one before, and its socket is
// all that one needs to know.
func askingConfig(c *cobra.Command) (*config.Config, error) {
	cfg, err := parseConfig(c)
	var problems config.Problems
	if !errors.As(err, &problems) {
		return cfg, err
	}
	flag, _ := c.Flags().GetString("config")
	socket := config.AdminSocket(config.Find(flag, os.Environ()), c.Flags(), os.Environ())
	if socket == "" {
		return nil, err
	}
	if _, gone := admin.NewClient(socket).Hops(c.Context()); gone != nil {
		return nil, err
	}
	fmt.Fprintf(c.ErrOrStderr(), "warning: the configuration has %d %s (srvrelay check-config); the running relay goes on with the one before\n",
		len(problems), plural(len(problems), "problem"))
	cfg = &config.Config{}
	cfg.Admin.Socket = socket
	return cfg, nil
}

// checkedConfig is parseConfig with a look at the files.
func checkedConfig(c *cobra.Command) (*config.Config, error) {
	cfg, err := parseConfig(c)
	if err != nil {
		return nil, err
	}
	if p := checkFiles(cfg); len(p) > 0 {
		return nil, p
	}
	return cfg, nil
}

// checkConfigCommand is "check-config", and "config check" for those who look
// for it there.
func checkConfigCommand(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: "Check the configuration and the files that it names", Args: args(cobra.NoArgs),
		Long: `Says everything that is wrong at once, each with its line and column and what would be
right. It starts nothing and changes nothing; run it as root or as the user that the
relay runs as, who can read the files. It looks at the configuration and the files
that it names; srvrelay doctor looks at the machine and the network too.

Exit code: 0 all is well (there may be warnings), 78 it is not.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			problems := checkFiles(cfg)
			for _, w := range cfg.Warnings {
				fmt.Fprintln(c.ErrOrStderr(), "warning:", w)
			}
			if len(problems) > 0 {
				return problems
			}
			if r := cfg.Recipients; r.Check == "list" {
				if _, err := relay.NewRecipientList(r.List, r.File); err != nil {
					return &exitError{exitConfig, err}
				}
			}
			name := cfg.File
			if name == "" {
				name = "the built-in configuration"
			}
			routes := ""
			if n := len(cfg.Routes); n > 0 {
				routes = fmt.Sprintf("%d %s, ", n, plural(n, "route"))
			}
			fmt.Fprintf(c.OutOrStdout(), "%s is fine: %d %s, %squeue in %s\n", name, len(cfg.Listeners), plural(len(cfg.Listeners), "listener"), routes, cfg.DataDir)
			return nil
		},
	}
}

// checkFiles is all that is wrong with the files that a configuration names.
func checkFiles(cfg *config.Config) config.Problems {
	problems := cfg.CheckFiles()
	if _, err := relay.LoadUsers(cfg.Auth.UsersFile); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		problems = append(problems, cfg.Problem("auth.users_file", queue.Safe(err.Error(), 400), err))
	}
	_, wrong := dkimKeys(cfg, "")
	return append(problems, wrong...).Sorted()
}

// version is set by the linker for releases.
var version = "0.1.0-dev"

// madeFrom is set by the linker for releases: "commit 3dc490b0a1b2, 2026-11-29".
// Other builds have it from Go, where it knows (see revision).
var madeFrom string

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		Run: func(c *cobra.Command, _ []string) {
			built := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				words := revision(info.Settings)
				if madeFrom != "" {
					words = []string{madeFrom}
				}
				built = " (" + strings.Join(append(words, info.GoVersion), ", ") + ")"
			}
			fmt.Fprintf(c.OutOrStdout(), "srvrelay %s%s\n", version, built)
		},
	}
}

// revision says which commit the program was built from, and of what day, where
// the builder knew: "commit 3dc490b0a1b2", "2026-11-29".
func revision(settings []debug.BuildSetting) (words []string) {
	of := map[string]string{}
	for _, s := range settings {
		of[s.Key] = s.Value
	}
	commit := of["vcs.revision"]
	if commit == "" {
		return nil
	}
	commit = "commit " + commit[:min(len(commit), 12)]
	if of["vcs.modified"] == "true" {
		commit += " and changes"
	}
	words = append(words, commit)
	if day, _, found := strings.Cut(of["vcs.time"], "T"); found {
		words = append(words, day)
	}
	return words
}
