package main

import (
	"math"
	"testing"
	"testing/fstest"
)

// TestMemoryLimit: the least of machine, own group and those above it counts.
func TestMemoryLimit(t *testing.T) {
	const mib = 1 << 20
	machine := map[string]string{"proc/meminfo": "MemFree: 1 kB\nMemTotal:      524288 kB\n"}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing is known", nil, math.MaxInt64},
		{"a machine", machine, 384 * mib},
		{"a group without a limit", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 384 * mib},
		{"its own group", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "134217728\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 96 * mib},
		{"a group above", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "134217728\n"}, 96 * mib},
		{"a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"}, 192 * mib},
		{"more than the machine has", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "999999999999\n"}, 384 * mib},
		{"nonsense", map[string]string{"proc/self/cgroup": "0::../..\n1:name=x:/y\n", "sys/fs/cgroup/memory.max": "-1\n"}, 384 * mib},
	} {
		root := fstest.MapFS{}
		for _, files := range []map[string]string{machine, c.files} {
			for name, text := range files {
				if c.files != nil {
					root[name] = &fstest.MapFile{Data: []byte(text)}
				}
			}
		}
		if got := memoryLimit(root); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}
