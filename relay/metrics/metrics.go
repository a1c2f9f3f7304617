// Package metrics counts what happens in a relay and shows it to Prometheus.
// It is told of events, and asks for a [State] whenever somebody looks. Label
// values come from fixed sets: no domain, address or name of a user is ever
// one, so that strangers cannot make the number of series grow.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"srvrelay/queue"
)

// Metrics is the counters of one relay. Its methods may be called from many
// goroutines; they take no lock, and a message costs some atomic additions.
type Metrics struct {
	registry *prometheus.Registry
	shown    http.Handler

	messages, rcpts, bytes table // received
	refused                table
	delivered              table
	deferred, failed, held table
	attempts               table
	reports                table

	expired, done, parks, alarms, faults            prometheus.Counter
	authFailed, banned, guarded, dropped, anomalies prometheus.Counter
	accept, wait, attempt, dns, connect, tls, greet prometheus.Histogram
	transfer, sync                                  prometheus.Histogram
}

// Buckets are classic ones, in seconds: every Prometheus reads them, they take
// a fixed amount of memory, and adding to one takes no lock. A step is a factor
// of two to three, as the question is "which part is slow", not by how many
// percent.
var (
	quick = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	// what waits may do so for as long as a message lives
	patient = []float64{.001, .005, .025, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 5 * 86400}
)

// New makes the counters, all at 0: a rate needs a value before the first
// event. state is asked at every look; version is the relay's.
func New(version string, state func() State) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	modes := values("mode", string(queue.Submission), string(queue.Inbound))
	reasons := values("reason", reasonCodes()...)

	m.messages = m.table("received_messages_total", "Messages taken in and stored, by the mode of the door and the TLS of the client.", modes, tlsValues)
	m.rcpts = m.table("received_recipients_total", "Recipients of these messages.", modes)
	m.bytes = m.table("received_bytes_total", "Bytes of these messages, as stored.", modes)
	m.refused = m.table("refused_total", "Replies 4xx (temporary) and 5xx (permanent) to clients, by the subject of the enhanced status code (RFC 3463).", modes, classValues, subjectValues)
	m.delivered = m.table("delivered_total", "Recipients whose message a next hop has taken, by the mode of the door that it came in by.", values("mode", string(queue.Submission), string(queue.Inbound), string(queue.Internal)))
	m.deferred = m.table("deferred_total", "Attempts for a recipient that ended with another try later, by reason code.", reasons)
	m.failed = m.table("failed_total", "Recipients that were refused for good, by reason code.", reasons)
	m.held = m.table("held_total", "Recipients that were put on hold, by reason code.", reasons)
	m.expired = m.counter("expired_total", "Recipients that were given up because of their age.")
	m.done = m.counter("removed_messages_total", "Messages that are done and have left the queue.")
	m.attempts = m.table("attempts_total", "Attempts to deliver, by the TLS of the last session.", tlsValues)
	m.reports = m.table("reports_total", "Reports (DSN) that were queued, by kind.", reportValues)
	m.dropped = m.counter("reports_dropped_total", "Reports that nobody could be sent: of a null sender, without a postmaster.")
	m.parks = m.counter("hop_parks_total", "Times that a next hop was parked, as none of its servers answered.")
	m.alarms = m.counter("alarms_total", "Troubles that wait for a person: the log has them as errors.")
	m.faults = m.counter("faults_total", "Errors of the relay itself at its doors: the log has them as faults.")
	m.authFailed = m.counter("auth_failures_total", "Failed logins of clients.")
	m.banned = m.counter("bans_total", "Addresses that were banned for failed logins.")
	m.guarded = m.counter("guards_total", "Users whose password was being guessed, so that logins from elsewhere were shut out.")

	m.anomalies = m.counter("anomalies_total", "Times that somebody submitted as they never did (submission.anomaly).")

	m.accept = m.histogram("accept_seconds", "From the beginning of a message's body until it was stored and acknowledged.", quick)
	m.wait = m.histogram("queue_wait_seconds", "From the arrival of a message until its first attempt began.", patient)
	m.attempt = m.histogram("attempt_seconds", "An attempt as a whole, over all servers that were tried.", quick)
	m.dns = m.histogram("dns_seconds", "To find the servers of an attempt, in the DNS or in the memory of its answers.", quick)
	m.connect = m.histogram("connect_seconds", "To open a connection to a server, where that succeeded.", quick)
	m.tls = m.histogram("tls_handshake_seconds", "TLS handshakes with servers, where that succeeded.", quick)
	m.greet = m.histogram("greeting_seconds", "Banner, EHLO and login of a new connection, without TLS.", quick)
	m.transfer = m.histogram("transfer_seconds", "Transactions of an attempt, from MAIL to the reply to the end of data.", quick)
	m.sync = m.histogram("sync_seconds", "Writes to the queue that were synced to the disk, with the wait for a group.", quick)

	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "build_info", Help: "1, with the version as a label.", ConstLabels: prometheus.Labels{"version": version}})
	info.Set(1)
	m.registry.MustRegister(info, stateCollector{state}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.shown = m.handler()
	return m
}

// Received is told of each message that a door has stored and acknowledged.
func (m *Metrics) Received(env *queue.Envelope, now time.Time) {
	mode := string(env.Mode)
	m.messages.add(1, mode, tlsLabel(env.Client.TLS))
	m.rcpts.add(float64(len(env.To)), mode)
	m.bytes.add(float64(env.Size), mode)
	m.accept.Observe(seconds(now.Sub(env.Received)))
}

// Refused is told of each refusal at a door: its code (550), its enhanced code
// ("5.7.1", "" = none), and how many there were alike (0 = 1).
func (m *Metrics) Refused(mode queue.Mode, code int, enhanced string, count int) {
	m.refused.add(float64(max(count, 1)), string(mode), classOf(code), subjectOf(enhanced))
}

// Attempted is told of each attempt.
func (m *Metrics) Attempted(lease *queue.Lease, a *queue.Attempt) {
	m.attempts.add(1, tlsLabel(a.TLS))
	t := &a.Took
	m.attempt.Observe(seconds(t.All))
	m.dns.Observe(seconds(t.Plan))
	for _, part := range []struct {
		h    prometheus.Histogram
		took time.Duration
	}{{m.connect, t.Connect}, {m.tls, t.TLS}, {m.greet, t.Greeting}, {m.transfer, t.Transfer}} {
		if part.took > 0 {
			part.h.Observe(seconds(part.took))
		}
	}
	if len(lease.Rcpts) > 0 && lease.Rcpts[0].Attempts == 0 {
		m.wait.Observe(seconds(a.Time.Add(-t.All).Sub(lease.Envelope.Received)))
	}
}

// Settled is told of all that changed in the queue.
func (m *Metrics) Settled(fx queue.Effects) {
	for i := range fx.Transitions {
		r := &fx.Transitions[i].Rcpt
		switch r.State {
		case queue.Delivered:
			m.delivered.add(1, string(fx.Transitions[i].Mode))
		case queue.Deferred:
			m.deferred.add(1, r.Last.Reason)
		case queue.Failed:
			m.failed.add(1, r.Last.Reason)
		case queue.Held:
			m.held.add(1, r.Last.Reason)
		case queue.Expired:
			m.expired.Inc()
		}
	}
	for i := range fx.Reports {
		if fx.Reports[i].ID == "" {
			m.dropped.Inc()
		} else {
			m.reports.add(1, fx.Reports[i].Kind.String())
		}
	}
	m.done.Add(float64(len(fx.Removed)))
}

// Parked is told of each hop that is parked.
func (m *Metrics) Parked() { m.parks.Inc() }

// Alarm is told of what a person must look at.
func (m *Metrics) Alarm() { m.alarms.Inc() }

// Fault is told of errors of our own at the doors.
func (m *Metrics) Fault() { m.faults.Inc() }

// AuthFailed is told of each failed login.
func (m *Metrics) AuthFailed() { m.authFailed.Inc() }

// Banned is told of each ban for failed logins.
func (m *Metrics) Banned() { m.banned.Inc() }

// Guarded is told of each user whose password is being guessed.
func (m *Metrics) Guarded() { m.guarded.Inc() }

// Anomaly is told of everybody who submits as they never did.
func (m *Metrics) Anomaly() { m.anomalies.Inc() }

// Synced is told how long a synced write of the queue took.
func (m *Metrics) Synced(took time.Duration) { m.sync.Observe(seconds(took)) }

// handler shows it all, to two readers at one time.
func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 2, Timeout: scrapeLimit, ErrorHandling: promhttp.ContinueOnError,
	})
}

// seconds is a duration for a histogram; a clock that was put back makes no
// negative one.
func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }
