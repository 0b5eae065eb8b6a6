package looptest

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// births are the processes to start, by one thread: the kernel takes the end of the
// thread that started a process for that of its parent, and a thread ends with a
// worker that was locked to it.
var births = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range c {
			start()
		}
	}()
	return c
})

// Start starts a command that ends with this process, however that ends: a test that
// is killed leaves nothing behind.
func Start(cmd *exec.Cmd) (err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan struct{})
	births() <- func() { defer close(done); err = cmd.Start() }
	<-done
	return err
}

// KeepThread has the thread of Start there from now on: whoever counts goroutines
// does not count it as a leak.
func KeepThread() { births() }
