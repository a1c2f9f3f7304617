package acme

import (
	"context"
	"sync"
	"time"

	proto "github.com/mholt/acmez/v3/acme"

	"srvrelay/dnsutil"
)

// dnsSolver puts the records of dns-01 into the zone, and takes them away.
type dnsSolver struct {
	zone        dnsutil.Updater
	propagation time.Duration

	mu    sync.Mutex
	known time.Time // when the other servers of the zone have all records
}

// recordTTL is how long others may remember a record of a challenge.
const recordTTL = time.Minute

// Present implements acmez.Solver.
func (d *dnsSolver) Present(ctx context.Context, c proto.Challenge) error {
	err := d.zone.AddTXT(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization(), recordTTL)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = time.Now().Add(d.propagation)
	return err
}

// Wait implements acmez.Waiter: the primary tells the other servers of the zone
// in its own time. All records were added before the first Wait, so that they are
// waited for together.
func (d *dnsSolver) Wait(ctx context.Context, _ proto.Challenge) error {
	d.mu.Lock()
	left := time.Until(d.known)
	d.mu.Unlock()
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CleanUp implements acmez.Solver. It happens when the relay stops, too, which
// does not wait for long.
func (d *dnsSolver) CleanUp(ctx context.Context, c proto.Challenge) error {
	zone := d.zone
	if ctx.Err() != nil {
		zone.Timeout = time.Second
	}
	return zone.RemoveTXT(context.WithoutCancel(ctx), c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}
