package pebblestore

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

// failed marks a recipient whose failure is to be reported. When there is
// nobody to tell, that is noted and the recipient is done.
func (c *change) failed(r queue.Recipient) queue.Recipient {
	if r.State != queue.Failed && r.State != queue.Expired || !queue.WantsFailureReport(&c.m.Envelope, r) {
		return r
	}
	to := queue.FailureReportTo(&c.m.Envelope, r, c.s.set.Load().Postmaster)
	if to == "" {
		c.effects.Reports = append(c.effects.Reports, queue.Report{About: c.m.ID, Kind: queue.ReportFailed})
		return r
	}
	r.Unreported = true
	c.m.Unreported++
	return r
}

// reportFailures queues one report for all failures that have not been
// reported, unless more results are about to come in: then it is put off, by
// queue.ReportCompany at most.
func (c *change) reportFailures() error {
	if c.m.Unreported == 0 {
		return nil
	}
	if c.m.Open > 0 && (c.m.Report == 0 || nano(c.now) < c.m.Report) {
		coming, err := c.companyComing()
		if err != nil {
			return err
		}
		if coming {
			if c.m.Report == 0 {
				c.m.Report = nano(c.now.Add(queue.ReportCompany))
			}
			return nil
		}
	}
	rcpts, err := c.takeUnreported()
	if err != nil {
		return err
	}
	c.m.Unreported, c.m.Report = 0, 0
	return c.addReport(queue.ReportFailed, queue.FailureReportTo(&c.m.Envelope, rcpts[0], c.s.set.Load().Postmaster), rcpts)
}

// companyComing tells whether another recipient is being attempted, or is
// about to be for the first time.
func (c *change) companyComing() (bool, error) {
	all, err := c.readAll()
	if err != nil {
		return false, err
	}
	leased := c.s.leases.leased(c.id, c.lease)
	for n := range all {
		r := c.newest(n)
		if !r.State.Waits() {
			continue
		}
		if leased[n] {
			return true, nil
		}
		_, parked := c.s.parks.get(c.rt.HopOf(c.m.Sender, &r), c.now)
		if r.State == queue.Queued && !parked {
			return true, nil
		}
	}
	return false, nil
}

// takeUnreported returns the unreported recipients and clears their mark.
func (c *change) takeUnreported() ([]queue.Recipient, error) {
	if len(c.rcpts) < c.m.Rcpts {
		if _, err := c.readAll(); err != nil {
			return nil, err
		}
	}
	var rcpts []queue.Recipient
	for n := range c.m.Rcpts {
		if r := c.newest(n); r.Unreported {
			r.Unreported = false
			c.rcpts[n] = r
			rcpts = append(rcpts, r)
		}
	}
	if len(rcpts) == 0 {
		return nil, damaged(metaKey(c.id), fmt.Errorf("it counts %d unreported failures, and there are none", c.m.Unreported))
	}
	return rcpts, nil
}

// addReport queues a report in the batch of what it reports.
func (c *change) addReport(kind queue.ReportKind, to string, rcpts []queue.Recipient) error {
	body := c.s.openBody(c.id, c.m, true)
	defer body.Close()
	content, whole, err := queue.ReadOriginal(kind, &c.m.Envelope, body)
	if err != nil { // a report without a quotation is better than none
		c.s.opt.Log.Error("a queued message is not readable, its report quotes nothing", "id", string(c.m.ID), "error", queue.Safe(err.Error(), 1000))
	}
	env, msg := queue.BuildReport(queue.ReportSpec{
		Kind: kind, ID: queue.NewID(c.now), Reporter: c.s.set.Load().Hostname, To: to, Date: c.now,
		Original: &c.m.Envelope, Rcpts: rcpts, Expires: c.expires(rcpts),
		Content: content, Whole: whole,
	})
	if sign := c.s.set.Load().Sign; sign != nil {
		msg = append(sign(msg), msg...)
	}
	if err := c.putReport(env, msg); err != nil {
		return err
	}
	c.effects.Reports = append(c.effects.Reports, queue.Report{About: c.m.ID, ID: env.ID, To: to, Kind: kind})
	c.note(queue.Note{What: queue.NoteReport, Report: env.ID, Kind: kind.String(), To: to})
	return nil
}

// expires is when the first of the recipients is given up.
func (c *change) expires(rcpts []queue.Recipient) (first time.Time) {
	for i := range rcpts {
		at := c.rt.RetryOf(c.m.Sender, &rcpts[i]).Expires(c.m.Received, &rcpts[i])
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

func (c *change) putReport(env *queue.Envelope, msg []byte) error {
	id, err := ulid.ParseStrict(string(env.ID))
	if err != nil {
		return err
	}
	in := bytes.NewReader(msg)
	info := bodyInfo{size: int64(len(msg))}
	for buf := make([]byte, chunkSize); in.Len() > 0; info.chunks++ {
		n, _ := io.ReadFull(in, buf) // from memory
		set(c.b, partKey(famChunk, id, info.chunks), buf[:n])
	}
	f, err := c.s.stageMessage(c.b, c.rt, id, env, info)
	if err != nil {
		return err
	}
	if info.chunks == 1 {
		f.body = msg
	}
	if c.fresh == nil {
		c.fresh = map[ulid.ULID]*fresh{}
	}
	c.fresh[id] = f
	c.reports = append(c.reports, f.groups...)
	return nil
}
