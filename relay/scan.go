package relay

import "encoding/binary"

// findings are what scan learns of a piece of a message.
type findings struct {
	clean bool // no NUL, no bare CR or LF; a CR at the end may get its LF yet
	has8  bool // some byte >= 0x80
	cr    bool // the last byte was CR
}

const (
	ones  = 0x0101010101010101
	tops  = 0x80 * ones
	lows  = 0x7f * ones
	allCR = '\r' * ones
	allLF = '\n' * ones
)

// scan looks through a piece of a message, eight bytes at a time. cr tells that
// the byte before it was a CR.
func scan(b []byte, cr bool) findings {
	var before uint64 // 0x80 where the byte before is a CR: here, of the first byte
	if cr {
		before = 0x80
	}
	f := findings{}
	var all uint64
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		b = b[8:]
		all |= x
		// Some byte below 0x10: what follows is for one word in ten.
		if (x-0x10*ones)&^x&tops == 0 && before == 0 {
			continue
		}
		crs := zeros(x ^ allCR)
		if zeros(x) != 0 || zeros(x^allLF) != crs<<8|before {
			return f
		}
		before = crs >> 56
	}
	for _, ch := range b {
		if ch == 0 || (ch == '\n') != (before != 0) {
			return f
		}
		before = 0
		if ch == '\r' {
			before = 0x80
		}
		all |= uint64(ch)
	}
	return findings{clean: true, has8: all&tops != 0, cr: before != 0}
}

// zeros has 0x80 in each byte that is 0 in x, and 0 elsewhere.
func zeros(x uint64) uint64 { return ^((x&lows + lows) | x | lows) }

// firstFault tells what is wrong first in a piece that scan found not clean.
func firstFault(b []byte, cr bool) error {
	for _, ch := range b {
		switch {
		case ch == 0:
			return refuseNUL
		case cr != (ch == '\n'):
			return refuseBareEOL
		}
		cr = ch == '\r'
	}
	return refuseInternal // not reached: scan and this loop know the same faults
}
