package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestHelp: the help of every command fits a terminal of 100 columns, and its short
// line is one for a list of commands.
func TestHelp(t *testing.T) {
	n := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		n++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || c.Short[:1] != strings.ToUpper(c.Short[:1]) {
			t.Errorf("%s: %q in a list of commands", c.CommandPath(), c.Short)
		}
		c.InitDefaultHelpFlag()
		for _, line := range strings.Split(c.Long+"\n"+c.UsageString(), "\n") {
			if w := len([]rune(line)); w > 100 {
				t.Errorf("%s --help has a line of %d columns: %s", c.CommandPath(), w, line)
			}
		}
		for _, below := range c.Commands() {
			look(below)
		}
	}
	look(rootCommand())
	if n < 30 {
		t.Errorf("%d commands", n)
	}
}
