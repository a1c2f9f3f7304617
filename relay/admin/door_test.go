package admin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"srvrelay/queue"
)

// TestDoor: each reason has its next step, and who cannot be asked says nothing.
func TestDoor(t *testing.T) {
	for why, fix := range map[error]string{
		nil: "", queue.ErrQueueFull: "queue summary", queue.ErrFull: "make room", queue.ErrBusy: "iostat", errors.New("odd\x1b[2J"): "journalctl",
	} {
		err := why
		if why != nil {
			err = fmt.Errorf("put: %w", why)
		}
		d := Door{Messages: 1}.Closed(err)
		if (why == nil) != (d.Refusing == "") || !strings.Contains(d.Fix, fix) || strings.ContainsRune(d.Refusing, 0x1b) {
			t.Errorf("%v: %+v", why, d)
		}
	}
	if (Backend{}).door() != nil {
		t.Error("a door without a relay")
	}
	b := Backend{Door: func() Door { return Door{Messages: 7} }}
	if d := b.door(); d.Messages != 7 || d.Goroutines == 0 {
		t.Errorf("%+v", d)
	}
}
