package pebblestore

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// set, the deletions and deleteParts write into memory: a batch that is not indexed
// has no errors to return before its commit.
func set(b *pebble.Batch, key, value []byte) { _ = b.Set(key, value, nil) }

// deleteKey is one of delKey and delOnce.
type deleteKey func(b *pebble.Batch, key []byte)

func delKey(b *pebble.Batch, key []byte) { _ = b.Delete(key, nil) }

// delOnce deletes a key that has been set exactly once (see fresh.once).
func delOnce(b *pebble.Batch, key []byte) { _ = b.SingleDelete(key, nil) }

func deletion(once bool) deleteKey {
	if once {
		return delOnce
	}
	return delKey
}

// fewParts is up to how many parts single tombstones are cheaper than one
// over a range, which all later reads have to look at.
const fewParts = 32

func deleteParts(b *pebble.Batch, family string, id ulid.ULID, n int, del deleteKey) {
	if n > fewParts {
		lower, upper := partRange(family, id)
		_ = b.DeleteRange(lower, upper, nil)
		return
	}
	for i := range n {
		del(b, partKey(family, id, i))
	}
}
