package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
)

// readTable takes every block of a table that is whole. Where they are says
// the table's index; without one they are found by their checksums.
func (v *Salvage) readTable(name string) error {
	b, err := readFile(v.fs, v.fs.PathJoin(v.opt.Dir, name))
	if err != nil {
		v.damaged(name, "%v", err)
		return nil
	}
	o := &pebble.Options{}
	o.EnsureDefaults()
	ro := o.MakeReaderOptions()
	t := table{v: v, name: name, b: b, schema: ro.KeySchemas}
	layout, err := t.open(ro)
	if err != nil {
		v.damaged(name, "its index cannot be used, the blocks are looked for (%v)", err)
		return t.scan()
	}
	for _, h := range layout.Data {
		if err := t.block(h.Handle); err != nil {
			return err
		}
	}
	return nil
}

// table is one that is being read.
type table struct {
	v      *Salvage
	name   string
	b      []byte
	schema sstable.KeySchemas
}

// open reads the index, and the ranges that were deleted at once.
func (t *table) open(ro sstable.ReaderOptions) (l *sstable.Layout, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	r, err := sstable.NewMemReader(t.b, ro)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if l, err = r.Layout(); err != nil {
		return nil, err
	}
	ranges, err := r.NewRawRangeDelIter(context.Background(), sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil {
		t.v.damaged(t.name, "what was deleted at once cannot be read (%v)", err)
		return l, nil
	}
	if ranges == nil {
		return l, nil
	}
	defer ranges.Close()
	span, err := ranges.First()
	for ; span != nil && err == nil; span, err = ranges.Next() {
		t.v.hide(span.Start, span.End, uint64(span.LargestSeqNum()))
	}
	return l, err
}

// block takes the block at a place.
func (t *table) block(h block.Handle) error {
	end := h.Offset + h.Length
	if end+block.TrailerLen > uint64(len(t.b)) || end < h.Offset {
		t.v.damaged(t.name, "it ends before the block at byte %d", h.Offset)
		return nil
	}
	raw := t.b[h.Offset : end+block.TrailerLen]
	err := block.ValidateChecksum(block.ChecksumTypeCRC32c, raw, h)
	var rows []row
	if err == nil {
		rows, err = t.rows(raw[:h.Length], raw[h.Length])
	}
	if err != nil {
		t.v.damaged(t.name, "the block at byte %d, of %d bytes, cannot be read (%v)", h.Offset, h.Length, err)
		return nil
	}
	return t.take(rows)
}

// scan goes through a table without its index. The blocks stand one behind the
// other from the beginning; that of the index and what else is no data is
// passed over.
func (t *table) scan() error {
	for at := 0; at < len(t.b); {
		n := blockLength(t.b[at:])
		if n < 0 {
			if len(t.b)-at > footerSize {
				t.v.damaged(t.name, "bytes %d to %d cannot be read", at, len(t.b))
			}
			return nil
		}
		if rows, err := t.rows(t.b[at:at+n], t.b[at+n]); err == nil {
			if err := t.take(rows); err != nil {
				return err
			}
		}
		at += n + block.TrailerLen
	}
	return nil
}

// footerSize is that of the largest footer there is.
const footerSize = 64

// maxBlock bounds the search for the end of a block: a body's part and its key
// fit into it, and the index of a large table.
const maxBlock = 4 << 20

// blockLength finds the end of a block by its checksum, -1 = there is none.
func blockLength(b []byte) int {
	sum := ^uint32(0)
	for i := 0; i+block.TrailerLen <= len(b) && i < maxBlock; i++ {
		sum = castagnoli[byte(sum)^b[i]] ^ sum>>8 // of the block and the byte for its compression
		if cooked(^sum) == binary.LittleEndian.Uint32(b[i+1:]) && i > 0 {
			return i
		}
	}
	return -1
}

// row is one version of a key.
type row struct {
	key, value []byte
	seq        uint64
	kind       pebble.InternalKeyKind
}

// rows reads a block of data. Of one that is something else, and of one that
// makes no sense, the reader panics.
func (t *table) rows(compressed []byte, compression byte) (rows []row, err error) {
	defer func() {
		if p := recover(); p != nil {
			rows, err = nil, fmt.Errorf("it is no block of data: %v", p)
		}
	}()
	data, err := inflate(block.CompressionIndicator(compression), compressed)
	if err != nil {
		return nil, err
	}
	schema := t.keySchema()
	var d colblk.DataBlockDecoder
	d.Init(schema, data)
	var it colblk.DataBlockIter
	it.InitOnce(schema, pebble.DefaultComparer, nil)
	if err := it.Init(&d, block.NoTransforms); err != nil {
		return nil, err
	}
	for kv := it.First(); kv != nil; kv = it.Next() {
		r := row{key: append([]byte(nil), kv.K.UserKey...), seq: uint64(kv.SeqNum()), kind: kv.Kind()}
		if kv.V.IsInPlaceValue() {
			r.value = append([]byte(nil), kv.InPlaceValue()...)
		} else if r.kind != pebble.InternalKeyKindDelete && r.kind != pebble.InternalKeyKindSingleDelete {
			continue // an older version of a key, kept elsewhere
		}
		rows = append(rows, r)
	}
	return rows, it.Error()
}

func (t *table) keySchema() *colblk.KeySchema {
	for _, s := range t.schema {
		return s
	}
	return nil
}

// maxInflated bounds what a block may come to.
const maxInflated = 64 << 20

func inflate(c block.CompressionIndicator, b []byte) ([]byte, error) {
	if c == block.NoCompressionIndicator {
		return aligned(b), nil
	}
	n, err := block.DecompressedLen(c, b)
	if err != nil {
		return nil, err
	}
	if n < 0 || n > maxInflated {
		return nil, fmt.Errorf("it comes to %d bytes", n)
	}
	out := aligned(make([]byte, n))
	return out, block.DecompressInto(c, b, out)
}

// aligned copies b to where a reader of words can use it: what is not tiny is
// laid at a multiple of eight.
func aligned(b []byte) []byte {
	return append(make([]byte, 0, max(len(b), 64)), b...)
}

// take notes the rows.
func (t *table) take(rows []row) error {
	for _, r := range rows {
		var err error
		switch r.kind {
		case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
			err = t.v.found(r.key, r.value, r.seq, false)
		case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
			err = t.v.found(r.key, nil, r.seq, true)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
