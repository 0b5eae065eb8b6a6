package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// coresKnown bounds the core numbers looked at; it is the size of unix.CPUSet.
const coresKnown = 1024

// Allowed returns the cores this process may run on, ascending.
func Allowed() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	var cores []int
	for c := range coresKnown {
		if set.IsSet(c) {
			cores = append(cores, c)
		}
	}
	return cores
}

// Siblings returns the hardware threads that share a core with one.
func Siblings(core int) []int {
	list, err := parseList(readLine(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", core)))
	if err != nil {
		return []int{core}
	}
	return list
}

// PinSelf moves every thread of this process to cores. Threads born later
// inherit it.
func PinSelf(cores []int) error {
	set := setOf(cores)
	err := ofEachThread(func(tid int) error { return unix.SchedSetaffinity(tid, &set) })
	if err != nil {
		return fmt.Errorf("pin the harness to cores %s: %w", List(cores), err)
	}
	return nil
}

// GiveWay has every thread of this process run only where no other wants to,
// those born later included.
func GiveWay() error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	err := ofEachThread(func(tid int) error { return unix.SchedSetAttr(tid, &attr, 0) })
	if err != nil {
		return fmt.Errorf("give way to other processes: %w", err)
	}
	return nil
}

// ofEachThread calls do with every thread of this process; what that sets,
// threads have to inherit.
func ofEachThread(do func(tid int) error) error {
	var seen []string
	// A thread may be born of an unpinned one while we look: repeat until a
	// pass finds nobody new.
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		fresh := false
		for _, task := range tasks {
			if slices.Contains(seen, task.Name()) {
				continue
			}
			fresh = true
			seen = append(seen, task.Name())
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return err
			}
			if err := do(tid); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if !fresh {
			return nil
		}
	}
}

// StartOn starts cmd on cores, or anywhere if there are none. The child is
// born there, so that a runtime that counts its cores at start counts these.
// It leads a process group of its own, which a Ctrl-C in the terminal does not
// reach, and the kernel ends it should the harness die.
func StartOn(cmd *exec.Cmd, cores []int) error {
	// The kernel sends Pdeathsig when the *thread* that forked ends. Go ends
	// a thread only if its goroutine returns while locked; nothing in the
	// harness does.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if len(cores) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	set := setOf(cores)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to cores %s: %w", List(cores), err)
	}
	err := cmd.Start()
	if undo := unix.SchedSetaffinity(0, &before); undo != nil && err == nil {
		return errors.Join(fmt.Errorf("restore affinity: %w", undo), cmd.Process.Kill(), cmd.Wait())
	}
	return err
}

func setOf(cores []int) unix.CPUSet {
	var set unix.CPUSet
	for _, c := range cores {
		set.Set(c)
	}
	return set
}
