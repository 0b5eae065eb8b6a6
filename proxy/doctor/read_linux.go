package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

func (r *Readings) readSystem() {
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	r.Ring = uring.Survey()
	r.readBlocks()
	r.Calls = tryCalls()
	r.readLimits()
	r.readCPUs()
	r.Somaxconn = number("/proc/sys/net/core/somaxconn")
	if fields := strings.Fields(text("/proc/sys/net/ipv4/ip_local_port_range")); len(fields) == 2 {
		r.PortFirst, _ = strconv.Atoi(fields[0])
		r.PortLast, _ = strconv.Atoi(fields[1])
	}
	r.TimeWaitReuse = text("/proc/sys/net/ipv4/tcp_tw_reuse")
	r.ConntrackCount = number("/proc/sys/net/netfilter/nf_conntrack_count")
	r.ConntrackMax = number("/proc/sys/net/netfilter/nf_conntrack_max")
	var clock unix.Timex
	if _, err := unix.Adjtimex(&clock); err == nil {
		r.Unsynchronised = clock.Status&unix.STA_UNSYNC != 0
	}
}

// text is the content of a small file, or "".
func text(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(content), "\x00\n"))
}

func number(file string) int {
	n, err := strconv.Atoi(text(file))
	if err != nil {
		return -1
	}
	return n
}

func (r *Readings) readBlocks() {
	for line := range strings.Lines(text("/proc/self/status")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "Seccomp":
			r.Seccomp, _ = strconv.Atoi(value)
		case "CapEff":
			caps, _ := strconv.ParseUint(value, 16, 64)
			r.SysAdmin = caps&(1<<unix.CAP_SYS_ADMIN) != 0
		}
	}
	r.RingDisabled = text("/proc/sys/kernel/io_uring_disabled")
	r.RingGroup = text("/proc/sys/kernel/io_uring_group")
	r.Groups, _ = os.Getgroups()
	r.Groups = append(r.Groups, os.Getegid())
	r.Modules = text("/sys/kernel/security/lsm")
	if profile := text("/proc/self/attr/apparmor/current"); profile != "" && profile != "unconfined" {
		r.Confined = "AppArmor profile " + profile
	}
	if enforce := text("/sys/fs/selinux/enforce"); enforce == "1" {
		r.Confined = "SELinux enforces, " + text("/proc/self/attr/current")
	}
}

func (r *Readings) readLimits() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil {
		r.OpenSoft, r.OpenHard = int64(limit.Cur), int64(limit.Max)
	}
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err == nil {
		r.LockedSoft = int64(limit.Cur)
	}
}

func (r *Readings) readCPUs() {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil {
		r.CPUs = set.Count()
	}
	if n := countList(text("/sys/devices/system/cpu/online")); n > 0 {
		r.Online = n
	}
	r.Quota, r.QuotaFrom = quota("/proc/self/cgroup", "/sys/fs/cgroup")
}

// countList counts what the kernel writes as 0-3,8.
func countList(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, several := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			return 0
		}
		to := from
		if several {
			to, _ = strconv.Atoi(last)
		}
		n += to - from + 1
	}
	return n
}

// quota is the least share of CPU time, in CPUs, of the cgroups that the process is
// in, of version 2 or 1.
func quota(membership, root string) (least float64, from string) {
	note := func(file string, cpus float64) {
		if cpus > 0 && (least == 0 || cpus < least) {
			least, from = cpus, file
		}
	}
	for line := range strings.Lines(text(membership)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		second := parts[0] == "0" && parts[1] == ""
		first := strings.Contains(","+parts[1]+",", ",cpu,")
		// A container sees its own cgroup at the root, whatever its path says.
		for path := parts[2]; ; path = filepath.Dir(path) {
			if second {
				file := filepath.Join(root, path, "cpu.max")
				note(file, quotient(strings.Fields(text(file))))
			}
			if first {
				folder := filepath.Join(root, parts[1], path)
				file := filepath.Join(folder, "cpu.cfs_quota_us")
				note(file, quotient([]string{text(file), text(filepath.Join(folder, "cpu.cfs_period_us"))}))
			}
			if path == "/" || path == "." {
				break
			}
		}
	}
	return least, from
}

// quotient is time by period; 0 for "max", -1 or nothing.
func quotient(fields []string) float64 {
	if len(fields) != 2 {
		return 0
	}
	run, err := strconv.ParseFloat(fields[0], 64)
	period, wrong := strconv.ParseFloat(fields[1], 64)
	if err != nil || wrong != nil || run <= 0 || period <= 0 {
		return 0
	}
	return run / period
}

// tryCalls tries what Atlas uses besides io_uring.
func tryCalls() []Call {
	return []Call{
		{Name: "SO_REUSEPORT", Since: "3.9", Err: tryReusePort(), Costs: "workers cannot have listeners of their own"},
		{Name: "splice", Since: "2.6.30", Err: trySplice(), Costs: "tunnels copy bytes through memory of the process"},
		{Name: "openat2", Since: "5.6", Err: tryOpenat2(), Costs: "each folder of a file's path is opened on its own"},
		{Name: "eventfd", Since: "2.6.27", Err: tryEventfd(), Costs: "workers cannot wake one another"},
	}
}

func tryReusePort() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1), unix.Close(fd))
}

// trySplice moves a byte from a socket to a pipe.
func trySplice() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("pipe2: %w", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	if _, err := unix.Write(pair[1], []byte("x")); err != nil {
		return err
	}
	_, err = unix.Splice(pair[0], nil, pipe[1], nil, 1, unix.SPLICE_F_NONBLOCK)
	return err
}

func tryOpenat2() error {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func tryEventfd() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
