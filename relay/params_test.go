package relay

import (
	"strings"
	"testing"
)

// TestMailParameters: one clear refusal a mistake.
func TestMailParameters(t *testing.T) {
	for _, tc := range []struct{ params, want string }{
		{"", ""},
		{"BODY=7bit SMTPUTF8 RET=full AUTH=<> SIZE=0", ""},
		{"\t body=8BITMIME  size=00000000000000000999 ", ""},
		{"AUTH=a+40b.example", ""},
		{"AUTH=a+2Bx@b.example", ""},
		{"BODY", "BODY needs a value"},
		{"BODY=", "BODY needs a value"},
		{"BODY=9BIT", "BODY is 7BIT or 8BITMIME"},
		{"BODY=BINARYMIME", "BINARYMIME is not offered"},
		{"SMTPUTF8=yes", "SMTPUTF8 takes no value"},
		{"SMTPUTF8=", "SMTPUTF8 takes no value"},
		{"SMTPUTF8 smtputf8", "SMTPUTF8 given twice"},
		{"SIZE=1e3", "SIZE takes a number of octets"},
		{"SIZE=+1", "SIZE takes a number of octets"},
		{"SIZE=000000000000000000001", "SIZE takes a number of octets"},
		{"SIZE=1001", "message too big"},
		{"RET=BOTH", "RET is FULL or HDRS"},
		{"ENVID=", "ENVID needs a value"},
		{"ENVID=a=b", "ENVID must be at most 100 printable characters, encoded as xtext"},
		{"ENVID=a+4", "ENVID must be at most 100 printable characters, encoded as xtext"},
		{"ENVID=a+4g", "ENVID must be at most 100 printable characters, encoded as xtext"},
		{"ENVID=a+2b", "ENVID must be at most 100 printable characters, encoded as xtext"},
		{"ENVID=a+C3", "ENVID must be at most 100 printable characters, encoded as xtext"},
		{"ENVID=\xc3\xa4", "ENVID with a non-ASCII value"},
		{"AUTH=a", "AUTH is <> or a mailbox, encoded as xtext"},
		{"AUTH=", "AUTH needs a value"},
		{"AUTH=a+zz@b.example", "AUTH is <> or a mailbox, encoded as xtext"},
		{"NOTIFY=NEVER", "unknown parameter"},
		{"\u017fIZE=1", "unknown parameter"}, // folds to SIZE
		{"=x", "unknown parameter"},
	} {
		got := ""
		if _, _, r := parseMail("FROM:<a@b.example> "+tc.params, 1000); r != nil {
			got = r.Message
		}
		if got != tc.want {
			t.Errorf("%q: %q, want %q", tc.params, got, tc.want)
		}
	}
}

func TestRcptParameters(t *testing.T) {
	const badNotify = "NOTIFY is NEVER, or SUCCESS, FAILURE and DELAY, each once"
	const badORcpt = "ORCPT must be at most 500 printable characters, encoded as its type wants"
	for _, tc := range []struct{ params, orcpt, want string }{
		{"NOTIFY=SUCCESS,delay,Failure", "", ""},
		{"NOTIFY=SUCCESS,SUCCESS", "", badNotify},
		{"NOTIFY=SUCCESS,", "", badNotify},
		{"NOTIFY=ALWAYS", "", badNotify},
		{"NOTIFY=NEVER,SUCCESS", "", "NOTIFY=NEVER goes with nothing else"},
		{"NOTIFY=SUCCESS,NEVER", "", "NOTIFY=NEVER goes with nothing else"},
		{"ORCPT=rfc822;a+20b@c.example", "RFC822 a b@c.example", ""},
		{"ORCPT=X-400;/c+3Dnl/s+3Dx/", "X-400 /c=nl/s=x/", ""},
		{"ORCPT=utf-8;a\\x{20}\\x{2B}\\x{3D}\\x{5C}\\x{1F600}@c.example", "UTF-8 a +=\\\U0001F600@c.example", ""},
		{"ORCPT=utf-8;\u00e4@c.example", "UTF-8 \u00e4@c.example", ""},
		{"ORCPT=rfc822;\u00e4@c.example", "", badORcpt},
		{"ORCPT=utf-8;a\\x{41}", "", badORcpt}, // stands for itself
		{"ORCPT=utf-8;a\\x{0E4}", "", badORcpt},
		{"ORCPT=utf-8;a\\x{e4}", "", badORcpt},
		{"ORCPT=utf-8;a\\x{D800}", "", badORcpt},
		{"ORCPT=utf-8;a\\x{110000}", "", badORcpt},
		{"ORCPT=utf-8;a\\x{}", "", badORcpt},
		{"ORCPT=utf-8;a\\x{E4", "", badORcpt},
		{"ORCPT=utf-8;a\\y", "", badORcpt},
		{"ORCPT=utf-8;a+b", "", badORcpt},
		{"ORCPT=utf-8;a\xff", "", badORcpt},
		{"ORCPT=rfc822;" + strings.Repeat("x", 501), "", badORcpt},
		{"ORCPT=rfc822", "", "ORCPT is a type of address, a semicolon and the address"},
		{"ORCPT=rfc822;", "", "ORCPT is a type of address, a semicolon and the address"},
		{"ORCPT=;a", "", "ORCPT is a type of address, a semicolon and the address"},
		{"ORCPT=a.b;a", "", "ORCPT is a type of address, a semicolon and the address"},
		{"ORCPT=rfc822;a ORCPT=rfc822;a", "", "ORCPT given twice"},
		{"SIZE=1", "", "unknown parameter"},
	} {
		got, orcpt := "", ""
		_, opts, r := parseRcpt("TO:<a@b.example> " + tc.params)
		if r != nil {
			got = r.Message
		} else if opts.OriginalRecipient != "" {
			orcpt = string(opts.OriginalRecipientType) + " " + opts.OriginalRecipient
		}
		if got != tc.want || orcpt != tc.orcpt {
			t.Errorf("%q: %q %q, want %q %q", tc.params, orcpt, got, tc.orcpt, tc.want)
		}
	}
}
