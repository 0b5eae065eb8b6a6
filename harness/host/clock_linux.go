package host

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Meter reads the CPU time and the memory of a process and of those it had started when the
// meter was made (nginx: the master and its workers). The zero Meter is of none: its
// readings are ErrNoProcess.
type Meter struct {
	pids []int
}

// NewMeter finds pid and its descendants.
func NewMeter(pid int) (Meter, error) {
	pids, err := familyOf(pid)
	return Meter{pids: pids}, err
}

// CPU returns user and system time of all threads, living and dead, in
// nanoseconds. A process that is running at this moment on another core may
// be up to a scheduler tick (4 ms) behind: read when it is idle, or over a
// second or more. A process that has ended is an error.
func (m Meter) CPU() (time.Duration, error) {
	if len(m.pids) == 0 {
		return 0, ErrNoProcess
	}
	var sum time.Duration
	for _, pid := range m.pids {
		var ts unix.Timespec
		// The clock id of another process, as clock_getcpuclockid(3) builds
		// it: 2 is CPUCLOCK_SCHED. /proc/PID/stat would count in 10 ms ticks,
		// and the schedstat of tasks forgets threads that ended.
		err := unix.ClockGettime(int32((^pid)<<3|2), &ts)
		if errors.Is(err, unix.EINVAL) {
			return 0, fmt.Errorf("CPU clock of process %d: there is no such process", pid)
		}
		if err != nil {
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// Kernel returns the part of CPU that was spent in the kernel, by the ticks of 10 ms
// that it counts in.
func (m Meter) Kernel() (time.Duration, error) {
	if len(m.pids) == 0 {
		return 0, ErrNoProcess
	}
	var ticks int64
	for _, pid := range m.pids {
		stat := readLine(fmt.Sprintf("/proc/%d/stat", pid))
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		const stime = 12 // the 15th of proc_pid_stat(5)
		if len(fields) <= stime {
			return 0, fmt.Errorf("CPU time of process %d: it has ended", pid)
		}
		own, err := strconv.ParseInt(fields[stime], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
		}
		ticks += own
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// Resident returns the bytes of memory that are in RAM for the processes. What
// several of them share counts once for each.
func (m Meter) Resident() (int64, error) { return m.memory("VmRSS") }

// Peak returns the most that Resident has been of each process since its start.
func (m Meter) Peak() (int64, error) { return m.memory("VmHWM") }

// memory adds up a line of proc_pid_status(5).
func (m Meter) memory(line string) (int64, error) {
	if len(m.pids) == 0 {
		return 0, ErrNoProcess
	}
	var sum int64
	for _, pid := range m.pids {
		text := strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), line), " kB")
		kB, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("resident memory of process %d: %w", pid, err)
		}
		sum += kB << 10
	}
	return sum, nil
}

// Limits returns how many bytes this process may lock in memory and how many files
// it may open, by its hard limits.
func Limits() (memlock, files uint64) {
	hard := func(resource int) uint64 {
		var limit unix.Rlimit
		if err := unix.Getrlimit(resource, &limit); err != nil {
			return math.MaxUint64 // cannot fail: the kernel has both
		}
		return limit.Max
	}
	return hard(unix.RLIMIT_MEMLOCK), hard(unix.RLIMIT_NOFILE)
}

// RaiseFiles lets this process and its children open as many files as its hard
// limit says, and if that is less than wanted and this process may raise it
// (CAP_SYS_RESOURCE, up to fs.nr_open), so many. A program in Go does the first by
// itself, and its children do not get it.
func RaiseFiles(wanted uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	more := max(wanted, limit.Max)
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: more, Max: more}) == nil {
		return nil
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// portsUsual are those of a kernel whose range nobody changed.
const portsUsual = 60999 - 32768 + 1

// Ports returns how many connections to one address and port there can be: as many
// as the kernel has local ports to choose from.
func Ports() int {
	bounds := strings.Fields(readLine("/proc/sys/net/ipv4/ip_local_port_range"))
	if len(bounds) != 2 {
		return portsUsual
	}
	first, err := strconv.Atoi(bounds[0])
	last, errLast := strconv.Atoi(bounds[1])
	if err != nil || errLast != nil {
		return portsUsual
	}
	return last - first + 1
}

// SelfCPU returns the CPU time of this process.
func SelfCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0 // cannot fail: the clock id is a constant the kernel always has
	}
	return time.Duration(ts.Nano())
}

// familyOf returns pid and its descendants.
func familyOf(pid int) ([]int, error) {
	parents, err := parentsOf()
	if err != nil {
		return nil, err
	}
	pids := []int{pid}
	for i := 0; i < len(pids); i++ { // grows while it is walked
		for child, parent := range parents {
			if parent == pids[i] && !slices.Contains(pids, child) {
				pids = append(pids, child)
			}
		}
	}
	return pids, nil
}

// parentsOf returns the parent of every process.
func parentsOf() (map[int]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents := make(map[int]int)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // not a process
		}
		// "pid (name) state ppid ...", where the name may hold anything.
		stat := readLine("/proc/" + entry.Name() + "/stat")
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue // it has ended meanwhile
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			parents[pid] = parent
		}
	}
	return parents, nil
}

// SleepUntil blocks the calling thread until t, exact to a few microseconds.
// time.Sleep would wait in epoll, which on an idle runtime rounds up to a
// millisecond.
func SleepUntil(t time.Time) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The kernel gathers the timers of a thread within its slack, which is 50
	// microseconds unless told otherwise; 0 restores that. Only precision is
	// lost should it refuse.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for left := time.Until(t); left > 0; left = time.Until(t) {
		ts := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&ts, nil) // EINTR only: the loop looks at the clock again
	}
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
}
