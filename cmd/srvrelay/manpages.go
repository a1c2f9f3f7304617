//go:build manpages

package main

import (
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// A program that is built with this tag has one more command, which writes the
// manual pages. The one that is delivered has not: it needs nothing of that.
func init() {
	more = append(more, func() *cobra.Command {
		return &cobra.Command{
			Use: "manpages DIR", Short: "Write the manual pages", Hidden: true, Args: args(cobra.ExactArgs(1)),
			RunE: func(c *cobra.Command, a []string) error {
				if err := os.MkdirAll(a[0], 0o755); err != nil {
					return err
				}
				c.Root().DisableAutoGenTag = true
				return doc.GenManTree(c.Root(), &doc.GenManHeader{Section: "1", Source: "srvrelay " + version, Manual: "srvrelay", Date: buildDate()}, a[0])
			},
		}
	})
}

// buildDate is SOURCE_DATE_EPOCH, so that the same source makes the same pages.
func buildDate() *time.Time {
	sec, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return nil
	}
	t := time.Unix(sec, 0).UTC()
	return &t
}
