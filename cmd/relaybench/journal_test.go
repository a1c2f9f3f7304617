//go:build linux

package main

import (
	"os"
	"strings"
	"sync"
	"testing"
)

// TestJournal: what write has returned for is in the file, whoever else wrote
// at the time; nothing is left behind; and a file that fails is told to all.
func TestJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			block := strings.Repeat(string(rune('a'+i)), 100)
			if err := j.write([]byte(block)); err != nil {
				t.Error(err)
			}
			if b, err := os.ReadFile(j.file.Name()); err != nil || !strings.Contains(string(b), block) {
				t.Errorf("not in the file after write: %v", err)
			}
		})
	}
	wg.Wait()
	j.close()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	if j, err = openJournal(dir); err != nil {
		t.Fatal(err)
	}
	j.file.Close()
	for range 2 {
		if err := j.write([]byte("x")); err == nil {
			t.Error("a file that cannot be written took a block")
		}
	}
	j.close()
}
