package smtpclient

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// ErrBareLine is wrapped by Error.Err when a message has a CR without LF or an
// LF without CR: what servers make of those differs, so that such a message
// could end early and smuggle commands.
var ErrBareLine = errors.New("smtpclient: bare CR or LF in the message")

// Block sizes in bytes. Blocks leave when they are full, so that a large
// message costs one write for each.
const (
	blockSize = 64 << 10
	chunkSize = 32 << 10
)

var endOfData = []byte(".\r\n")

// dotWriter doubles the dots that begin a line (RFC 5321 4.5.2), refuses bare
// CR and LF, and hands the result to block in large pieces.
type dotWriter struct {
	block func([]byte) error
	buf   *buffers
	out   []byte
	text  bool // the line has begun
	cr    bool // the last byte was CR
}

type buffers struct {
	out [blockSize + 8]byte // room for CRLF and the end of data after a full block
	in  [chunkSize]byte
}

var bufferPool = sync.Pool{New: func() any { return new(buffers) }}

func newDotWriter(block func([]byte) error) *dotWriter {
	b := bufferPool.Get().(*buffers)
	return &dotWriter{block: block, buf: b, out: b.out[:0]}
}

// release gives the buffers back; the writer is of no use any more.
func (w *dotWriter) release() {
	bufferPool.Put(w.buf)
	w.buf, w.out = nil, nil
}

// copyFrom takes everything that r has.
func (w *dotWriter) copyFrom(r io.Reader) error {
	for {
		n, err := r.Read(w.buf.in[:])
		if n > 0 {
			if err := w.write(w.buf.in[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// write takes the next bytes of the message, a line or a part of one a round.
func (w *dotWriter) write(p []byte) error {
	for len(p) > 0 {
		if !w.text && p[0] == '.' {
			if err := w.append(p[:1]); err != nil {
				return err
			}
		}
		n, err := w.next(p)
		if err != nil {
			return err
		}
		if err := w.append(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// next finds the end of the line, or of what there is of it, and keeps the
// state in step. Every CR must be followed by LF, every LF preceded by CR.
func (w *dotWriter) next(p []byte) (int, error) {
	n := 0
	if !w.cr {
		n = bytes.IndexByte(p, '\r') + 1
		w.cr = n > 0
		if !w.cr {
			n = len(p)
		}
		if bytes.IndexByte(p[:n], '\n') >= 0 {
			return 0, ErrBareLine
		}
		w.text = true
	}
	if w.cr && n < len(p) {
		if p[n] != '\n' {
			return 0, ErrBareLine
		}
		w.cr, w.text = false, false
		n++
	}
	return n, nil
}

// append copies p, handing over each block that gets full.
func (w *dotWriter) append(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), blockSize-len(w.out))
		w.out = append(w.out, p[:n]...)
		p = p[n:]
		if len(w.out) == blockSize {
			if err := w.block(w.out); err != nil {
				return err
			}
			w.out = w.out[:0]
		}
	}
	return nil
}

// end returns the last block, which carries the final dot and has not been
// handed over: the caller's state changes before it leaves.
func (w *dotWriter) end() ([]byte, error) {
	if w.cr {
		return nil, ErrBareLine
	}
	if w.text {
		w.out = append(w.out, '\r', '\n')
	}
	w.out = append(w.out, endOfData...)
	return w.out, nil
}
