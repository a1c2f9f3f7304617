package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"srvrelay/relay/config"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Make, check and show the configuration", RunE: parent,
		Long: `One YAML file. The first that is named or exists is read: --config FILE,
$SRVRELAY_CONFIG, /etc/srvrelay/srvrelay.yaml; without any, built-in defaults serve
programs on this machine. docs/configuration.md has every key.

  srvrelay config init smarthost    write one for what you want to do
  srvrelay config check             is it right? (the same as check-config)
  srvrelay config show              what is in force, and where each value comes from
  srvrelay config schema            for the editor: completion and checks while you type`,
	}
	c.AddCommand(initCommand(), checkConfigCommand("check"), configShowCommand(), schemaCommand())
	return c
}

func configShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Show the configuration in force, with the source of each value", Args: args(cobra.NoArgs),
		Long: `Show the configuration in force: the file, what the environment and flags
override, and the defaults for the rest. What is shown can be used as a file.
It holds no secrets: passwords are in files and variables, of which it has the names.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := parseConfig(c)
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return printJSON(c.OutOrStdout(), struct {
					File     string           `json:"file"`
					Settings []config.Setting `json:"settings"`
				}{cfg.File, cfg.Settings()})
			}
			_, err = fmt.Fprint(c.OutOrStdout(), cfg.Effective())
			return err
		},
	}
	c.Flags().Bool("json", false, "print JSON: each key with its value and source")
	config.AddFlags(c.Flags())
	return c
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration, for editors", Args: args(cobra.NoArgs),
		Long: `Print the JSON Schema (draft 2020-12) of the configuration, for editors. With the
YAML language server (VS Code, Neovim, Emacs, Helix, ...):

  srvrelay config schema > ~/.config/srvrelay.schema.json

and as the first line of the configuration:

  # yaml-language-server: $schema=/home/you/.config/srvrelay.schema.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(c.OutOrStdout(), config.JSONSchema())
			return err
		},
	}
}
