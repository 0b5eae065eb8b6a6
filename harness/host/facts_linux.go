package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// facts returns what Linux exposes.
func facts() []Fact {
	var uts unix.Utsname
	_ = unix.Uname(&uts) // cannot fail: the buffer is ours
	list := []Fact{
		{"kernel", unix.ByteSliceToString(uts.Release[:])},
		{"cpu", cpuField("model name")},
		{"microcode", cpuField("microcode")},
		{"hypervisor", hypervisor()},
		{"mitigations", mitigations()},
		{"governor", orNotExposed(readLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))},
		{"io-uring", IOURing()},
		{"thp", bracketed(readLine("/sys/kernel/mm/transparent_hugepage/enabled"))},
		{"clocksource", readLine("/sys/devices/system/clocksource/clocksource0/current_clocksource")},
		{"cpu-max", readLine("/sys/fs/cgroup/cpu.max")},
		{"seccomp", statusField("Seccomp")},
		{"somaxconn", readLine("/proc/sys/net/core/somaxconn")},
		{"congestion", readLine("/proc/sys/net/ipv4/tcp_congestion_control")},
		{"nofile", limit(unix.RLIMIT_NOFILE)},
		{"memlock", limit(unix.RLIMIT_MEMLOCK)},
		{"loadavg", readLine("/proc/loadavg")},
		{"pressure", readLine("/proc/pressure/cpu")},
	}
	var known []Fact
	for _, f := range list {
		if f.Value != "" {
			known = append(known, f)
		}
	}
	return known
}

// cpuField returns one field of the first core in /proc/cpuinfo.
func cpuField(name string) string {
	return field("/proc/cpuinfo", name)
}

// statusField returns one field of this process's status.
func statusField(name string) string {
	return field("/proc/self/status", name)
}

// field returns the value of the first "name : value" line of a file.
func field(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func hypervisor() string {
	if vendor := readLine("/sys/devices/virtual/dmi/id/sys_vendor"); vendor != "" {
		return vendor
	}
	if strings.Contains(cpuField("flags"), "hypervisor") {
		return "yes, unnamed"
	}
	return "none seen"
}

// mitigations returns the vulnerabilities the kernel works around, which cost
// every syscall.
func mitigations() string {
	files, err := filepath.Glob("/sys/devices/system/cpu/vulnerabilities/*")
	if err != nil {
		return ""
	}
	var active []string
	for _, file := range files {
		if strings.HasPrefix(readLine(file), "Mitigation") {
			active = append(active, filepath.Base(file))
		}
	}
	if len(active) == 0 {
		return "none"
	}
	return strings.Join(active, " ")
}

// IOURing says whether this process may use io_uring: "available", or why not.
// The kernel looks at permission first, and at the parameters, here a nil
// pointer, afterwards.
func IOURing() string {
	_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	switch {
	case errors.Is(errno, unix.EPERM):
		return "forbidden (EPERM: a container's seccomp profile or kernel.io_uring_disabled)"
	case errors.Is(errno, unix.ENOSYS):
		return "missing (ENOSYS: an old kernel, or Podman's seccomp profile)"
	}
	return "available"
}

// bracketed returns the chosen word of "always [madvise] never".
func bracketed(s string) string {
	_, rest, _ := strings.Cut(s, "[")
	word, _, _ := strings.Cut(rest, "]")
	return word
}

func orNotExposed(s string) string {
	if s == "" {
		return "not exposed"
	}
	return s
}

func limit(resource int) string {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return ""
	}
	if r.Cur == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return strconv.FormatUint(r.Cur, 10)
}

const (
	noiseWindow = 300 * time.Millisecond
	// noiseCores of work by others make a run's ranges wide.
	noiseCores = 0.25
	// ticksPerSecond is USER_HZ, the same everywhere whatever the kernel's HZ.
	ticksPerSecond = 100
)

// Noise watches the machine for a moment, while the caller does nothing, and
// says in one line if others are busy on it. It returns "" if it is quiet.
func Noise() string {
	before, began := busyTicks(), time.Now()
	time.Sleep(noiseWindow)
	cores := float64(busyTicks()-before) / ticksPerSecond / time.Since(began).Seconds()
	if cores < noiseCores {
		return ""
	}
	return fmt.Sprintf("others keep %.1f cores of this machine busy: "+
		"expect wide ranges, trust the paired ratios", cores)
}

// busyTicks returns how long all cores have worked, in ticks.
func busyTicks() int64 {
	const idle, iowait, guest = 3, 4, 8 // guest time is in user already
	busy := int64(0)
	for i, word := range strings.Fields(strings.TrimPrefix(readLine("/proc/stat"), "cpu ")) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || i == guest {
			break
		}
		if i != idle && i != iowait {
			busy += n
		}
	}
	return busy
}
