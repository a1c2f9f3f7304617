package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"srvrelay/relay/config"
)

const (
	syncs      = 20
	slowSync   = 100 * time.Millisecond // a message waits for one before its 250
	fewFiles   = 1000                   // inodes
	roomToMove = 3                      // times min_free
	tempPrefix = ".doctor-"             // of the file that is written to measure
)

// checkDisk looks at the file system below the queue.
func checkDisk(_ context.Context, e *Env) []Finding {
	dir := existing(e.Config.DataDir)
	d, err := e.Machine.Disk(dir)
	if err != nil {
		return []Finding{skipped("the file system of %s: %v", dir, err)}
	}
	found := slices.Concat(space(d, dir, e.Config.Limits.MinFree), kind(d, dir)) // what stops mail now comes first
	if dir != e.Config.DataDir {
		return append(found, skipped("how fast %s writes: it does not exist yet", e.Config.DataDir))
	}
	times, err := measure(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return append(found, Finding{
			Level: Skipped, What: fmt.Sprintf("how fast %s writes: %s may not write there", dir, userName(e.Machine.UID)), Fix: "sudo srvrelay doctor",
		})
	case err != nil:
		return append(found, Finding{
			Level: Error, What: fmt.Sprintf("%s cannot be written to: %v", dir, err), Why: "No mail is taken that cannot be stored.",
			Fix: "df -h " + dir + "; mount | grep ' ro'",
		})
	}
	return append(found, speed(times, dir))
}

// existing is the folder, or the closest one above it that there is.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func kind(d Disk, dir string) []Finding {
	f := Finding{What: fmt.Sprintf("%s is on %s", dir, d.Kind)}
	switch d.Kind {
	case "":
		return nil
	case "tmpfs", "ramfs":
		f.Level, f.Why = Error, "That is memory: accepted mail is gone after a restart of the machine."
		f.Fix = "set data_dir to a folder on a disk, such as /var/lib/srvrelay"
	case "overlay":
		f.Level, f.Why = Warning, "That is a container's own layer: accepted mail is gone when the container is removed."
		f.Fix = "docker run -v srvrelay:" + dir + " ...   # or a volume in docker-compose.yml"
	default:
		f.Level, f.Why = Warning, "Its syncs and locks go over the network or through another program; a 250 may promise more than it keeps."
		f.Fix = "set data_dir to a folder on a local disk"
	}
	return []Finding{f}
}

func space(d Disk, dir string, minFree int64) []Finding {
	size := config.FormatSize
	least := fmt.Sprintf("new mail is refused (452) below limits.min_free, %s", size(minFree))
	switch {
	case d.Free < minFree:
		return []Finding{{Level: Error, What: fmt.Sprintf("no new mail is taken: %s free in %s", mebibytes(d.Free), dir),
			Why: least + ".", Fix: fmt.Sprintf("du -xh --max-depth=2 %s | sort -h | tail   # what takes the space?", dir)}}
	case d.CountFiles && d.FreeFiles < fewFiles:
		return []Finding{{Level: Error, What: fmt.Sprintf("the file system of %s has %d inodes left", dir, d.FreeFiles),
			Why: "Without them no file can be made, whatever the free space.", Fix: "df -i " + dir}}
	case d.Free < roomToMove*minFree:
		return []Finding{{Level: Warning, What: fmt.Sprintf("%s free in %s", mebibytes(d.Free), dir),
			Why: least + ".", Fix: fmt.Sprintf("du -xh --max-depth=2 %s | sort -h | tail   # what takes the space?", dir)}}
	}
	return []Finding{ok("%s free in %s", mebibytes(d.Free), dir)}
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// measure times small writes with a sync, as the queue makes one before each
// 250 (or before several, when mail comes in at the same time).
func measure(dir string) ([]time.Duration, error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	times := make([]time.Duration, 0, syncs)
	for range syncs {
		begin := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin))
	}
	return times, nil
}

func speed(times []time.Duration, dir string) Finding {
	slices.Sort(times)
	median, worst := times[len(times)/2], times[len(times)-1]
	f := ok("a sync in %s takes %s, at worst %s: %d messages a second one after the other, more side by side",
		dir, rounded(median), rounded(worst), max(1, int(time.Second/max(median, 1))))
	if median > slowSync || worst > 10*slowSync {
		f.Level = Warning
		f.Why = "Each client waits for a sync before its 250; slow ones make clients queue up, or give up."
		f.Fix = "iostat -x 1   # is the disk busy with something else?"
	}
	return f
}

func rounded(d time.Duration) time.Duration {
	if d > time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
