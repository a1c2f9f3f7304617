package main

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory has the garbage collector work harder before the kernel would
// kill the process: from three quarters of what the machine, or the control
// group that the relay runs in, has. Below that nothing changes; GOMEMLIMIT in
// the environment says otherwise.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(os.DirFS("/")))
	}
}

// memoryLimit is three quarters of the least that is found; without any, none.
func memoryLimit(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	note := func(n int64, err error) {
		if err == nil && n > 0 {
			least = min(least, n/4*3)
		}
	}
	note(memTotal(root))
	own, _ := fs.ReadFile(root, "proc/self/cgroup") // version 2: "0::/system.slice/srvrelay.service"
	for line := range strings.Lines(string(own)) {
		group, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ; found; group = path.Dir(group) { // a group above may have less
			text, err := fs.ReadFile(root, path.Join("sys/fs/cgroup", path.Clean("/"+group), "memory.max"))
			if err == nil { // "max" is no number, and no limit
				note(strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64))
			}
			found = group != "/" && group != "."
		}
	}
	return least
}

// memTotal is the memory of the machine, in bytes.
func memTotal(root fs.FS) (int64, error) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fs.ErrNotExist
}
