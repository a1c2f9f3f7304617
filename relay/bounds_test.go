package relay

import (
	"fmt"
	"testing"
	"time"
)

// All open transactions together have so many recipients; each may have the
// hundred that every client may count on, and what ends makes room.
func TestRecipientsOfAllTransactions(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Recipients = 150 })
	name := func(c *client, from, to int, last string) {
		for i := from; i < to; i++ {
			want := "250"
			if i == to-1 {
				want = last
			}
			c.do(fmt.Sprintf("RCPT TO:<r%d@x.example>", i), want)
		}
	}
	one, two, three := f.ready(trustedDoor), f.ready(trustedDoor), f.ready(trustedDoor)
	for _, c := range []*client{one, two, three} {
		c.do("MAIL FROM:<a@b.example>", "250")
	}
	name(one, 0, 100, "250")
	name(two, 0, 101, "452 4.5.3")
	one.do("RSET", "250")
	name(two, 100, 101, "250")
	name(three, 0, 101, "452 4.5.3")
	two.do("QUIT", "221")
	two.gone()
	name(three, 100, 101, "250")
}

// The tables of those who fail are bounded, whatever addresses they come from.
func TestTablesAreBounded(t *testing.T) {
	now := time.Now()
	th, ta := throttle{keys: map[string]*failures{}}, newTally()
	for i := range maxFailureKeys + 100 {
		th.failed([]string{fmt.Sprint(i)}, now)
		ta.add(fmt.Sprint(i), time.Minute, now)
	}
	if len(th.keys) > maxFailureKeys || len(ta.keys) > maxTallied {
		t.Errorf("%d and %d keys, at most %d and %d should be", len(th.keys), len(ta.keys), maxFailureKeys, maxTallied)
	}
}
