package pebblestore

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"srvrelay/queue"
)

// fill gives every field of a value something that is not zero, and not twice the same.
func fill(v reflect.Value, n *int64) {
	*n++
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(1e9+*n, 17).UTC()))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("[2001:db8::1]:2525")))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(time.Duration(*n).String() + "ä")
	case reflect.Int, reflect.Int64:
		v.SetInt(*n)
	case reflect.Uint8:
		v.SetUint(uint64(*n % 200))
	case reflect.Bool:
		v.SetBool(true)
	}
}

// TestPackPast: whatever there is to know of a message is packed, fields that
// somebody adds later too; and damage is an error.
func TestPackPast(t *testing.T) {
	var n int64
	full := new(queue.Message)
	fill(reflect.ValueOf(full).Elem(), &n)
	full.To, full.Prefix, full.ID, full.Hold = nil, nil, "", queue.Status{} // they are elsewhere
	for i := range full.Attempts {
		full.Attempts[i].PlanText, full.Attempts[i].Took = nil, queue.Took{} // not for the disk
	}
	full.Recipients[1].Address = "x@" + full.Recipients[1].Domain
	for _, m := range []*queue.Message{full, {Recipients: []queue.Recipient{{Address: "bob", Domain: "b.example"}}}} {
		gone := time.Unix(5, 5).UTC()
		b := packPast(m, gone)
		got, at, err := unpackPast(b)
		if err != nil || !at.Equal(gone) {
			t.Fatal(at, err)
		}
		if d := cmp.Diff(m, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
		for i := range b {
			if _, _, err := unpackPast(b[:i]); err == nil {
				t.Errorf("cut to %d of %d bytes it is taken", i, len(b))
			}
		}
	}
}

func FuzzUnpackPast(f *testing.F) {
	f.Add(packPast(&queue.Message{Recipients: []queue.Recipient{{Address: "bob@b.example", Domain: "b.example"}}, Attempts: []queue.Attempt{{Results: []string{"x"}}}}, time.Unix(1, 0)))
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _ = unpackPast(b) })
}
