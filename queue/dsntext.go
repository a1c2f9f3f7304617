package queue

import (
	"strings"
	"time"
)

// textWidth is where the text for people wraps.
const textWidth = 76

// text is the part for people: what happened, to whom, what the server said,
// and what they can do.
func (s ReportSpec) text() []byte {
	var w writer
	w.line("This is the mail system at " + ascii(s.Reporter, 255) + ".")
	w.line("")
	w.wrap("", s.opening())
	w.line("")
	for _, r := range s.Rcpts {
		s.recipientText(&w, r)
		w.line("")
	}
	w.wrap("", "The message arrived here on "+s.Original.Received.Format(time.RFC1123Z)+
		" and had the queue id "+ascii(string(s.Original.ID), 64)+".")
	return w.Bytes()
}

func (s ReportSpec) opening() string {
	switch {
	case s.Kind == ReportDelayed:
		until := ""
		if !s.Expires.IsZero() {
			until = " until " + s.Expires.Format(time.RFC1123Z)
		}
		return "Your message has not been delivered yet to the recipients below. You need not do anything: " +
			"it is kept and tried again" + until + ", and you will hear if it has to be given up."
	case s.Kind == ReportRelayed:
		return "Your message was handed on, as below. The next server sends no delivery reports, " +
			"so this is the last that you hear of it unless something goes wrong there."
	case s.Original.Sender == "":
		return "A message with the null sender (most likely a report itself) could not be delivered " +
			"to the recipients below. There is nobody else to tell, so you get this as the postmaster."
	}
	return "Your message could not be delivered to the recipients below. It has been given up for them and " +
		"will not be tried again."
}

// recipientText tells what happened to one recipient.
func (s ReportSpec) recipientText(w *writer, r Recipient) {
	w.line("<" + Safe(r.Address, 900) + ">")
	switch l := r.Last; {
	case l.Reply != "":
		who := "The next server"
		if l.MTA != "" {
			who = "The server " + ascii(l.MTA, 255)
		}
		w.wrap("  ", who+" said:")
		w.wrap("      ", Safe(l.Reply, 600))
		if r.State == Expired {
			w.wrap("  ", Safe(l.Text, 300)+".")
		}
	case l.Text != "":
		w.wrap("  ", s.code(r)+" "+Safe(l.Text, 300))
	default:
		w.wrap("  ", s.code(r))
	}
	if r.Last.Reason != "" {
		w.wrap("  ", "Reason code: "+ascii(r.Last.Reason, 40))
	}
	if s.Kind == ReportFailed {
		w.wrap("  ", advice(s.code(r), r.State))
	}
}

// advice is what a sender can do about a failure (RFC 3463).
func advice(code string, state State) string {
	switch {
	case state == Expired || code[0] == '4':
		return "What to do: the server could not take it for too long. Send it again later, or reach the recipient another way."
	case strings.HasPrefix(code, "5.1."):
		return "What to do: check the address for a typing error."
	case code == "5.2.2":
		return "What to do: the mailbox is full. Reach the recipient another way."
	case code == "5.3.4" || code == "5.2.3":
		return "What to do: the message is too large. Send less, or put attachments somewhere for download."
	case strings.HasPrefix(code, "5.4."):
		return "What to do: check the part behind the @; if it is right, tell the recipient that mail for that domain finds no way in."
	case strings.HasPrefix(code, "5.7."):
		return "What to do: it was refused by a rule. Reach the recipient another way and show them this report."
	}
	return "What to do: reach the recipient another way and show them this report."
}

// wrap writes s behind the indent, broken at spaces.
func (w *writer) wrap(indent, s string) {
	line := indent
	for _, word := range strings.Fields(s) {
		if len(line)+1+len(word) > textWidth && line != indent {
			w.line(line)
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	w.line(line)
}
