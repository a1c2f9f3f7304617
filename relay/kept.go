package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxKeptFile bounds the files that readKept reads, in bytes.
const maxKeptFile = 64 << 20

// readKept reads a small file of JSON that replaceFile has written; into has a
// field "format", which must be the one that is known. A file that is not there
// leaves into as it is.
func readKept(path string, format int, into any) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeptFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxKeptFile {
		return errors.New("it is too large")
	}
	var head struct{ Format int }
	if err := json.Unmarshal(text, &head); err != nil {
		return err
	}
	if head.Format != format {
		return fmt.Errorf("its format %d is not known", head.Format)
	}
	return json.Unmarshal(text, into)
}

// writeKept writes what readKept reads, whole or not at all.
func writeKept(path string, file any) error {
	text, err := json.Marshal(file)
	if err != nil {
		return err
	}
	return replaceFile(path, text)
}
