package admin

import (
	"context"
	"errors"
	"runtime"

	"srvrelay/queue"
)

// Door says whether new mail is taken, how full the queue is, and what the
// relay itself has in use. Fields are only ever added.
type Door struct {
	Refusing    string    `json:"refusing,omitempty"` // why no new mail is taken (452); "" = it is
	Fix         string    `json:"fix,omitempty"`      // what to do about it
	Held        []Suspect `json:"held,omitempty"`     // whose new mail is accepted and held, and why
	Messages    int64     `json:"messages"`
	MaxMessages int64     `json:"max_messages"` // limits.max_queued_messages
	Bytes       int64     `json:"bytes"`        // of all messages
	MaxBytes    int64     `json:"max_bytes"`    // limits.max_queue_size
	Connections int       `json:"connections"`  // of clients
	Goroutines  int       `json:"goroutines"`   // things that the relay does at this moment
}

// Closed makes the reason of a refusal part of it, with the next step.
func (d Door) Closed(why error) Door {
	if why == nil {
		return d
	}
	d.Refusing = queue.Safe(why.Error(), 500)
	switch {
	case errors.Is(why, queue.ErrQueueFull):
		d.Fix = "srvrelay queue summary   # which hops hold it up? Or raise the limit, and: srvrelay reload"
	case errors.Is(why, queue.ErrFull):
		d.Fix = "make room on the disk of data_dir   # srvrelay doctor; mail is taken again by itself"
	case errors.Is(why, queue.ErrBusy):
		d.Fix = "iostat -x 1; dmesg | tail   # is the disk busy, or broken?"
	default:
		d.Fix = "journalctl -u srvrelay   # the log says more"
	}
	return d
}

// Door returns the state of the doors.
func (c *Client) Door(ctx context.Context) (d Door, err error) {
	err = c.do(ctx, "GET", "/door", &d)
	return d, err
}

// door is nil where no relay is running.
func (b Backend) door() *Door {
	if b.Door == nil {
		return nil
	}
	d := b.Door()
	d.Goroutines = runtime.NumGoroutine()
	return &d
}
