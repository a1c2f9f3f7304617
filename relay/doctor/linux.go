package doctor

import (
	"bufio"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"srvrelay/queue"
)

// Linux asks the machine that this runs on.
func Linux() Machine {
	return Machine{Addresses: addresses, Clock: clock, Disk: disk, FileLimit: fileLimit, Holder: holder, UID: os.Geteuid()}
}

func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	var out []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out, err
}

// clock asks the kernel whether something (NTP, PTP) keeps its clock. That
// needs no rights as long as nothing is set.
func clock() (synchronised bool, err error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}

// fickle are the file systems that a queue must not be on, or had better not.
var fickle = map[uint32]string{
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb",
	unix.SMB2_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p",
	unix.CEPH_SUPER_MAGIC: "ceph", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
}

func disk(path string) (Disk, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Disk{}, err
	}
	return Disk{
		Kind: fickle[uint32(s.Type)], Free: int64(s.Bavail) * int64(s.Bsize),
		FreeFiles: s.Ffree, CountFiles: s.Files > 0,
	}, nil
}

// fileLimit is how many files a process may have open. A Go program raises its
// own limit as far as it may when it starts.
func fileLimit(pid int) (uint64, error) {
	if pid == 0 {
		var l unix.Rlimit
		err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
		return l.Cur, err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Max open files"); ok {
			soft := strings.Fields(rest + " 0")[0]
			if soft == "unlimited" {
				return math.MaxUint64, nil
			}
			return strconv.ParseUint(soft, 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/limits does not say how many files may be open", pid)
}

// holder names the process that listens on a TCP port: its socket in
// /proc/net/tcp, and the process that has that socket open. Only root sees
// other people's.
func holder(port uint16) string {
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(b), "\n") {
			// sl local_address rem_address st ... inode; 0A is LISTEN
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				sockets["socket:["+f[9]+"]"] = true
			}
		}
	}
	open, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range open {
		if target, err := os.Readlink(fd); err == nil && sockets[target] {
			pid := strings.Split(fd, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return queue.Safe(fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid), 100)
		}
	}
	return ""
}
