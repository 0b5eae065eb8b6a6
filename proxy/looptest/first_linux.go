package looptest

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// RunFirst has the kernel run the calling goroutine before anybody who is not as
// urgent, up to the end of the test (SCHED_FIFO): for who measures how long others
// take, and is not to wait for the load beside it. What it starts is not urgent.
// Without the privilege it waits for its turn, and says so.
func RunFirst(t testing.TB) {
	runtime.LockOSThread()
	usual := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	first := unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK,
	}
	if err := unix.SchedSetAttr(0, &first, 0); err != nil {
		t.Logf("measured with what the measuring waits for others: %v", err)
	}
	t.Cleanup(func() {
		_ = unix.SchedSetAttr(0, &usual, 0) // as it was if it was not to be had
		runtime.UnlockOSThread()
	})
}
