package doctor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"srvrelay/queue"
	"srvrelay/relay/acme"
	"srvrelay/relay/config"
)

// checkFetched looks at the certificate that the relay fetches, and at what came
// of its last attempts.
func (e *Env) checkFetched() []Finding {
	file := acme.CertificateFile(e.Config.DataDir)
	st, err := acme.ReadState(e.Config.DataDir)
	pair, perr := tls.LoadX509KeyPair(file, file)
	if errors.Is(err, fs.ErrPermission) || errors.Is(perr, fs.ErrPermission) {
		return []Finding{notForUs(e, file)}
	}
	if perr != nil {
		return []Finding{e.notFetched(st)}
	}
	found := e.judge(file, pair)
	if st.Failures > 0 {
		found = slices.DeleteFunc(found, func(f Finding) bool { return f.Level == OK })
		f := Finding{
			Level: Warning, What: e.failing("a new certificate cannot be fetched", st),
			Why: fmt.Sprintf("The one that is there stays in use, and ends on %s.", pair.Leaf.NotAfter.UTC().Format("2 Jan 2006")), Fix: st.Fix,
		}
		found = append([]Finding{f}, found...)
	}
	return found
}

// waits tells whether a listener has no TLS yet, for want of a certificate. Where
// this user may not look, it has.
func (e *Env) waits(l config.Listener) bool {
	if !e.Config.TLS.ACME.On() || l.Mode != config.Submission || l.TLS == config.TLSNone {
		return false
	}
	_, err := os.Stat(acme.CertificateFile(e.Config.DataDir))
	return errors.Is(err, fs.ErrNotExist)
}

// notFetched is for a relay that has no certificate.
func (e *Env) notFetched(st acme.State) Finding {
	f := Finding{Level: e.level(), Why: "Until it is there, submission listeners offer no TLS (454 4.7.0); inbound ones use a self-signed one."}
	switch {
	case st.Failures > 0:
		f.What, f.Fix = e.failing("the certificate cannot be fetched", st), st.Fix
	case e.Relay == Stopped:
		f.Level, f.What, f.Fix = Note, "the certificate has not been fetched yet", "srvrelay serve   # fetches it"
	default:
		f.What, f.Fix = "the certificate has not been fetched yet", "srvrelay doctor   # again in a minute: the relay may be at it"
	}
	return f
}

func (e *Env) failing(what string, st acme.State) string {
	text := fmt.Sprintf("%s, since %s: %s", what, st.Since.Local().Format("2 Jan 15:04"), queue.Safe(st.Error, 600))
	switch wait := st.Next.Sub(e.Now()); {
	case e.Relay == Stopped:
		return text + "; the relay is not running"
	case wait > 0:
		return fmt.Sprintf("%s; tried again in %s", text, wait.Round(time.Minute))
	}
	return text + "; it is being tried again"
}
