package admin

import (
	"context"
	"io"
	"net/http"
)

// backupPath is what is refused over TCP.
const backupPath = "/backup"

// backup streams a copy of the data folder. What goes wrong after the first byte
// can only be told by an end that is no end: the client sees that the stream was
// cut off.
func (b Backend) backup(w http.ResponseWriter, r *http.Request) {
	out := &begun{ResponseWriter: w}
	w.Header().Set("Content-Type", "application/x-tar")
	switch err := b.Backup(r.Context(), out); {
	case err != nil && out.any:
		panic(http.ErrAbortHandler)
	case err != nil:
		answer(w, nil, err)
	}
}

// begun notes whether anything was written.
type begun struct {
	http.ResponseWriter
	any bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.any = true
	return b.ResponseWriter.Write(p)
}

// Backup returns a copy of the relay's data folder, as a tar stream. It is whole
// only if it ends with the record of its files.
func (c *Client) Backup(ctx context.Context) (io.ReadCloser, error) {
	return c.open(ctx, "POST", backupPath, nil)
}
