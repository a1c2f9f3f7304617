package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"srvrelay/relay"

	"srvrelay/relay/config"
)

// parseConfig reads the configuration that the command line names, without a
// look at the files that it names in turn.
func parseConfig(c *cobra.Command) (*config.Config, error) {
	flag, _ := c.Flags().GetString("config")
	return config.Load(config.Find(flag, os.Environ()), c.Flags(), os.Environ())
}

func checkConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check-config", Short: "Check the configuration and the files that it names", Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			problems := cfg.CheckFiles()
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
			fmt.Fprintf(c.OutOrStdout(), "%s is fine: %d %s, queue in %s\n", name, len(cfg.Listeners), plural(len(cfg.Listeners), "listener"), cfg.DataDir)
			return nil
		},
	}
}

// version is set by the linker for releases.
var version = "0.1.0-dev"

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		Run: func(c *cobra.Command, _ []string) {
			goVersion := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = " (" + info.GoVersion + ")"
			}
			fmt.Fprintf(c.OutOrStdout(), "srvrelay %s%s\n", version, goVersion)
		},
	}
}
