package smtpclient

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrBareLine is wrapped by Error.Err when a message has a CR without LF or an
// LF without CR: what servers make of those differs, so that such a message
// could end early and smuggle commands.
var ErrBareLine = errors.New("smtpclient: bare CR or LF in the message")

// blockSize, in bytes, is how much is looked at and sent at a time, so that a
// large message costs one write for each block.
const blockSize = 64 << 10

var endOfData = []byte(".\r\n")

// dotWriter doubles the dots that begin a line (RFC 5321 4.5.2), refuses bare
// CR and LF, and hands the result to block in large pieces: what needs no change
// as it came, from where it lies.
type dotWriter struct {
	block func([]byte) error
	buf   *buffer
	out   []byte // in buf: what has not been handed over, less than a block
	dots  []int  // that begin a line of the piece in hand
	text  bool   // the line has begun
	cr    bool   // the last byte was CR
	err   error  // the first one: nothing more is taken
}

// buffer has room for CRLF and the end of data after a full block.
type buffer [blockSize + 8]byte

var bufferPool = sync.Pool{New: func() any { return new(buffer) }}

func newDotWriter(block func([]byte) error) *dotWriter {
	b := bufferPool.Get().(*buffer)
	return &dotWriter{block: block, buf: b, out: b[:0]}
}

// release gives the buffer back; the writer is of no use any more.
func (w *dotWriter) release() {
	bufferPool.Put(w.buf)
	w.buf, w.out = nil, nil
}

// copyFrom takes everything that r has: by its WriteTo, if there is one.
func (w *dotWriter) copyFrom(r io.Reader) error {
	_, err := io.Copy(w, r)
	if err != nil && w.err == nil {
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return err
}

// ReadFrom implements io.ReaderFrom for bodies that are not in memory.
func (w *dotWriter) ReadFrom(r io.Reader) (read int64, err error) {
	b := bufferPool.Get().(*buffer)
	defer bufferPool.Put(b)
	for err == nil {
		var n int
		n, err = r.Read(b[:blockSize])
		read += int64(n)
		if _, werr := w.Write(b[:n]); werr != nil {
			return read, werr
		}
	}
	if err == io.EOF {
		err = nil
	}
	return read, err
}

// Write takes the next bytes of the message. None of a block leaves before all
// of it has been looked at.
func (w *dotWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0 && w.err == nil; {
		n := min(len(rest), blockSize)
		w.err = w.piece(rest[:n])
		rest = rest[n:]
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// piece passes on at most a block, with the dots doubled that begin a line.
func (w *dotWriter) piece(p []byte) error {
	if err := w.check(p); err != nil {
		return err
	}
	from := 0
	for _, dot := range w.dots {
		if err := w.put(p[from : dot+1]); err != nil {
			return err
		}
		from = dot
	}
	return w.put(p[from:])
}

// check refuses a CR or an LF on its own, finds the dots that begin a line, and
// keeps the state in step. If every LF has its CR and there are as many of one
// as of the other, then every CR has its LF.
func (w *dotWriter) check(p []byte) error {
	w.dots = w.dots[:0]
	if !w.text && p[0] == '.' {
		w.dots = append(w.dots, 0)
	}
	crs := bytes.Count(p, []byte{'\r'})
	if w.cr {
		crs++ // that of the piece before
	}
	for i := 0; ; {
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			break
		}
		i += n
		if i == 0 && !w.cr || i > 0 && p[i-1] != '\r' {
			return ErrBareLine
		}
		crs--
		if i++; i < len(p) && p[i] == '.' {
			w.dots = append(w.dots, i)
		}
	}
	last := p[len(p)-1]
	if w.cr = last == '\r'; w.cr {
		crs-- // its LF is to come
	}
	w.text = last != '\n'
	if crs != 0 {
		return ErrBareLine
	}
	return nil
}

// put hands over full blocks, and keeps the rest.
func (w *dotWriter) put(p []byte) error {
	for len(w.out)+len(p) >= blockSize {
		n := blockSize - len(w.out)
		full := p[:n]
		if len(w.out) > 0 {
			full = append(w.out, full...)
		}
		if err := w.block(full); err != nil {
			return err
		}
		w.out, p = w.out[:0], p[n:]
	}
	w.out = append(w.out, p...)
	return nil
}

// end returns the last block, which carries the final dot and has not been
// handed over: the caller's state changes before it leaves.
func (w *dotWriter) end() ([]byte, error) {
	if w.err != nil { // whatever the body made of it
		return nil, w.err
	}
	if w.cr {
		return nil, ErrBareLine
	}
	if w.text {
		w.out = append(w.out, '\r', '\n')
	}
	w.out = append(w.out, endOfData...)
	return w.out, nil
}
