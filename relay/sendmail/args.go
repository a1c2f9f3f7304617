// Package sendmail is what programs expect behind the name "sendmail": its
// arguments, the message on standard input and what is added to it, and the way
// to the relay of this machine, by SMTP like anybody else. It keeps no mail: a
// message is the relay's when Submit returns without an error, and the caller's
// until then.
package sendmail

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Mode is what is to be done.
type Mode string

// The modes, by the arguments that ask for them.
const (
	Submit  Mode = "submit"  // hand in one message
	SMTP    Mode = "smtp"    // -bs: speak SMTP on standard input and output
	List    Mode = "list"    // -bp: list the queue
	Nothing Mode = "nothing" // -bi, -q: there is nothing to be done
	Help    Mode = "help"    // --help
)

// Options are the arguments.
type Options struct {
	Mode       Mode
	Config     string // -C, --config: the configuration, "" for the usual one
	FromHeader bool   // -t: the recipients are those of the header
	KeepDots   bool   // -i: a line with a lone dot does not end the message
	Verbose    bool   // -v
	HasSender  bool   // -f was given, perhaps with the null sender
	Sender     string // -f without <>
	Name       string // -F: the full name of the sender
	Notify     string // -N as in RCPT, "" when absent (RFC 3461 4.1)
	Ret        string // -R as in MAIL, "" when absent (RFC 3461 4.3)
	EnvID      string // -V
	Recipients []string
}

// Kinds of letters behind a dash. What takes a value has it in the rest of the
// argument or in the next one; "optional" values are in the same argument.
const (
	plainLetters    = "tivmnGUI"
	valueLetters    = "ABCDFLNORVXbefhopr"
	optionalLetters = "dq"
)

// AsCalled turns the arguments of the process, its own name first, into those
// of srvrelay: the names that other mail servers' programs have are commands.
// "send-mail" is what mailx says.
func AsCalled(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	switch filepath.Base(argv[0]) {
	case "sendmail", "send-mail":
		return append([]string{"sendmail"}, argv[1:]...)
	case "mailq":
		return append([]string{"sendmail", "-bp"}, argv[1:]...)
	case "newaliases":
		return append([]string{"sendmail", "-bi"}, argv[1:]...)
	}
	return argv[1:]
}

// Parse reads the arguments as sendmail does. Letters may stand together
// (-ti), and a value behind its letter (-fADDRESS) or after it. Options end at the
// first recipient: an address that begins with a dash never becomes one.
func Parse(args []string) (Options, error) {
	o := Options{Mode: Submit}
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			args = args[1:]
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		rest, err := o.argument(arg, args[1:])
		if err != nil {
			return o, err
		}
		args = rest
	}
	return o, o.recipients(args)
}

// argument takes one argument with options and returns what follows.
func (o *Options) argument(arg string, next []string) (rest []string, err error) {
	if strings.HasPrefix(arg, "--") {
		return o.long(arg, next)
	}
	for i := 1; i < len(arg); i++ {
		letter, attached := arg[i], arg[i+1:]
		switch {
		case strings.IndexByte(plainLetters, letter) >= 0:
			o.plain(letter)
			continue
		case strings.IndexByte(optionalLetters, letter) >= 0:
			return next, o.optional(letter)
		case strings.IndexByte(valueLetters, letter) < 0:
			return nil, fmt.Errorf("unknown option -%c in %q", letter, arg)
		case attached != "":
			return next, o.value(letter, attached)
		case len(next) == 0:
			return nil, fmt.Errorf("-%c needs a value behind it", letter)
		}
		return next[1:], o.value(letter, next[0])
	}
	return next, nil
}

// long takes --help and --config, which all commands have.
func (o *Options) long(arg string, next []string) (rest []string, err error) {
	name, value, inline := strings.Cut(arg, "=")
	switch {
	case arg == "--help":
		o.Mode = Help
		return next, nil
	case name != "--config":
		return nil, fmt.Errorf("unknown option %s", name)
	case inline:
		o.Config = value
		return next, nil
	case len(next) == 0:
		return nil, fmt.Errorf("--config needs a file behind it")
	}
	o.Config = next[0]
	return next[1:], nil
}

func (o *Options) plain(letter byte) {
	switch letter {
	case 't':
		o.FromHeader = true
	case 'i':
		o.KeepDots = true
	case 'v':
		o.Verbose = true
	case 'I':
		o.Mode = Nothing
	}
}

// optional takes -q, which would have the queue run: the relay does that by
// itself. -d is for debugging sendmail.
func (o *Options) optional(letter byte) error {
	if letter == 'q' && o.Mode == Submit {
		o.Mode = Nothing // until a recipient is seen
	}
	return nil
}

// value takes a letter with its value. What has no meaning here is taken and
// has no effect: how errors are reported (-e, -oe), how mail is delivered (-od, -O), logs
// (-D, -L, -X), the count of hops (-h), the protocol (-p) and -A.
func (o *Options) value(letter byte, value string) (err error) {
	switch letter {
	case 'b':
		return o.mode(value)
	case 'o':
		o.KeepDots = o.KeepDots || value == "i"
	case 'C':
		o.Config = value
	case 'F':
		o.Name = value
	case 'f', 'r':
		o.HasSender = true
		o.Sender, err = senderOf(value)
	case 'N':
		o.Notify, err = notifyOf(value)
	case 'R':
		if o.Ret = strings.ToUpper(value); o.Ret != "FULL" && o.Ret != "HDRS" {
			err = fmt.Errorf("-R %q: how much a report is to contain is full or hdrs", value)
		}
	case 'V':
		if o.EnvID = value; len(value) > 100 || strings.ContainsFunc(value, func(c rune) bool { return c < '!' || c > '~' }) {
			err = fmt.Errorf("-V %q: an envelope id has at most 100 printable ASCII characters", value)
		}
	case 'B':
		if b := strings.ToUpper(value); b != "7BIT" && b != "8BITMIME" {
			err = fmt.Errorf("-B %q: the type of the body is 7BIT or 8BITMIME", value)
		}
	}
	return err
}

func (o *Options) mode(value string) error {
	switch value[0] {
	case 'm', 'a':
		o.Mode = Submit
	case 's':
		o.Mode = SMTP
	case 'p':
		o.Mode = List
	case 'i':
		o.Mode = Nothing
	case 'd', 'D':
		return fmt.Errorf("-b%s: the relay is started with: srvrelay serve", value)
	default:
		return fmt.Errorf("-b%s is not supported: -bm, -bs, -bp and -bi are (where mail would go: srvrelay explain ADDRESS)", value)
	}
	return nil
}

// recipients takes the arguments behind the options.
func (o *Options) recipients(args []string) error {
	if o.Mode == List || o.Mode == Help || o.Mode == SMTP {
		return nil
	}
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			return fmt.Errorf("%q stands behind a recipient, or is none: options come first", arg)
		}
		found, err := Addresses(arg)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("%q is no recipient", arg)
		}
		o.Recipients = append(o.Recipients, found...)
	}
	if o.Mode == Nothing && (o.FromHeader || len(o.Recipients) > 0) {
		o.Mode = Submit // -q beside a message
	}
	return nil
}

// senderOf reads -f: one address, or nothing or <> for the null sender.
func senderOf(value string) (string, error) {
	found, err := Addresses(value)
	switch {
	case err != nil:
		return "", fmt.Errorf("-f: %w", err)
	case len(found) > 1:
		return "", fmt.Errorf("-f %q: a message has one sender", value)
	case len(found) == 1:
		return found[0], nil
	case value == "" || value == "<>":
		return "", nil
	}
	return "", fmt.Errorf("-f %q is no address (the null sender is <>)", value)
}

// notifyOf reads -N (RFC 3461 4.1).
func notifyOf(value string) (string, error) {
	words := strings.Split(strings.ToUpper(value), ",")
	for _, w := range words {
		if !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, w) || w == "NEVER" && len(words) > 1 {
			return "", fmt.Errorf("-N %q: reports are wanted on success, failure and delay, with commas between, or never", value)
		}
	}
	return strings.Join(words, ","), nil
}
