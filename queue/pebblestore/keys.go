package pebblestore

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"srvrelay/queue"
)

var (
	keyFormat = []byte("f/format")
	keyIndex  = []byte("f/index")
)

// Families of keys, see the package comment.
const (
	famMeta     = "m/"
	famRcpt     = "r/"
	famChunk    = "b/"
	famAttempt  = "a/"
	famHop      = "h/"
	famDeadline = "t/"
	famFile     = "l/"
	famFact     = "x/"
)

// group names an entry of the hop index, within its hop: recipients of one
// message that share a due time. It is the unit of a lease.
type group struct {
	due   int64 // Unix time in ns
	id    ulid.ULID
	first uint32     // number of its first recipient: makes the key unique
	lane  queue.Lane // its message's
}

// compare is the order of the keys.
func (g group) compare(o group) int {
	return cmp.Or(cmp.Compare(g.lane, o.lane), cmp.Compare(g.due, o.due), bytes.Compare(g.id[:], o.id[:]), cmp.Compare(g.first, o.first))
}

// before tells whether g is due before o.
func (g group) before(o group) bool { return cmp.Or(cmp.Compare(g.due, o.due), g.compare(o)) < 0 }

const groupSuffix = 1 + 1 + 8 + 16 + 4 // NUL, lane, due, id, first

func metaKey(id ulid.ULID) []byte  { return append([]byte(famMeta), id[:]...) }
func fileKey(number uint64) []byte { return binary.BigEndian.AppendUint64([]byte(famFile), number) }
func factKey(key string) []byte    { return []byte(famFact + key) }

// partKey is the key of the n-th recipient, chunk or attempt.
func partKey(family string, id ulid.ULID, n int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(family), id[:]...), uint32(n))
}

// partRange holds all parts of a message of one family.
func partRange(family string, id ulid.ULID) (lower, upper []byte) {
	lower = append([]byte(family), id[:]...)
	return lower, after(lower)
}

func deadlineKey(when int64, id ulid.ULID) []byte {
	k := binary.BigEndian.AppendUint64([]byte(famDeadline), uint64(when))
	return append(k, id[:]...)
}

func parseDeadlineKey(k []byte) (when int64, id ulid.ULID, ok bool) {
	if len(k) != len(famDeadline)+8+16 {
		return 0, id, false
	}
	when = int64(binary.BigEndian.Uint64(k[len(famDeadline):]))
	copy(id[:], k[len(famDeadline)+8:])
	return when, id, true
}

func parseFileKey(k []byte) (number uint64, ok bool) {
	if len(k) != len(famFile)+8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(k[len(famFile):]), true
}

func groupKey(hop string, g group) []byte {
	k := make([]byte, 0, len(famHop)+len(hop)+groupSuffix)
	k = append(append(append(k, famHop...), hop...), 0, byte(g.lane))
	k = binary.BigEndian.AppendUint64(k, uint64(g.due))
	k = append(k, g.id[:]...)
	return binary.BigEndian.AppendUint32(k, g.first)
}

// parseGroupKey returns the hop as bytes of k: most callers only compare it.
func parseGroupKey(k []byte) (hop []byte, g group, ok bool) {
	at := len(k) - groupSuffix
	if at < len(famHop) || k[at] != 0 || k[at+1] >= queue.NumLanes || bytes.IndexByte(k[:at], 0) >= 0 {
		return nil, g, false
	}
	g.lane = queue.Lane(k[at+1])
	g.due = int64(binary.BigEndian.Uint64(k[at+2:]))
	copy(g.id[:], k[at+10:])
	g.first = binary.BigEndian.Uint32(k[at+26:])
	return k[len(famHop):at], g, true
}

// laneEnd is behind the last key of a lane of the hop.
func laneEnd(hop string, l queue.Lane) []byte { return append([]byte(famHop+hop), 0, byte(l)+1) }

// parseID returns the ID in the key of a message's record or part.
func parseID(k []byte) (id ulid.ULID, ok bool) {
	if len(k) < 2+16 {
		return id, false
	}
	copy(id[:], k[2:])
	return id, true
}

// partNumber returns the n of a partKey.
func partNumber(k []byte) (n int, ok bool) {
	if len(k) != 2+16+4 {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(k[2+16:])), true
}

// after returns the first key behind all keys with the prefix.
func after(prefix []byte) []byte {
	k := bytes.Clone(prefix)
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			return k[:i+1]
		}
	}
	return nil
}

// encodeMembers and decodeMembers are the value of an h/ key: the numbers of
// the group's recipients.
func encodeMembers(members []int) []byte {
	b := make([]byte, 0, 2*len(members))
	for _, n := range members {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

func decodeMembers(b []byte, rcpts int) ([]int, error) {
	var members []int
	for len(b) > 0 {
		n, size := binary.Uvarint(b)
		if size <= 0 || n >= uint64(rcpts) || len(members) > 0 && int(n) <= members[len(members)-1] {
			return nil, errors.New("not a list of its recipients")
		}
		members = append(members, int(n))
		b = b[size:]
	}
	if len(members) == 0 || len(members) > queue.MaxGroup {
		return nil, fmt.Errorf("a group of %d recipients", len(members))
	}
	return members, nil
}

// keyName shows a key to a person.
func keyName(k []byte) string {
	if hop, g, ok := parseGroupKey(k); ok && strings.HasPrefix(string(k), famHop) {
		return fmt.Sprintf("h/%s %s %s/%d", queue.Safe(string(hop), 255), fromNano(g.due).Format(time.RFC3339), g.id, g.first)
	}
	if id, ok := parseID(k); ok && k[0] != famDeadline[0] && k[0] != famFact[0] {
		return fmt.Sprintf("%s%s%x", queue.Safe(string(k[:2]), 2), id, k[18:])
	}
	n := min(2, len(k))
	return fmt.Sprintf("%s%x", queue.Safe(string(k[:n]), 2), k[n:])
}

// nano is a time as it is stored; the zero time is 0.
func nano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
