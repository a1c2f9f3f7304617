//go:build linux

package main

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// journal is the least that a relay must do before its 250: it appends what it
// is given to a file and syncs it, together with what else has come meanwhile.
// A server with a journal and nothing else shows what the machine allows.
type journal struct {
	file *os.File
	done chan struct{}

	mu      sync.Mutex
	more    sync.Cond // something waits, or it is over
	synced  sync.Cond
	waiting []byte
	batch   int // the one that waits
	safe    int // batches up to this one are on the disk
	err     error
	closed  bool
}

func openJournal(dir string) (*journal, error) {
	f, err := os.CreateTemp(dir, "journal-")
	if err != nil {
		return nil, err
	}
	j := &journal{file: f, done: make(chan struct{}), batch: 1}
	j.more.L, j.synced.L = &j.mu, &j.mu
	go j.run()
	return j, nil
}

// write returns when the block is on the disk.
func (j *journal) write(block []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.waiting = append(j.waiting, block...)
	mine := j.batch
	j.more.Signal()
	for j.safe < mine && j.err == nil {
		j.synced.Wait()
	}
	return j.err
}

func (j *journal) run() {
	defer close(j.done)
	var batch []byte
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		for len(j.waiting) == 0 && !j.closed {
			j.more.Wait()
		}
		if len(j.waiting) == 0 || j.err != nil {
			return
		}
		batch, j.waiting = j.waiting, batch[:0]
		this := j.batch
		j.batch++
		j.mu.Unlock()
		_, err := j.file.Write(batch)
		if err == nil {
			err = unix.Fdatasync(int(j.file.Fd()))
		}
		j.mu.Lock()
		if j.safe = this; err != nil {
			j.err = fmt.Errorf("journal: %w", err)
		}
		j.synced.Broadcast()
	}
}

// close ends it and leaves nothing behind.
func (j *journal) close() {
	j.mu.Lock()
	j.closed = true
	j.more.Signal()
	j.mu.Unlock()
	<-j.done
	j.file.Close()
	os.Remove(j.file.Name())
}
