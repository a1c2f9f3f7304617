package queue

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

var (
	idMu      sync.Mutex
	idEntropy = ulid.Monotonic(rand.Reader, 0)
)

// NewID returns a fresh ID; IDs made in one process sort in the order of the calls.
func NewID(now time.Time) ID {
	idMu.Lock()
	defer idMu.Unlock()
	return ID(ulid.MustNew(ulid.Timestamp(now), idEntropy).String())
}

// Time is when the ID was made, to the millisecond: for a message of a door, at MAIL. The
// zero time if it is no ID.
func (id ID) Time() time.Time {
	u, err := ulid.ParseStrict(string(id))
	if err != nil {
		return time.Time{}
	}
	return ulid.Time(u.Time())
}

// ParseID checks an ID from outside.
func ParseID(s string) (ID, error) {
	u, err := ulid.ParseStrict(s)
	if err != nil {
		return "", fmt.Errorf("%.40q is not a queue id (26 characters, 0-9 and A-Z)", s)
	}
	return ID(u.String()), nil
}
