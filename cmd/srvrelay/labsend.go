package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/spf13/cobra"

	"srvrelay/queue"
)

func labSendCommand() *cobra.Command {
	var server, from, title string
	var to []string
	c := &cobra.Command{
		Use: "send --to ADDRESS", Short: "Hand in a message, in clear text and without a password", Args: args(cobra.NoArgs),
		Example: "  srvrelay lab send --to you@lab.example --subject one",
		RunE: func(c *cobra.Command, _ []string) error {
			if len(to) == 0 {
				return usage(errors.New("no recipient given: --to ADDRESS\nSee: srvrelay lab send --help"))
			}
			text, err := sendMail(server, from, to, title)
			if err != nil {
				return sendError(server, err)
			}
			fmt.Fprintln(c.OutOrStdout(), text)
			return nil
		},
	}
	c.Flags().StringVar(&server, "server", "127.0.0.1:2525", "address and port of the relay")
	c.Flags().StringVar(&from, "from", "me@lab.example", "sender; empty: the null sender")
	c.Flags().StringArrayVar(&to, "to", nil, "recipient; may be repeated")
	c.Flags().StringVar(&title, "subject", "a message from the lab", "subject")
	return c
}

// sendError says with the exit code whether trying again may help.
func sendError(server string, err error) error {
	var reply *smtp.SMTPError
	if !errors.As(err, &reply) {
		return &exitError{exitUnavailable, err}
	}
	code := exitTempFail
	if reply.Code >= 500 {
		code = exitData
	}
	return &exitError{code, fmt.Errorf("%s refused: %d %s", server, reply.Code, queue.Safe(reply.Message, 300))}
}

// sendMail submits one message as any mail program would, and returns the
// server's last reply.
func sendMail(server, from string, to []string, title string) (string, error) {
	conn, err := net.DialTimeout("tcp", server, 10*time.Second)
	if err != nil {
		return "", err
	}
	c := smtp.NewClient(conn)
	defer c.Close()
	if err := c.Mail(from, nil); err != nil {
		return "", err
	}
	for _, r := range to {
		if err := c.Rcpt(r, nil); err != nil {
			return "", err
		}
	}
	w, err := c.Data()
	if err != nil {
		return "", err
	}
	line := strings.NewReplacer("\r", " ", "\n", " ")
	fmt.Fprintf(w, "From: %s\r\nTo: %s\r\nSubject: %s\r\n\r\nHello.\r\n", line.Replace(from), line.Replace(strings.Join(to, ", ")), line.Replace(title))
	resp, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	return "250 " + queue.Safe(resp.StatusText, 300), c.Quit()
}
