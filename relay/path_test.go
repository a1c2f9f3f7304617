package relay

import (
	"strings"
	"testing"
	"unsafe"
)

// TestLinesAreNotKept: what is kept of a command does not keep its line in memory.
func TestLinesAreNotKept(t *testing.T) {
	within := func(part, line string) bool {
		at := uintptr(unsafe.Pointer(unsafe.StringData(part)))
		from := uintptr(unsafe.Pointer(unsafe.StringData(line)))
		return at >= from && at < from+uintptr(len(line))
	}
	arg := "TO:<a1@b.example>" + strings.Repeat(" ", 3900) + "NOTIFY=NEVER"
	if raw, _, ok := cutPath(arg, "TO:"); !ok || raw != "a1@b.example" || within(raw, arg) {
		t.Errorf("%q, %v: the path is a part of the line", raw, ok)
	}
	hello := "client.example " + strings.Repeat("x", 3900)
	if name, r := vetHello(hello); r != nil || name != "client.example" || within(name, hello) {
		t.Errorf("%q, %v: the name is a part of the line", name, r)
	}
}
