package acme

import (
	"context"
	"time"

	proto "github.com/mholt/acmez/v3/acme"

	"srvrelay/dnsutil"
)

// dnsSolver puts the records of dns-01 into the zone, and takes them away.
type dnsSolver struct {
	zone        dnsutil.Updater
	propagation time.Duration
}

// recordTTL is how long others may remember a record of a challenge.
const recordTTL = time.Minute

// Present implements acmez.Solver.
func (d dnsSolver) Present(ctx context.Context, c proto.Challenge) error {
	return d.zone.AddTXT(ctx, c.DNS01TXTRecordName(), c.DNS01KeyAuthorization(), recordTTL)
}

// Wait implements acmez.Waiter: the primary tells the other servers of the zone
// in its own time.
func (d dnsSolver) Wait(ctx context.Context, _ proto.Challenge) error {
	t := time.NewTimer(d.propagation)
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
func (d dnsSolver) CleanUp(ctx context.Context, c proto.Challenge) error {
	if ctx.Err() != nil {
		d.zone.Timeout = time.Second
	}
	return d.zone.RemoveTXT(context.WithoutCancel(ctx), c.DNS01TXTRecordName(), c.DNS01KeyAuthorization())
}
