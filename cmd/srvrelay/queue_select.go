package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"srvrelay/queue"
	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

// filterFlags are the filters of a command line.
type filterFlags struct {
	queue.Filter
	age age
}

// age is a duration as the configuration has them: with days, and never
// without a unit.
type age time.Duration

func (a *age) Set(s string) error {
	d, err := config.ParseDuration(s)
	*a = age(d)
	return err
}

func (a *age) Type() string { return "TIME" }

func (a *age) String() string {
	if *a == 0 {
		return "" // or the help would show a default
	}
	return config.FormatDuration(time.Duration(*a))
}

func addFilter(c *cobra.Command) *filterFlags {
	f := &filterFlags{}
	list := func(into *[]string, name, help string) { c.Flags().StringArrayVar(into, name, nil, help) }
	list(&f.Domains, "domain", "the recipient's domain: `NAME` (example.org, *.example.org)")
	list(&f.Hops, "hop", "who is asked to take the mail: `NAME`, as summary has it")
	list(&f.Senders, "sender", "the sender: `ADDRESS` (a@b.example, @b.example, news*@*, <>)")
	list(&f.Recipients, "recipient", "the recipient: `ADDRESS` (a@b.example, @b.example, news*@*)")
	list(&f.Users, "user", "who had logged in to submit it: `NAME` (anna, app-*)")
	list(&f.Clients, "client", "who handed it in: `ADDRESS` (192.0.2.1, 10.0.0.0/8)")
	c.Flags().Var(&f.age, "age", "in the queue for at least this `TIME` (30m, 2h, 3d)")
	list(&f.States, "state", "`WORD`: "+strings.Join(queue.FilterStates, ", "))
	list(&f.Reasons, "reason", "a reason `CODE` (connect-refused; docs/reasons.md)")
	return f
}

func (f *filterFlags) filter() (queue.Filter, error) {
	f.OlderThan = time.Duration(f.age)
	for _, r := range f.Reasons {
		if !slices.ContainsFunc(queue.ReasonDocs, func(d queue.ReasonDoc) bool { return d.Code == r }) {
			return f.Filter, usage(fmt.Errorf("%q is not a reason code: `srvrelay queue list` shows those in the queue, docs/reasons.md has all of them", queue.Safe(r, 40)))
		}
	}
	if err := f.Check(); err != nil {
		return f.Filter, usage(err)
	}
	return f.Filter, nil
}

// selectFlags are filters, and the wish for everything.
type selectFlags struct {
	*filterFlags
	all bool
}

func addSelection(c *cobra.Command) *selectFlags {
	s := &selectFlags{filterFlags: addFilter(c)}
	c.Flags().BoolVar(&s.all, "all", false, "the whole queue")
	return s
}

// selection is what the command line chooses; nothing at all is a mistake.
func (s *selectFlags) selection(c *cobra.Command, names []string) (sel admin.Selection, err error) {
	if sel.Filter, err = s.filter(); err != nil {
		return sel, err
	}
	seen := map[queue.ID]bool{}
	for _, name := range names {
		id, err := queue.ParseID(name)
		if err != nil {
			return sel, &exitError{exitData, err}
		}
		if !seen[id] {
			seen[id] = true
			sel.IDs = append(sel.IDs, id)
		}
	}
	chosen := len(sel.IDs) > 0 || !sel.Filter.Empty()
	switch {
	case s.all && chosen:
		return sel, usage(errors.New("--all is the whole queue: leave out ids and filters, or leave out --all"))
	case !s.all && !chosen:
		return sel, usage(fmt.Errorf("nothing is chosen: name ids, give a filter (--domain, --hop, --sender, --recipient, --user, --client, --age, --state, --reason), or --all\nSee: %s --help", c.CommandPath()))
	}
	return sel, nil
}

// confirm asks on the terminal whether the whole queue is meant.
func confirm(c *cobra.Command, client *admin.Client, verb queue.Verb) error {
	stdin, ok := c.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(stdin.Fd())) {
		return usage(fmt.Errorf("%s --all is asked back on a terminal, and this is none: add --yes if the whole queue is meant", c.CommandPath()))
	}
	n, err := client.Count(c.Context())
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s all %s %s in the queue? [y/N] ", capital(string(verb)), count(n), plural(n, "message"))
	line, _ := bufio.NewReader(stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return &exitError{exitUsage, errors.New("nothing was done")}
	}
	return nil
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
