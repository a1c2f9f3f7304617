//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("7 (a) b (c) Z 3 5 6 0 -1 4194304 1 2 3 4 100 50 20 5 20 0 1 0 99 1 1"))
	if err != nil || s.parent != 3 || s.session != 6 || !s.zombie || s.own != 1500*time.Millisecond || s.ended != 250*time.Millisecond {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "7 (a", "7 (a) S 3", "7 (a) S 3 7 7 0 -1 4194304 1 2 3 4 x 50 20 5"} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

// TestUsageOfATree: what children use counts, while they live and when they
// have ended.
func TestUsageOfATree(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/schedstat"); err != nil {
		t.Skip(err)
	}
	before, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// It burns some CPU, by itself and in a child that ends, says so, and waits.
	cmd := exec.Command("sh", "-c", "burn() { i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; }; burn; (burn); echo done; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	ticks, err := parseStat(line)
	if err != nil || ticks.own < 2*clockTick || ticks.ended < 2*clockTick {
		t.Fatalf("it has not burned enough: %+v, %v", ticks, err)
	}
	child, err := usageOf(cmd.Process.Pid)
	if child.CPU < ticks.own+ticks.ended {
		t.Errorf("the child has used %s, by the ticks %s and %s", child.CPU, ticks.own, ticks.ended)
	}
	if err != nil || child.CPU < 10*time.Millisecond || child.Calls == 0 {
		t.Errorf("the child has used %+v, %v", child, err)
	}
	all, err := usageOf(os.Getpid())
	if used := all.since(before); err != nil || used.CPU < child.CPU {
		t.Errorf("with its living child %+v, %v; the child %+v", used, err, child)
	}
	if own, err := memoryOf(cmd.Process.Pid); err != nil || own <= 0 {
		t.Errorf("memory of the child: %d, %v", own, err)
	}
	in.Close()
	cmd.Wait() // it fails as its input has ended
	ended, err := usageOf(os.Getpid())
	if used := ended.since(before); err != nil || used.CPU < child.CPU-20*time.Millisecond { // ticks
		t.Errorf("with its child that has ended %+v, %v; the child %+v", used, err, child)
	}
	if u, err := usageOf(cmd.Process.Pid); err == nil {
		t.Errorf("of nobody: %+v", u)
	}
}

func TestTotalCalls(t *testing.T) {
	const summary = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 96.97    0.002399           4       503           fdatasync
  3.03    0.000075          25         3         1 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.002474           4       506         1 total
`
	for text, want := range map[string]int{summary: 506, "": 0} {
		if n, err := totalCalls(text); err != nil || n != want {
			t.Errorf("%d, %v; want %d", n, err, want)
		}
	}
	if n, err := totalCalls("1 2 3 four five\n"); err == nil {
		t.Errorf("%d of nonsense", n)
	}
}
