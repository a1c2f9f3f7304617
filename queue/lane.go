package queue

import (
	"hash/maphash"
	"strings"
	"sync"
	"time"
)

// Lane is the part of a hop's queue that a message waits in. Lanes are served
// in turn, so that a sender's list of 100,000 delays nobody's single message,
// and a large message no small one. A message keeps its lane for life.
type Lane uint8

// Light is for senders with few messages lately; the lanes behind it are for
// the others, each sender in one of them; the last two are for large messages.
const (
	Light      Lane = 0
	bulk       Lane = 1
	bulkLanes       = 13
	LargeLight Lane = 14
	LargeBulk  Lane = 15
	NumLanes        = 16
)

// Large tells whether the lane is one for large messages.
func (l Lane) Large() bool { return l >= LargeLight }

// Lanes is a set of lanes.
type Lanes uint16

const (
	AnyLane    Lanes = 1<<NumLanes - 1
	LightLane  Lanes = 1 << Light
	LargeLanes Lanes = 1<<LargeLight | 1<<LargeBulk
)

// Set is the set of this one lane.
func (l Lane) Set() Lanes { return 1 << l }

// Has tells whether the lane is in the set.
func (s Lanes) Has(l Lane) bool { return s&l.Set() != 0 }

// LargeSize is the size of a message, in bytes, above which it is a large one:
// a second or so of a slow link.
const LargeSize = 1 << 20

// What a sender may have filed in the last minute and still be a light one, in
// groups (see MaxGroup), and what one client at the inbound door may, whose
// senders may be invented.
const (
	lightPerMinute       = 20
	lightClientPerMinute = 1000
)

// laneOf is the lane of a message: by its size, by whether its sender is a
// light one, and by who he is.
func laneOf(size int64, light bool, who uint64) Lane {
	switch {
	case size > LargeSize && light:
		return LargeLight
	case size > LargeSize:
		return LargeBulk
	case light:
		return Light
	}
	return bulk + Lane(who%bulkLanes)
}

// Traffic knows how much each sender has filed lately, about: in tables of
// fixed size, a megabyte in all, in memory only. The zero value is ready.
type Traffic struct {
	mu      sync.Mutex
	seed    maphash.Seed
	senders sketch
	clients sketch
}

// Slots in a row of a table: for 10,000 messages a second, each of another
// sender.
const (
	senderSlots = 1 << 16
	clientSlots = 1 << 12
)

// File notes a message with so many groups and returns its lane.
func (t *Traffic) File(env *Envelope, groups int, now time.Time) Lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.senders.rows[0] == nil {
		t.seed = maphash.MakeSeed()
		t.senders, t.clients = newSketch(senderSlots, lightPerMinute), newSketch(clientSlots, lightClientPerMinute)
	}
	who := maphash.String(t.seed, origin(env))
	light := t.senders.add(who, groups, now)
	if client := clientNet(env); env.Mode == Inbound && client != "" {
		host := maphash.String(t.seed, client)
		if !t.clients.add(host, groups, now) {
			light, who = false, host
		}
	}
	return laneOf(env.Size, light, who)
}

// sketch counts by hash, in two rows of buckets. Some share a bucket by chance;
// only one who shares both of his with heavy ones is taken for a heavy one.
type sketch struct {
	rows      [2][]bucket
	perMinute float32 // that is light
}

func newSketch(slots int, perMinute float32) sketch {
	return sketch{[2][]bucket{make([]bucket, slots), make([]bucket, slots)}, perMinute}
}

// bucket fills with what is filed and leaks by as much a minute as is light. It
// holds two minutes' worth, so that nobody counts as heavy for much longer than
// he is.
type bucket struct {
	level float32
	at    uint32 // ms; it wraps around
}

// add fills the buckets of a hash and tells whether one of them holds no more
// than a minute's worth.
func (s *sketch) add(hash uint64, groups int, now time.Time) (light bool) {
	ms := uint32(now.UnixMilli())
	for i, row := range s.rows {
		b := &row[(hash>>(32*i))%uint64(len(row))]
		leaked := s.perMinute * float32(ms-b.at) / float32(time.Minute.Milliseconds())
		b.level = min(max(0, b.level-leaked)+float32(groups), 2*s.perMinute)
		b.at = ms
		light = light || b.level <= s.perMinute
	}
	return light
}

// origin names who is to be told from others: the authenticated user, else the
// sender without what list software puts in to tell its recipients apart
// (VERP), else the client, or whom a report of our own goes to.
func origin(env *Envelope) string {
	switch {
	case env.Client.User != "":
		return "user " + env.Client.User
	case env.Sender != "":
		return "sender " + withoutDetail(env.Sender)
	case env.Client.Addr.IsValid():
		return "client " + clientNet(env)
	case len(env.To) > 0:
		return "to " + withoutDetail(env.To[0].Address)
	}
	return ""
}

// withoutDetail cuts "bounce-4711+bob=b.example@a.example" to
// "bounce-@a.example".
func withoutDetail(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	local, domain := address[:at], address[at:]
	if i := strings.IndexAny(local, "+="); i > 0 {
		local = local[:i]
	}
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, local) + strings.ToLower(domain)
}

// clientNet is the network that one client may choose his addresses from.
func clientNet(env *Envelope) string {
	addr := env.Client.Addr.Addr().Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}
