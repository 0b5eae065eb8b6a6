package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// CallMeter counts the system calls of processes: of the threads that they had
// when it was made, and of all threads and processes that come from those. While
// there is one, every system call on the machine takes a slower path, so nothing
// that a CPU clock says then is worth keeping.
type CallMeter struct {
	all, enters counters
}

// The tracepoint of every system call's beginning, and what it is left of it by the
// filter for io_uring_enter, whose number is the same on all processors.
const (
	callsTracepoint = "events/raw_syscalls/sys_enter/id"
	entersFilter    = "id == 426"
)

// NewCallMeter counts for pid and its descendants. Its error says what is missing
// and what to do about it.
func NewCallMeter(pid int) (*CallMeter, error) {
	id, err := tracepoint(callsTracepoint)
	if err != nil {
		return nil, fmt.Errorf("system calls cannot be counted: %w", err)
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id}
	m := &CallMeter{}
	if m.all, err = openCounters(pid, attr, ""); err == nil {
		m.enters, err = openCounters(pid, attr, entersFilter)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("system calls cannot be counted: %w", err), m.Close())
	}
	return m, nil
}

// Read returns the calls since the meter was made. What threads are doing at this
// moment is in it.
func (m *CallMeter) Read() (Calls, error) {
	all, err := m.all.read()
	if err != nil {
		return Calls{}, err
	}
	enters, err := m.enters.read()
	return Calls{All: all, Enters: enters}, err
}

// Close ends the counting.
func (m *CallMeter) Close() error {
	return errors.Join(m.all.close(), m.enters.close())
}

// CallsCounted says whether system calls can be counted here: nil, or what is
// missing and what to do about it. It tries, as too many settings have a say.
func CallsCounted() error {
	m, err := NewCallMeter(os.Getpid())
	if err != nil {
		return err
	}
	return m.Close()
}

// tracefsPath is where distributions mount the file system of tracepoints.
const tracefsPath = "/sys/kernel/tracing"

// tracepoint reads a file of tracefs with the id of a tracepoint, which changes
// from kernel to kernel.
func tracepoint(file string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(tracefsPath, file))
	if errors.Is(err, os.ErrNotExist) { // not mounted, as in containers and on small machines
		text, err = readTracefs(file)
	}
	if errors.Is(err, os.ErrPermission) {
		return 0, fmt.Errorf("the id of a tracepoint is in tracefs, which is root's (%w): run it as root", err)
	}
	if err != nil {
		return 0, fmt.Errorf("this kernel has no tracepoints, or hides them: %w", err)
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
}

// readTracefs reads a file of a tracefs that is mounted for this moment, at no path
// and so for nobody else.
func readTracefs(file string) ([]byte, error) {
	system, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, &os.PathError{Op: "fsopen", Path: "tracefs", Err: err}
	}
	defer unix.Close(system)
	if err := unix.FsconfigCreate(system); err != nil {
		return nil, &os.PathError{Op: "fsconfig", Path: "tracefs", Err: err}
	}
	mount, err := unix.Fsmount(system, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, &os.PathError{Op: "fsmount", Path: "tracefs", Err: err}
	}
	defer unix.Close(mount)
	opened, err := unix.Openat(mount, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "tracefs:" + file, Err: err}
	}
	content := os.NewFile(uintptr(opened), "tracefs:"+file)
	defer content.Close()
	return io.ReadAll(content)
}

// counters are one performance event of several threads.
type counters []int

// openTries bounds how often threads are listed anew, because some were born
// meanwhile.
const openTries = 100

// openCounters opens an event for each thread of pid and of its descendants. Later
// ones inherit it of the thread that bears them, so it must be known of each whether
// it was there: a listing that is the same before and after means that none was born
// in between, and otherwise all begins again.
func openCounters(pid int, attr unix.PerfEventAttr, filter string) (counters, error) {
	attr.Size = unix.PERF_ATTR_SIZE_VER0 // of what is set here
	attr.Bits = unix.PerfBitInherit
	for range openTries {
		before, err := threadsOf(pid)
		if err != nil {
			return nil, err
		}
		c, err := openEach(before, attr, filter)
		if err != nil {
			return nil, err
		}
		after, err := threadsOf(pid)
		if err == nil && slices.Equal(before, after) {
			return c, nil
		}
		if err := errors.Join(err, c.close()); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("process %d has other threads each time that one looks", pid)
}

func openEach(threads []int, attr unix.PerfEventAttr, filter string) (counters, error) {
	var c counters
	for _, thread := range threads {
		fd, err := unix.PerfEventOpen(&attr, thread, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ESRCH) {
			continue // it has ended: the next listing differs
		}
		if err != nil {
			return nil, errors.Join(explainPerf(err), c.close())
		}
		c = append(c, fd)
		if filter == "" {
			continue
		}
		if err := setFilter(fd, filter); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

// setFilter gives a tracepoint's event a filter. x/sys has no ioctl that takes a
// text, but one that takes the name of a network interface: 16 bytes that end with a
// zero, which is all that the kernel looks at here.
func setFilter(fd int, filter string) error {
	text, err := unix.NewIfreq(filter)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.PERF_EVENT_IOC_SET_FILTER, text)
	}
	if err != nil {
		return fmt.Errorf("filter %q of a tracepoint: %w", filter, err)
	}
	return nil
}

// explainPerf says what to do about an error of perf_event_open.
func explainPerf(err error) error {
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("perf_event_open: %w: run it as root, or with CAP_PERFMON "+
			"(a container's seccomp profile forbids it, too)", err)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("perf_event_open: %w: the kernel was built without CONFIG_PERF_EVENTS, "+
			"or a container's seccomp profile hides it", err)
	case errors.Is(err, unix.EMFILE):
		return fmt.Errorf("perf_event_open: %w: raise `ulimit -n`", err)
	}
	return fmt.Errorf("perf_event_open: %w", err)
}

// read returns the sum, of threads that have ended as well.
func (c counters) read() (uint64, error) {
	var sum uint64
	for _, fd := range c {
		var count [8]byte
		n, err := unix.Read(fd, count[:])
		if err == nil && n != len(count) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, fmt.Errorf("read a performance event: %w", err)
		}
		sum += binary.NativeEndian.Uint64(count[:])
	}
	return sum, nil
}

func (c counters) close() error {
	var err error
	for _, fd := range c {
		err = errors.Join(err, unix.Close(fd))
	}
	return err
}

// threadsOf returns the threads of pid and of its descendants, sorted.
func threadsOf(pid int) ([]int, error) {
	pids, err := familyOf(pid)
	if err != nil {
		return nil, err
	}
	threads := map[int]bool{}
	for _, pid := range pids {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue // a descendant that has ended
		}
		for _, task := range tasks {
			if thread, err := strconv.Atoi(task.Name()); err == nil {
				threads[thread] = true
			}
		}
	}
	if len(threads) == 0 {
		return nil, fmt.Errorf("threads of process %d: it has ended", pid)
	}
	return slices.Sorted(maps.Keys(threads)), nil
}
