//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a tree of processes has used since it was started.
type usage struct {
	CPU     time.Duration // user and system, with that of children that have ended
	Written int64         // bytes that went to the disk, the same
	Calls   int64         // read and write calls and their kin, the same
}

func (u usage) since(before usage) usage {
	return usage{u.CPU - before.CPU, u.Written - before.Written, u.Calls - before.Calls}
}

// clockTick is the unit of times in /proc/PID/stat (USER_HZ, 100 wherever Go runs).
const clockTick = time.Second / 100

// procStat is a line of /proc/PID/stat.
type procStat struct {
	zombie  bool
	parent  int
	session int
	own     time.Duration // in whole ticks
	ended   time.Duration // of children that have ended and been waited for
}

// parseStat reads the parent and the times. The name, in parentheses, may
// contain anything; the fields are counted from behind it.
func parseStat(line []byte) (s procStat, err error) {
	f := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	if len(f) < 15 {
		return s, fmt.Errorf("/proc: %q has too few fields", line)
	}
	s.zombie = f[0] == "Z"
	s.parent, err = strconv.Atoi(f[1])
	if err == nil {
		s.session, err = strconv.Atoi(f[3])
	}
	for i, t := range f[11:15] { // utime, stime, cutime, cstime
		n, e := strconv.ParseInt(t, 10, 64)
		if e != nil {
			return s, fmt.Errorf("/proc: %w", e)
		}
		if i < 2 {
			s.own += time.Duration(n) * clockTick
		} else {
			s.ended += time.Duration(n) * clockTick
		}
	}
	return s, err
}

// processes are all that there are.
func processes() (map[int]procStat, error) {
	all := map[int]procStat{}
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range names {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has just ended
		}
		if all[pid], err = parseStat(line); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// tree is a process and all that descend from it, with their times.
func tree(root int) (map[int]procStat, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	if _, ok := all[root]; !ok {
		return nil, fmt.Errorf("process %d is not there", root)
	}
	children := map[int][]int{}
	for pid, s := range all {
		children[s.parent] = append(children[s.parent], pid)
	}
	found := map[int]procStat{}
	for todo := []int{root}; len(todo) > 0; todo = todo[1:] {
		found[todo[0]] = all[todo[0]]
		todo = append(todo, children[todo[0]]...)
	}
	return found, nil
}

// usageOf adds up a tree. What a process that has ended had used is with the
// one that has waited for it: its parent, or for a daemon's orphan nobody of
// the tree; Postfix has none.
func usageOf(root int) (u usage, err error) {
	pids, err := tree(root)
	if err != nil {
		return u, err
	}
	for pid, s := range pids {
		u.CPU += max(s.own, exactTime(pid)) + s.ended
		f := numbers(fmt.Sprintf("/proc/%d/io", pid))
		u.Written += f["write_bytes"]
		u.Calls += f["syscr"] + f["syscw"]
	}
	return u, nil
}

// exactTime is what the threads of a process have run, in nanoseconds. The
// ticks of /proc/PID/stat are cut off for each process: 200 of them that have
// done little would be a second short. Threads that have ended are missing
// here, and so are all where the kernel does not say; the ticks have them.
func exactTime(pid int) (sum time.Duration) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0 // it has just ended
	}
	for _, t := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if f := strings.Fields(string(text)); err == nil && len(f) > 0 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

// memoryOf is the proportional set size of a tree in bytes: what several
// processes share counts once.
func memoryOf(root int) (int64, error) {
	pids, err := tree(root)
	if err != nil {
		return 0, err
	}
	kib := int64(0)
	for pid := range pids {
		kib += numbers(fmt.Sprintf("/proc/%d/smaps_rollup", pid))["Pss"]
	}
	return kib << 10, nil
}

// numbers reads the lines "name: number" of a file. One that is not there any
// more, as its process has ended, has none.
func numbers(path string) map[string]int64 {
	all := map[string]int64{}
	f, err := os.Open(path)
	if err != nil {
		return all
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if w := strings.Fields(rest); len(w) > 0 {
			all[name], _ = strconv.ParseInt(w[0], 10, 64)
		}
	}
	return all
}

// A look at the memory comes every 200 ms, or less often where it takes long,
// as with hundreds of processes: it is to take no more than a fiftieth of the time.
const (
	samplePause = 200 * time.Millisecond
	sampleMost  = time.Second
	sampleShare = 50
)

// peakMemory looks at the memory of a tree until ctx is done, and then once more.
func peakMemory(ctx context.Context, root int) (peak int64) {
	for {
		begin := time.Now()
		if m, err := memoryOf(root); err == nil {
			peak = max(peak, m)
		}
		if ctx.Err() != nil {
			return peak
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(sampleMost, max(samplePause, sampleShare*time.Since(begin)))):
		}
	}
}
