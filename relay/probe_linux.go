package relay

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnanswered ends a connection on which something stays unacknowledged for
// long: probes are sent only where nothing is under way (RFC 5482).
func limitUnanswered(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(peerGone/time.Millisecond))
}
