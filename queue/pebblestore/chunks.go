package pebblestore

import (
	"encoding/binary"
	"hash/crc32"
)

// The engine's logs (the write-ahead logs and the MANIFEST) are blocks of
// 32 KiB, filled with chunks that each have a checksum; a record is one chunk
// or several. Its own reader ends at the first chunk that is not whole, because
// a power cut may have ended the write there. scanLog goes on behind it: so
// that damage can be told from such an end, and so that salvage gets the rest.
const (
	logBlock     = 32 << 10
	legacyHeader = 7                // checksum (4), length (2), kind (1)
	numberHeader = legacyHeader + 4 // and the number of the log: old ones are written over
	syncHeader   = numberHeader + 8 // and how far the log was on stable storage
)

// chunk is a piece of a record that is whole.
type chunk struct {
	first, last bool
	payload     []byte
	synced      uint64 // so much of the log was on stable storage when it was written
	next        int    // where the next chunk begins
}

// logGap is where a log cannot be read.
type logGap struct {
	from, to int
	proven   bool // what is behind says that it was whole once, so it is damaged

	syncs  int    // how often a mark was higher than the one before, behind the gap
	synced uint64 // the newest mark
}

// scanLog calls fn for every record that is whole, with the place of its first
// byte, and returns the gaps. number is the log's; 0 is the MANIFEST.
func scanLog(b []byte, number uint32, fn func(at int, record []byte)) (gaps []logGap) {
	var record []byte
	begin := -1 // of the record that is being put together
	for at := 0; at < len(b); {
		c, ok := wholeChunk(b, at, number)
		if !ok {
			if rest := b[at:blockEnd(b, at)]; len(rest) < syncHeader && allZero(rest) {
				at += len(rest) // no chunk has room there
				continue
			}
			if begin < 0 && isTrailer(b, at, number) {
				return gaps
			}
			from := at
			if begin >= 0 {
				from = begin
			}
			at = nextChunk(b, at+1, number)
			gaps = append(gaps, logGap{from: from, to: at})
			begin = -1
			continue
		}
		proveGaps(gaps, c, number)
		switch {
		case c.first:
			if begin >= 0 { // the end of the one before is missing
				gaps = append(gaps, logGap{from: begin, to: at})
				proveGaps(gaps, c, number)
			}
			begin, record = at, nil
		case begin < 0: // its beginning is in a gap
			at = c.next
			continue
		}
		if c.first && c.last {
			record = c.payload
		} else {
			record = append(record, c.payload...)
		}
		at = c.next
		if c.last {
			fn(begin, record)
			begin = -1
		}
	}
	if begin >= 0 {
		gaps = append(gaps, logGap{from: begin, to: len(b)})
	}
	return gaps
}

// proveGaps looks whether the chunk, which is behind the gaps, could only be
// written after what was there was on stable storage. Of the MANIFEST each
// record is synced before the next one is written. In a log each chunk has a
// mark: so much had been synced when it was written. The engine counts too
// little (full blocks are left out), so that a mark beyond the gap is proof,
// and one before it says nothing. But that a mark is higher than the one
// before says that a sync has ended in between; and the second one to end
// behind the gap was begun behind it.
func proveGaps(gaps []logGap, c chunk, number uint32) {
	for i := range gaps {
		g := &gaps[i]
		if g.syncs == 0 || c.synced > g.synced {
			g.syncs, g.synced = g.syncs+1, c.synced
		}
		if number == 0 && c.first || c.synced > uint64(g.from) || number != 0 && g.syncs > 2 {
			g.proven = true
		}
	}
}

// wholeChunk reads the chunk at a place; not ok: there is none that is whole.
func wholeChunk(b []byte, at int, number uint32) (c chunk, ok bool) {
	end := blockEnd(b, at)
	if at+legacyHeader > end {
		return c, false
	}
	kind := b[at+6]
	header := legacyHeader
	switch {
	case number == 0 && kind >= 1 && kind <= 4:
	case number != 0 && kind >= 5 && kind <= 8:
		header = numberHeader
	case number != 0 && kind >= 9 && kind <= 12:
		header = syncHeader
	default:
		return c, false
	}
	c.next = at + header + int(binary.LittleEndian.Uint16(b[at+4:]))
	if c.next > end || number != 0 && binary.LittleEndian.Uint32(b[at+legacyHeader:]) != number {
		return c, false
	}
	if binary.LittleEndian.Uint32(b[at:]) != cooked(crc32.Checksum(b[at+6:c.next], castagnoli)) {
		return c, false
	}
	if header == syncHeader {
		c.synced = binary.LittleEndian.Uint64(b[at+numberHeader:])
	}
	part := (kind - 1) % 4 // full, first, middle, last
	c.first, c.last = part <= 1, part == 0 || part == 3
	c.payload = b[at+header : c.next]
	return c, true
}

// isTrailer tells whether the log was closed in good order here: an empty
// chunk of the next number.
func isTrailer(b []byte, at int, number uint32) bool {
	return number != 0 && at+numberHeader <= blockEnd(b, at) && b[at+6] == 5 &&
		binary.LittleEndian.Uint32(b[at+legacyHeader:]) == number+1
}

// nextChunk is the first place from at on where there is a whole chunk, or
// the end.
func nextChunk(b []byte, at int, number uint32) int {
	for ; at < len(b); at++ {
		if _, ok := wholeChunk(b, at, number); ok {
			return at
		}
	}
	return len(b)
}

func blockEnd(b []byte, at int) int { return min(len(b), at-at%logBlock+logBlock) }

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// cooked is a checksum as the engine stores it.
func cooked(sum uint32) uint32 { return (sum>>15 | sum<<17) + 0xa282ead8 }
