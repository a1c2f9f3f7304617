package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// manager is the service manager that has started the relay, if one has: it is
// told how the relay is (sd_notify(3)). The zero value is ready to use, and
// silent where nobody listens.
type manager struct{ log maillog }

// tell sends a state. That nobody hears it is no reason to stop serving.
func (m manager) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Warn("the service manager could not be told", "state", state, "error", err)
	}
}

// reloading says that a reload begins; the function returned, that it is over.
// systemd wants to know when, to tell this reload from the one before.
func (m manager) reloading() (done func()) {
	m.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic().Microseconds()))
	return func() { m.tell(daemon.SdNotifyReady) }
}

// watchdog tells the manager three times per WatchdogSec that alive has come
// back, until ctx is done. A relay that hangs sends nothing, and is started
// again; what it has accepted is on the disk.
func (m manager) watchdog(ctx context.Context, alive func()) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("the service manager's watchdog is not served", "error", err)
	}
	if err != nil || limit <= 0 {
		return
	}
	beat(ctx, max(limit/3, time.Millisecond), func() {
		alive()
		m.tell(daemon.SdNotifyWatchdog)
	})
}

// beat calls a function now and then, but never twice at a time, until ctx is done.
func beat(ctx context.Context, every time.Duration, do func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// alive returns when the doors, the queue and the delivery answer. The disk is not
// asked: one that hangs is not cured by a start, and the doors refuse mail meanwhile.
func (s *service) alive() {
	s.doors.Connections()
	s.store.Alive()
	s.deliver.Alive()
}

// handedOver are the sockets that the manager has opened for us
// (sd_listen_fds(3)), none without one.
func handedOver() (sockets []net.Listener, err error) {
	for _, f := range activation.Files(true) {
		l, lerr := net.FileListener(f) // a duplicate
		name := f.Name()
		_ = f.Close()
		if lerr == nil && l.Addr().Network() != "tcp" {
			_ = l.Close()
			lerr = fmt.Errorf("it is of the kind %q", l.Addr().Network())
		}
		if lerr != nil && err == nil {
			err = fmt.Errorf("the socket %s of the service manager is not one that listens for TCP: %w", name, lerr)
			continue
		}
		if lerr == nil {
			sockets = append(sockets, l)
		}
	}
	if err != nil {
		for _, l := range sockets {
			_ = l.Close()
		}
		return nil, err
	}
	return sockets, nil
}

// monotonic is the time of CLOCK_MONOTONIC, which the manager compares with its own.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
