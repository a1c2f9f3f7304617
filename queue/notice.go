package queue

import (
	"time"
)

// NoticeSpec is a message from the relay itself to its postmaster.
type NoticeSpec struct {
	ID      ID
	From    string // our host name
	To      string
	Date    time.Time
	Subject string
	Text    []string // lines
}

// BuildNotice writes the message and its envelope. Like a report it has the null
// sender, and nobody is told if it cannot be delivered.
func BuildNotice(s NoticeSpec) (*Envelope, []byte) {
	to := withoutUTF8(s.To)
	host := ascii(s.From, 255)
	var w writer
	w.field("From", "Mail Delivery System <MAILER-DAEMON@"+host+">")
	w.field("To", "<"+Safe(to, 900)+">")
	w.field("Date", s.Date.Format(time.RFC1123Z))
	w.field("Message-ID", "<"+ascii(string(s.ID), 64)+"@"+host+">")
	w.field("Subject", ascii(s.Subject, 600))
	w.field("Auto-Submitted", "auto-generated") // RFC 3834 5
	w.field("MIME-Version", "1.0")
	w.field("Content-Type", "text/plain; charset=us-ascii")
	w.line("")
	for _, l := range s.Text {
		w.line(ascii(l, maxLine))
	}
	return ReportSpec{ID: s.ID, Reporter: s.From, To: to, Date: s.Date}.envelope(int64(w.Len()), false), w.Bytes()
}
