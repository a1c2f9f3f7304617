package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"srvrelay/relay"
	"srvrelay/relay/config"
)

// answers are what the templates of a profile are filled with, by the names of
// the flags (without hyphens).
type answers map[string]string

// question is one thing to know for a profile.
type question struct {
	flag     string
	prompt   string // "" for a question that only the flag answers
	help     string
	key      string // of the configuration, whose rules the answer (each element) must keep; "" for a user's name
	many     bool   // several answers with commas between them
	optional bool
	fallback func(answers) string // the default; nil for none
}

// accept is the canonical form of an answer.
func (q question) accept(text string) (string, error) {
	if text == "" && q.optional {
		return "", nil
	}
	var words []string
	each := []string{text}
	if q.many {
		each = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, w := range each {
		word, err := q.acceptWord(w)
		if err != nil {
			return "", err
		}
		words = append(words, word)
	}
	return strings.Join(words, ","), nil
}

func (q question) acceptWord(word string) (string, error) {
	switch q.key {
	case "":
		return word, relay.CheckUserName(word)
	case "host:port":
		host, port := splitHome(word)
		text, err := config.Accept("routes[].to[].url", "smtp+srv://"+host) // a name
		_, badPort := config.Accept("delivery.mx_port", port)
		if err != nil && net.ParseIP(host) == nil || badPort != nil {
			return "", fmt.Errorf("%q is not host:port, such as home.example.org:2525", word)
		}
		if err == nil {
			host = strings.TrimPrefix(text, "smtp+srv://")
		}
		return net.JoinHostPort(host, port), nil
	case "public_addresses": // of which DNS has no ports
		text, err := config.Accept(q.key, word)
		if host, ok := strings.CutSuffix(text, ":0"); err == nil && ok {
			return strings.Trim(host, "[]"), nil
		}
		return "", fmt.Errorf("%q is not an IP address such as 203.0.113.5", word)
	case "hostname":
		if !strings.Contains(strings.Trim(word, "."), ".") {
			return "", fmt.Errorf("%q is not a full name such as relay.example.net", word)
		}
	}
	return config.Accept(q.key, word)
}

// interview asks on a terminal, or takes flags and defaults only.
type interview struct {
	cmd     *cobra.Command
	in      *bufio.Reader
	file    *os.File // the terminal, or nil
	screen  io.Writer
	missing []string
}

func newInterview(c *cobra.Command) *interview {
	i := &interview{cmd: c, in: bufio.NewReader(c.InOrStdin()), screen: c.ErrOrStderr()}
	yes, _ := c.Flags().GetBool("yes")
	if f, ok := c.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) && !yes {
		i.file = f
	}
	return i
}

// answers has the answer to every question, or says which flags are missing;
// defaults may follow from what is known.
func (i *interview) answers(p profile, known answers) (answers, error) {
	a := maps.Clone(known)
	selfSigned, _ := i.cmd.Flags().GetBool("self-signed")
	for _, q := range p.questions {
		name := strings.ReplaceAll(q.flag, "-", "")
		if selfSigned && (slices.Contains([]string{"certificate", "key", "edge-cert", "edge-key"}, q.flag)) {
			continue
		}
		if known["fetch"] != "" && slices.Contains(unreachable, q.flag) {
			continue
		}
		text, err := i.answer(q, a)
		if err != nil {
			return nil, err
		}
		a[name] = text
	}
	if len(i.missing) > 0 {
		why := "there is no terminal to ask at"
		if yes, _ := i.cmd.Flags().GetBool("yes"); yes {
			why = "--yes asks nothing"
		}
		return nil, usage(fmt.Errorf("%s, so these flags must be set:\n  %s\nSee: %s --help", why, strings.Join(i.missing, "\n  "), i.cmd.CommandPath()))
	}
	return a, nil
}

func (i *interview) answer(q question, a answers) (string, error) {
	fallback := ""
	if q.fallback != nil {
		fallback = q.fallback(a)
	}
	if flag := i.cmd.Flags().Lookup(q.flag); flag.Changed {
		text, err := q.accept(flag.Value.String())
		if err != nil {
			return "", usage(fmt.Errorf("--%s: %w", q.flag, err))
		}
		return text, nil
	}
	if i.file != nil && q.prompt != "" {
		return i.ask(q, fallback)
	}
	if fallback == "" && !q.optional {
		i.missing = append(i.missing, fmt.Sprintf("--%-12s %s", q.flag, q.help))
		return "", nil
	}
	return q.accept(fallback)
}

// ask repeats a question until its answer is right.
func (i *interview) ask(q question, fallback string) (string, error) {
	for {
		fmt.Fprint(i.screen, q.prompt)
		if fallback != "" {
			fmt.Fprintf(i.screen, " [%s]", fallback)
		}
		fmt.Fprint(i.screen, ": ")
		line, err := i.in.ReadString('\n')
		if err != nil {
			return "", usage(errNoAnswer)
		}
		if line = strings.TrimSpace(line); line == "" {
			line = fallback
		}
		text, err := q.accept(line)
		if err == nil {
			return text, nil
		}
		fmt.Fprintln(i.screen, " ", err)
	}
}

// password is what a user of ours or we ourselves log in with: from standard
// input, from the terminal, or (for a user of ours) made.
func (i *interview) password(p profile, a answers) (string, error) {
	stdin, _ := i.cmd.Flags().GetBool("password-stdin")
	switch {
	case stdin:
		return readPassword(i.in)
	case p.user:
		a["generated"] = "yes"
		return newPassword(), nil
	case a["edgefiles"] != "": // it stands in both sides' files
		return newPassword(), nil
	case p.login && i.file != nil:
		return promptPassword(i.file, i.screen, "Password of "+a["user"]+" at "+a["edge"], false)
	case p.login:
		return "", usage(errors.New("give the password on standard input, with --password-stdin"))
	}
	return "", nil
}

// hidden reads a line from a terminal. The terminal stops to show what is typed
// before the prompt appears: nothing that is typed early is shown.
func hidden(f *os.File, screen io.Writer, prompt string) (string, error) {
	before, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return "", err
	}
	defer term.Restore(int(f.Fd()), before)
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{f, screen}, "")
	line, err := t.ReadPassword(prompt + ": ")
	if errors.Is(err, io.EOF) { // ^C and ^D, too
		return "", usage(errNoAnswer)
	}
	return line, err
}

// newPassword is 125 random bits in groups that can be read out.
func newPassword() string {
	text := strings.ToLower(rand.Text())[:25]
	var groups []string
	for n := 0; n < len(text); n += 5 {
		groups = append(groups, text[n:n+5])
	}
	return strings.Join(groups, "-")
}

// promptPassword asks without showing what is typed; twice for a new password.
func promptPassword(f *os.File, screen io.Writer, prompt string, twice bool) (string, error) {
	first, err := hidden(f, screen, prompt)
	if err != nil {
		return "", err
	}
	if first == "" {
		return "", usage(errors.New("the password is empty"))
	}
	if !twice {
		return first, nil
	}
	second, err := hidden(f, screen, "The same again")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", usage(errors.New("the two are not the same: nothing was changed"))
	}
	return first, nil
}
