package doctor

import (
	"context"
	"errors"
	"testing"
)

func TestQueue(t *testing.T) {
	newWorld(t, "", "", nil).expect(checkQueue, "ok no relay is running")
	other := newWorld(t, "", "", nil)
	other.Relay = Unknown
	other.expect(checkQueue, "skipped how full the queue is: ")
	for want, d := range map[string]Door{
		"ok the queue holds 3 messages of at most 10, 1 MiB of at most 8GiB":                   {Messages: 3, MaxMessages: 10, Bytes: 1 << 20, MaxBytes: 8 << 30},
		"warning the queue is nearly full: 8 messages of at most 10, 0 MiB of at most 8GiB":    {Messages: 8, MaxMessages: 10, MaxBytes: 8 << 30},
		"warning the queue is nearly full: 1 messages of at most 10, 7168 MiB of at most 8GiB": {Messages: 1, MaxMessages: 10, Bytes: 7 << 30, MaxBytes: 8 << 30},
		"error no new mail is taken (452): the disk hangs":                                     {Refusing: "the disk hangs", Fix: "look at it", MaxMessages: 10, MaxBytes: 8 << 30},
	} {
		w := newWorld(t, "", "", nil)
		w.Door = func(context.Context) (Door, error) { return d, nil }
		w.expect(checkQueue, want)
	}
	w := newWorld(t, "", "", nil)
	w.Door = func(context.Context) (Door, error) {
		return Door{MaxMessages: 10, MaxBytes: 8 << 30, Held: []string{"anna is held: too much"}}, nil
	}
	w.expect(checkQueue, "ok the queue holds 0 messages of at most 10\nwarning the mail of anna is held: too much")
	w.Door = func(context.Context) (Door, error) { return Door{}, errors.New("an older relay") }
	w.expect(checkQueue, "skipped how full the queue is: an older relay")
}
