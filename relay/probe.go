package relay

import (
	"net"
	"time"
)

// peerGone is after how long a peer that answers nothing is gone, on a
// connection that stands for long: the line at home has another address by now,
// and nobody has told us.
const peerGone = 40 * time.Second

// ProbePeer has the system find out when the peer of a TCP connection is gone,
// whether something is under way or not, and keeps the way open through the NATs
// between. Other connections do without, see quiet.
func ProbePeer(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: peerGone / 2, Interval: peerGone / 4, Count: 2})
	raw, err := t.SyscallConn()
	if err == nil {
		_ = raw.Control(limitUnanswered)
	}
}
