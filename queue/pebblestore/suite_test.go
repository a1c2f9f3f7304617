package pebblestore

import (
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"srvrelay/queue"
	"srvrelay/queue/queuetest"
)

// checkedStore checks that all keys fit together whenever it is closed.
type checkedStore struct {
	*Store
	t testing.TB
}

func (c checkedStore) Close() error {
	if !errors.Is(c.Accepting(0), queue.ErrClosed) {
		checkStore(c.t, c.Store)
	}
	return c.Store.Close()
}

func TestConformance(t *testing.T) {
	queuetest.Run(t, func(t *testing.T) queuetest.Open {
		fs := vfs.NewMem()
		return func(c queuetest.Config) (queue.Store, error) {
			s, err := Open(Options{
				Dir: "queue", FS: fs, Routing: c.Routing, Hostname: c.Hostname,
				Postmaster: c.Postmaster, Chance: c.Chance, Log: testLog(t), HistoryKeep: 14 * 24 * time.Hour,
			})
			return checkedStore{s, t}, err
		}
	})
}
