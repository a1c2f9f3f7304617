package pebblestore

import (
	"bytes"
	"io"
	"testing"

	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// someLog is a log with records of one chunk and of several.
func someLog(t testing.TB) (b []byte, number uint32) {
	fs := vfs.NewMem()
	s := openMem(t, fs)
	for _, size := range []int{10, 40 << 10, 10, 60 << 10, 60 << 10, 10, 10} {
		put(t, s, size, "b@b.example")
	}
	s.Close()
	logs := liveLogs(named(t, fs, "*.log"), 0)
	l := logs[len(logs)-1]
	b, err := readFile(fs, "queue/"+l.name)
	if err != nil {
		t.Fatal(err)
	}
	return b, uint32(l.number)
}

// Of a log that is whole, scanLog reads what the engine's own reader reads.
func TestScanLog(t *testing.T) {
	b, number := someLog(t)
	var got [][]byte
	gaps := scanLog(b, number, func(_ int, r []byte) { got = append(got, bytes.Clone(r)) })
	if len(gaps) > 0 {
		t.Errorf("gaps in a log that is whole: %v", gaps)
	}
	r := record.NewReader(bytes.NewReader(b), 6)
	for n := 0; ; n++ {
		one, err := r.Next()
		if err == io.EOF && n == len(got) && n > 5 {
			return
		}
		if err != nil {
			t.Fatalf("%d records, and %d were read: %v", n, len(got), err)
		}
		if want, err := io.ReadAll(one); err != nil || !bytes.Equal(want, got[n]) {
			t.Fatalf("record %d is another, %v", n, err)
		}
	}
}

// Whatever stands in a log: it is read to its end, and gaps are within it.
func FuzzScanLog(f *testing.F) {
	b, number := someLog(f)
	f.Add(b[:200], number)
	f.Add(b[1000:90000], number)
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, number uint32) {
		var s stand
		gaps := scanLog(b, number, func(at int, r []byte) {
			if at < 0 || at >= len(b) {
				t.Errorf("a record at %d of %d", at, len(b))
			}
			s.edit(r)
		})
		for _, g := range gaps {
			if g.from < 0 || g.from >= g.to || g.to > len(b) {
				t.Errorf("a gap %+v of %d", g, len(b))
			}
		}
	})
}

// Salvage reads batches and blocks that a checksum of 32 bits has let pass.
func FuzzSalvage(f *testing.F) {
	b, number := someLog(f)
	scanLog(b, number, func(_ int, r []byte) { f.Add(bytes.Clone(r[:min(len(r), 500)])) })
	fs := vfs.NewMem()
	v := &Salvage{opt: SalvageOptions{Scratch: "scratch", FS: fs}, fs: fs, hidden: map[hidden]uint64{}}
	if err := v.openScratch(); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { v.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := batchrepr.ReadHeader(b); ok {
			if err := v.readBatch("000001.log", 0, b); err != nil {
				t.Error(err)
			}
		}
		tab := table{v: v, name: "000001.sst", b: b}
		if err := tab.scan(); err != nil {
			t.Error(err)
		}
		_, _ = tab.rows(b, 0)
	})
}
