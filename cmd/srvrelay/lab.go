package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/mail"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"srvrelay/dnsutil/dnsserver"
	"srvrelay/queue"
	"srvrelay/relay/sink"
)

// maxLabFile bounds zones and scripts, in bytes.
const maxLabFile = 1 << 20

// labCommand is the rest of a small Internet, to try the relay in. It is no
// part of running a relay, so the help does not list it; docs/lab.md does.
func labCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "lab", Short: "A DNS server, a receiving mail server and a sender, to try the relay with", Hidden: true, RunE: parent,
		Long: `What a relay needs around it, for a laboratory: not for the Internet. The
docker-compose.yml of the source puts them together, and docs/lab.md walks
through a failover with it.`,
	}
	c.AddCommand(labDNSCommand(), labSinkCommand(), labSendCommand())
	return c
}

func labDNSCommand() *cobra.Command {
	var listen, zone string
	c := &cobra.Command{
		Use: "dns --zone FILE", Short: "Answer DNS queries from a file of zone data", Args: args(cobra.NoArgs),
		Long: `Serves a master file (RFC 1035) over UDP and TCP until SIGTERM. Every name that is
not in it does not exist. A line ";!servfail NAME TYPE" makes a name fail; also
refused, nxdomain, drop, truncate; ";!invent ADDRESS" is for names that do not exist.`,
		Example: "  srvrelay lab dns --zone testdata/lab/lab.zone --listen 127.0.0.1:5353",
		RunE: func(c *cobra.Command, _ []string) error {
			if zone == "" {
				return usage(errors.New("no zone given: --zone FILE\nSee: srvrelay lab dns --help"))
			}
			text, err := readLabFile(zone)
			if err != nil {
				return err
			}
			srv, err := dnsserver.Start(listen, text)
			if err != nil {
				return labStartError(zone, err)
			}
			fmt.Fprintf(c.OutOrStdout(), "dns: ready on %s, names from %s\n", srv.Addr(), zone)
			<-c.Context().Done()
			return srv.Close()
		},
	}
	c.Flags().StringVar(&zone, "zone", "", "file of zone data")
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:5353", "address and port, UDP and TCP")
	return c
}

func labSinkCommand() *cobra.Command {
	var listen, name, script string
	c := &cobra.Command{
		Use: "sink", Short: "Receive mail, say in a line what came, and forget it", Args: args(cobra.NoArgs),
		Long: `A receiving mail server until SIGTERM. It takes everything, unless a script makes
it misbehave: a directive a line, such as

  offer STARTTLS
  rcpt nobody@* 550 5.1.1 no such user
  rcpt *@lab.example 451 4.7.1 come back later x1    (the first time only)
  banner 421 4.3.2 not now
  dot delay 5s

relay/sink/script.go in the source lists them all.`,
		Example: "  srvrelay lab sink --listen 127.0.0.1:2526 --name backup",
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := readLabFile(script)
			if err != nil {
				return err
			}
			note := mailNote{w: c.OutOrStdout(), name: name}
			srv, err := sink.Start(listen, sink.Options{Hostname: name, Script: text, Forget: true, OnMessage: note.message})
			if err != nil {
				return labStartError(script, err)
			}
			note.line("ready on %s", srv.Addr())
			<-c.Context().Done()
			srv.Close()
			return nil
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:2526", "address and port")
	c.Flags().StringVar(&name, "name", "sink", "what it calls itself")
	c.Flags().StringVar(&script, "script", "", "file that says how it misbehaves")
	return c
}

// mailNote writes a line for each message.
type mailNote struct {
	mu   sync.Mutex
	w    io.Writer
	name string
}

func (o *mailNote) line(format string, a ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintf(o.w, "%s: %s\n", o.name, fmt.Sprintf(format, a...))
}

func (o *mailNote) message(m sink.Message) {
	to := make([]string, len(m.Rcpts))
	for i, r := range m.Rcpts {
		to[i] = address(r.To)
	}
	secure := "clear text"
	if m.TLS {
		secure = "TLS"
	}
	o.line("message from %s to %s, %s, %s, subject: %s", address(m.From), strings.Join(to, " "), bytesText(int64(m.Size)), secure, subject(m.Data))
}

// subject is the subject of a message for a terminal.
func subject(message []byte) string {
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return "(no header that can be read)"
	}
	text, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		text = m.Header.Get("Subject")
	}
	return queue.Safe(text, 100)
}

// readLabFile reads a small file; no name is an empty one.
func readLabFile(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", &exitError{exitData, err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLabFile+1))
	switch {
	case err != nil:
		return "", &exitError{exitData, err}
	case len(b) > maxLabFile:
		return "", &exitError{exitData, fmt.Errorf("%s: larger than %s", name, bytesText(maxLabFile))}
	}
	return string(b), nil
}

// labStartError tells a mistake in the file from an address that is not to be had.
func labStartError(file string, err error) error {
	var sys interface{ Timeout() bool } // net.OpError, syscall.Errno
	if errors.As(err, &sys) || errors.Is(err, fs.ErrPermission) {
		return startError(err)
	}
	return &exitError{exitData, fmt.Errorf("%s: %w", file, err)}
}
