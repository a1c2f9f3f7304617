package relay

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Octets of the buffers of an input. An idle connection has only the smallest.
const (
	smallBuffer = 4 << 10
	bufferSize  = 16 << 10 // holds the longest line that we take
	largeBuffer = 64 << 10 // for bodies
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// input is what the client has sent and nobody has taken yet.
type input struct {
	src   io.Reader
	buf   []byte // small, large, or one for a long line
	r, w  int    // buf[r:w] is unread
	small *[smallBuffer]byte
	large *[largeBuffer]byte // nil = not in use
}

func newInput(src io.Reader) *input {
	in := &input{src: src, small: smallBuffers.Get().(*[smallBuffer]byte)}
	in.buf = in.small[:]
	return in
}

// unread is what can be taken without a wait, valid until more is called.
func (in *input) unread() []byte { return in.buf[in.r:in.w] }

// take removes n octets of what is unread.
func (in *input) take(n int) {
	in.r += n
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
}

var errFull = errors.New("the buffer is full")

// more waits for at least one more octet.
func (in *input) more() error {
	if in.w == len(in.buf) {
		if in.r == 0 {
			return errFull
		}
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for range 100 {
		n, err := in.src.Read(in.buf[in.w:])
		in.w += n
		if n > 0 {
			return nil // an error comes again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// enlarge takes the large buffer for a body.
func (in *input) enlarge() {
	if in.large == nil {
		in.large = largeBuffers.Get().(*[largeBuffer]byte)
		in.swap(in.large[:])
	}
}

// shrink goes back to the small buffer if what is unread leaves room in it.
func (in *input) shrink() {
	if len(in.buf) != smallBuffer && in.w-in.r < smallBuffer {
		in.swap(in.small[:])
		in.freeLarge()
	}
}

func (in *input) freeLarge() {
	if in.large != nil {
		largeBuffers.Put(in.large)
		in.large = nil
	}
}

// free gives all buffers back. The input is empty then, and takes nothing.
func (in *input) free() {
	in.freeLarge()
	smallBuffers.Put(in.small)
	in.small, in.buf, in.r, in.w = nil, nil, 0, 0
}

func (in *input) swap(buf []byte) {
	in.w = copy(buf, in.unread())
	in.buf, in.r = buf, 0
}

var errLongLine = errors.New("line too long")

// line waits for a line and takes it. It is valid until more is called. see
// looks at the first octet as soon as it is there: there may come no LF.
func (in *input) line(see func(first byte) error) ([]byte, error) {
	seen := 0
	for {
		b := in.unread()
		if len(b) > 0 && seen == 0 {
			if err := see(b[0]); err != nil {
				return nil, err
			}
		}
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			n := seen + i + 1
			if n > bufferSize {
				return nil, errLongLine
			}
			in.take(n)
			return b[:n], nil
		}
		if seen = len(b); seen >= bufferSize {
			return nil, errLongLine
		}
		if seen == len(in.buf) {
			in.swap(make([]byte, bufferSize))
		}
		if err := in.more(); err != nil {
			return nil, err
		}
	}
}

// hasLine tells whether a whole line is there.
func (in *input) hasLine() bool { return bytes.IndexByte(in.unread(), '\n') >= 0 }
