package sendmail

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestParse: arguments as other programs give them.
func TestParse(t *testing.T) {
	to := []string{"a@b.example"}
	for _, c := range []struct {
		args string // fields; _ is an empty one
		want Options
		err  string
	}{
		{args: "a@b.example", want: Options{Mode: Submit, Recipients: to}},
		// cron
		{args: "-FCronDaemon -i -B8BITMIME -oem root", want: Options{Mode: Submit, Name: "CronDaemon", KeepDots: true, Recipients: []string{"root"}}},
		// PHP
		{args: "-t -i -fbounce@b.example", want: Options{Mode: Submit, FromHeader: true, KeepDots: true, HasSender: true, Sender: "bounce@b.example"}},
		// mutt
		{args: "-oem -oi -f me@b.example -N failure,delay -R hdrs -- a@b.example", want: Options{
			Mode: Submit, KeepDots: true, HasSender: true, Sender: "me@b.example", Notify: "FAILURE,DELAY", Ret: "HDRS", Recipients: to,
		}},
		// mailx
		{args: "-i -m -v a@b.example", want: Options{Mode: Submit, KeepDots: true, Verbose: true, Recipients: to}},
		{args: "-tioem", want: Options{Mode: Submit, FromHeader: true, KeepDots: true}},
		{args: "-f <> -V id-7 a@b.example", want: Options{Mode: Submit, HasSender: true, EnvID: "id-7", Recipients: to}},
		{args: "-f _ a@b.example", want: Options{Mode: Submit, HasSender: true, Recipients: to}},
		{args: "-r me a@b.example", want: Options{Mode: Submit, HasSender: true, Sender: "me", Recipients: to}},
		{args: "-odb -o i -oQ/tmp -O DeliveryMode=b -L tag -h3 -p SMTP -Am -d0.1 -X /tmp/log -G -n -U a@b.example", want: Options{Mode: Submit, KeepDots: true, Recipients: to}},
		{args: "-C/etc/x.yaml a@b.example,<c@d.example>", want: Options{Mode: Submit, Config: "/etc/x.yaml", Recipients: []string{"a@b.example", "c@d.example"}}},
		{args: "--config x.yaml -bp", want: Options{Mode: List, Config: "x.yaml"}},
		{args: "--config=x.yaml -bs", want: Options{Mode: SMTP, Config: "x.yaml"}},
		{args: "-bm -q a@b.example", want: Options{Mode: Submit, Recipients: to}},
		{args: "-q30m", want: Options{Mode: Nothing}},
		{args: "-bi", want: Options{Mode: Nothing}},
		{args: "--help", want: Options{Mode: Help}},
		{args: "_", err: `"" is no recipient`},
		{args: "-bd -q30m", err: "srvrelay serve"},
		{args: "-bv a@b.example", err: "srvrelay explain"},
		{args: "-t -f", err: "-f needs a value"},
		{args: "-tZ", err: `unknown option -Z in "-tZ"`},
		{args: "--frob", err: "unknown option --frob"},
		{args: "-f a@b.example,c@d.example x@y.example", err: "one sender"},
		{args: "-N never,success a@b.example", err: "or never"},
		{args: "-R some a@b.example", err: "full or hdrs"},
		{args: "-V id\x01 a@b.example", err: "printable"},
		{args: "-B 9BIT a@b.example", err: "8BITMIME"},
		// What a program takes for a recipient is never an option.
		{args: "a@b.example -C/etc/shadow", err: "options come first"},
		{args: "-- -C/etc/shadow", err: "options come first"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			args[i] = strings.TrimPrefix(args[i], "_")
		}
		got, err := Parse(args)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: error %v, want %q", c.args, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
		} else if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q:\n%s", c.args, d)
		}
	}
}

// TestAsCalled: what the names of the program mean.
func TestAsCalled(t *testing.T) {
	for called, want := range map[string]string{
		"/usr/bin/srvrelay queue list": "queue list",
		"/usr/sbin/sendmail -t":        "sendmail -t",
		"send-mail -i a@b.example":     "sendmail -i a@b.example",
		"mailq":                        "sendmail -bp",
		"/usr/bin/newaliases":          "sendmail -bi",
		"":                             "",
	} {
		if got := strings.Join(AsCalled(strings.Fields(called)), " "); got != want {
			t.Errorf("%s: %s, want %s", called, got, want)
		}
	}
}

// TestAddresses: lists as people write them, and what nobody is to guess at.
func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"a@b.example":                                "a@b.example",
		" a@b.example ,\r\n\tc@d.example ":           "a@b.example c@d.example",
		"a@b.example; c@d.example;":                  "a@b.example c@d.example",
		`"Last, First" <a@b.example>, root`:          "a@b.example root",
		"root (Cron Daemon (at (night)), or \\) so)": "root",
		"A Friend <a@b.example> (a, b <x@y>)":        "a@b.example",
		"friends: a@b.example, c@d.example;, e@f.x":  "a@b.example c@d.example e@f.x",
		"undisclosed-recipients:;":                   "",
		"<@one.example,@two.example:a@b.example>":    "a@b.example",
		"a@[IPv6:2001:db8::1], <c@[IPv6:::1]>":       "a@[IPv6:2001:db8::1] c@[IPv6:::1]",
		`"a b"@c.example`:                            `"a b"@c.example`,
		`<"a>b,c"@c.example>`:                        `"a>b,c"@c.example`,
		"grün@bücher.example":                        "grün@bücher.example",
		"":                                           "",
		"<>":                                         "",
	} {
		got, err := Addresses(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %s, want %s", text, s, want)
		}
	}
	for _, text := range []string{
		"a@b.example c@d.example", "<a@b.example> <c@d.example>", "<a@b.example> c@d.example", "<a@b.example", `"a@b.example`,
		"(a@b.example", "a@[::1", "<a@b.example\r\n>", "a@b.example\x00", "a@b.exa\x1bmple", "<a b@c.example>", "<a\x01@c.example>",
	} {
		if got, err := Addresses(text); err == nil {
			t.Errorf("%q is taken: %q", text, got)
		}
	}
}

// TestAliases: mail for a name of this machine goes to somebody, always.
func TestAliases(t *testing.T) {
	a := ParseAliases("# who\nroot: Admin <admin@x.example>,\n   bob\r\nBob: bob@y.example\npostmaster: root\n" +
		"loop: pool\npool: loop\ngone: |/bin/program, /dev/null, :include:/etc/x\n\"quoted\": q@x.example\nhalf: nobody2, h@x.example\n")
	for to, want := range map[string]string{
		"a@b.example":                  "a@b.example",
		"root":                         "admin@x.example bob@y.example",
		"ROOT bob":                     "admin@x.example bob@y.example",
		"root@localhost bob@y.example": "admin@x.example bob@y.example",
		"Bob@y.example":                "Bob@y.example",
		"loop":                         "postmaster",
		"gone":                         "admin@x.example bob@y.example",
		"www-data":                     "admin@x.example bob@y.example",
		"quoted":                       "q@x.example",
		"half":                         "admin@x.example bob@y.example h@x.example",
	} {
		if got := strings.Join(a.resolve(strings.Fields(to)), " "); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
	// Debian's file as it comes names nobody in the end.
	debian := ParseAliases("postmaster:    root\n")
	if got := debian.resolve([]string{"root", "cron"}); !slices.Equal(got, []string{"postmaster"}) {
		t.Errorf("with Debian's file: %q", got)
	}
	if got := Aliases(nil).resolve([]string{"root"}); !slices.Equal(got, []string{"postmaster"}) {
		t.Errorf("without a file: %q", got)
	}
}
