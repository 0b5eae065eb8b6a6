package host

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Meter reads the CPU time and the memory of a process and of those it had started when the
// meter was made (nginx: the master and its workers).
type Meter struct {
	pids []int
}

// NewMeter finds pid and its descendants.
func NewMeter(pid int) (Meter, error) {
	parents, err := parentsOf()
	if err != nil {
		return Meter{}, err
	}
	pids := []int{pid}
	for i := 0; i < len(pids); i++ { // grows while it is walked
		for child, parent := range parents {
			if parent == pids[i] && !slices.Contains(pids, child) {
				pids = append(pids, child)
			}
		}
	}
	return Meter{pids: pids}, nil
}

// CPU returns user and system time of all threads, living and dead, in
// nanoseconds. A process that is running at this moment on another core may
// be up to a scheduler tick (4 ms) behind: read when it is idle, or over a
// second or more. A process that has ended is an error.
func (m Meter) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range m.pids {
		var ts unix.Timespec
		// The clock id of another process, as clock_getcpuclockid(3) builds
		// it: 2 is CPUCLOCK_SCHED. /proc/PID/stat would count in 10 ms ticks,
		// and the schedstat of tasks forgets threads that ended.
		if err := unix.ClockGettime(int32((^pid)<<3|2), &ts); err != nil {
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// Resident returns the bytes of memory that are in RAM for the processes. What
// several of them share counts once for each.
func (m Meter) Resident() (int64, error) {
	var sum int64
	for _, pid := range m.pids {
		text := strings.TrimSuffix(field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"), " kB")
		kB, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("resident memory of process %d: %w", pid, err)
		}
		sum += kB << 10
	}
	return sum, nil
}

// SelfCPU returns the CPU time of this process.
func SelfCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0 // cannot fail: the clock id is a constant the kernel always has
	}
	return time.Duration(ts.Nano())
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
