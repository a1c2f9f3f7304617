package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"srvrelay/relay/admin"
	"srvrelay/relay/config"
)

func reloadCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "reload", Short: "Have the running relay read its configuration again", Args: args(cobra.NoArgs),
		Long: `The new configuration is checked in full before anything changes: with a mistake
in it, the one before stays in force. Connections and queued mail are untouched;
what is queued goes by the new routes at its next attempt, and what waits for a
server is tried at once. Nothing of the DNS is remembered. SIGHUP does the same,
and tells the log.

Users and certificate are read again by themselves when their files change. A
certificate that could not be fetched (tls.acme) is tried for at once.

Exit code: 0 the configuration is in force, 69 no relay is running, 78 it has a mistake.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := parseConfig(c)
			var mistakes config.Problems
			if errors.As(err, &mistakes) { // the relay would say the same
				printReloaded(newScreen(c.ErrOrStderr()), admin.Reloaded{Problems: texts(mistakes)})
				return &exitError{Code: exitConfig}
			}
			r, err := admin.NewClient(adminSocket(cfg)).Reload(c.Context())
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				err = printJSON(c.OutOrStdout(), r)
			} else {
				printReloaded(newScreen(c.OutOrStdout()), r)
			}
			if err == nil && len(r.Problems) > 0 {
				err = &exitError{Code: exitConfig}
			}
			return err
		},
	}
	c.Flags().Bool("json", false, "one JSON object")
	return c
}

func texts(problems config.Problems) (lines []string) {
	for _, p := range problems {
		lines = append(lines, p.String())
	}
	return lines
}

func printReloaded(s screen, r admin.Reloaded) {
	if len(r.Problems) > 0 {
		for _, p := range r.Problems {
			fmt.Fprintln(s, p)
		}
		fmt.Fprintf(s, "%s; nothing was changed\n", s.bad(fmt.Sprintf("%d %s", len(r.Problems), plural(len(r.Problems), "problem"))))
		return
	}
	if len(r.Changes) == 0 {
		fmt.Fprintf(s, "%s: nothing has changed (passwords, users and certificates were read again)\n", r.File)
		return
	}
	fmt.Fprintf(s, "%s: %s in force\n", r.File, s.good(fmt.Sprintf("%d %s", len(r.Changes), plural(len(r.Changes), "change"))))
	t := s.table()
	for _, ch := range r.Changes {
		fmt.Fprintf(t, "  %s\t%s\t→ %s\n", ch.Key, orDash(ch.Old), orDash(ch.New))
	}
	t.Flush()
	for _, n := range r.Notes {
		fmt.Fprintln(s, "  note:", n)
	}
}

// reload puts the configuration as it is now in force: all of it, or none.
func (s *service) reload(ctx context.Context) admin.Reloaded {
	s.turn.Lock()
	defer s.turn.Unlock()
	defer s.manager.reloading()()
	r, err := s.tryReload(ctx)
	if err != nil {
		var problems config.Problems
		if errors.As(err, &problems) {
			r.Problems = texts(problems)
		} else {
			r.Problems = append(r.Problems, err.Error())
		}
		s.log.Error("reload: the configuration before stays in force", "problems", strings.Join(r.Problems, "; "))
		return r
	}
	var changes []string
	for _, ch := range r.Changes {
		changes = append(changes, fmt.Sprintf("%s: %s -> %s", ch.Key, orDash(ch.Old), orDash(ch.New)))
	}
	s.log.Info("reloaded", "file", r.File, "changes", strings.Join(changes, "; "))
	for _, n := range r.Notes {
		s.log.Warn("reload: " + n)
	}
	return r
}

func (s *service) tryReload(ctx context.Context) (r admin.Reloaded, err error) {
	old := s.now.Load()
	cfg, err := s.load()
	if err != nil {
		return r, err
	}
	r.File = cfg.File
	if r.Changes = changed(old.cfg, cfg); len(r.Changes) > 0 {
		if err := needsRestart(r.Changes); err != nil {
			return r, err
		}
	}
	r.Notes = append(r.Notes, cfg.Warnings...)
	cur, err := newCurrent(cfg, asked{s}, s.certs, s.log)
	if err != nil {
		return r, err
	}
	remote, err := s.remote.open(cfg)
	if err != nil {
		return r, err
	}
	if err := admin.GiveSocket(adminSocket(cfg), s.admin, cfg.Admin.Group); err != nil {
		return r, errors.Join(err, closeAny(remote))
	}
	undo := func() error {
		_ = admin.GiveSocket(adminSocket(cfg), s.admin, old.cfg.Admin.Group)
		return closeAny(remote)
	}
	show, drop, err := s.shown.Next(cfg.Metrics.Address())
	if err != nil {
		return r, errors.Join(err, undo())
	}
	// The doors first: they are the last that can say no.
	if err := s.doors.Reconfigure(cur.doors); err != nil {
		drop()
		return r, errors.Join(err, undo())
	}
	cur.plan(s.doors.Addrs(), s.memory)
	s.now.Store(cur)
	s.remote.use(cfg, remote, s.remoteTLS(cfg))
	s.log.setLevel(cfg.Log.Level)
	s.deliver.Reconfigure(deliverySettings(cfg))
	s.askHome(cur)
	s.store.Reconfigure(cur.storeSettings(s.log))
	s.certs.Reconfigure(cur.acme)
	if err := s.store.Reroute(ctx, routing(cur.routes)); err != nil {
		r.Notes = append(r.Notes, err.Error()) // the rest is filed anew as its turn comes
	}
	if show(); cfg.Metrics.Address() != old.cfg.Metrics.Address() {
		s.saysMetrics()
	}
	s.fetch()
	s.lookAgain(ctx)
	return r, nil
}

// closeAny gives a listener back that is not needed after all.
func closeAny(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// restartKeys cannot change while the relay runs.
var restartKeys = []string{"data_dir", "admin.socket", "log.format"}

func needsRestart(changes []admin.Change) error {
	var keys []string
	for _, ch := range changes {
		for _, k := range restartKeys {
			if ch.Key == k {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return fmt.Errorf("%s cannot change while the relay runs: restart it", strings.Join(keys, " and "))
}

// lookAgain has every hop that is parked tried now: what it waits for may be
// just what was mended.
func (s *service) lookAgain(ctx context.Context) {
	hops, err := s.store.Hops(ctx)
	if err != nil {
		return
	}
	for _, h := range hops {
		if h.Parked.After(time.Now()) {
			_ = s.deliver.Unpark(ctx, h.Hop)
		}
	}
}

// changed lists the keys whose values differ.
func changed(old, now *config.Config) (changes []admin.Change) {
	before := map[string]any{}
	for _, x := range old.Settings() {
		before[x.Key] = x.Value
	}
	for _, x := range now.Settings() {
		was, there := before[x.Key]
		delete(before, x.Key)
		if !there || !reflect.DeepEqual(was, x.Value) {
			changes = append(changes, admin.Change{Key: x.Key, Old: settingText(was), New: settingText(x.Value)})
		}
	}
	for _, x := range old.Settings() {
		if was, gone := before[x.Key]; gone {
			changes = append(changes, admin.Change{Key: x.Key, Old: settingText(was)})
		}
	}
	return changes
}

// settingText is a value for people; "" where there is none.
func settingText(v any) string {
	if v == nil {
		return ""
	}
	return strings.Trim(fmt.Sprint(v), "[]")
}
