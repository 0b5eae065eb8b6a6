package uring

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	abi "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// The kernel features that Ring is built on. A kernel either has all of them
// or the proxy runs on the netpoll engine: half a ring would be a third engine.
//
//	IORING_SETUP_SINGLE_ISSUER   6.0   IORING_REGISTER_PBUF_RING   5.19
//	IORING_SETUP_DEFER_TASKRUN   6.1   IORING_ACCEPT_MULTISHOT     5.19
//	IORING_FEAT_EXT_ARG          5.11  IORING_RECV_MULTISHOT       6.0
//	IORING_FEAT_NODROP           5.5   IORING_ASYNC_CANCEL_FD      5.19

// Probe tries each feature on a small ring of its own and says which one is
// missing, as an *Unavailable. nil means that Ring works here.
func Probe() error {
	answer := make(chan error)
	go func() {
		// A thread of its own that ends with the goroutine: the ring's
		// issuer may not be a thread that goes on to do other work.
		runtime.LockOSThread()
		answer <- probe()
	}()
	return <-answer
}

func probe() error {
	if err := probeSetup(); err != nil {
		return err
	}
	r, err := Open(Config{Entries: 8, Completions: 16})
	if err != nil {
		return &Unavailable{Feature: "io_uring queues", Since: "6.1", Err: err, Fix: fixMemory}
	}
	err = probeReceive(r)
	return errors.Join(err, r.Close())
}

const (
	fixKernel  = "use Linux 6.1 or newer for this engine"
	fixSeccomp = "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile"
	fixSysctl  = "set sysctl kernel.io_uring_disabled to 0"
	fixMemory  = "raise the memory limit (RLIMIT_MEMLOCK or the cgroup's)"
)

// probeSetup finds out whether io_uring is there at all, is allowed, and knows
// the setup flags, from the least to the most demanding ring.
func probeSetup() error {
	for i := range setupSteps {
		if err := setupSteps[i].try(); err != nil {
			return err
		}
	}
	return nil
}

type setupStep struct {
	feature, since string
	flags          uint32
}

var setupSteps = []setupStep{
	{"io_uring_setup", "5.1", 0},
	{"IORING_SETUP_SINGLE_ISSUER", "6.0", setupSingleIssuer},
	{"IORING_SETUP_DEFER_TASKRUN", "6.1", setupSingleIssuer | setupDeferTaskrun},
	{"IORING_SETUP_SUBMIT_ALL", "5.18", setupFlags},
}

// try sets up a ring and closes it.
func (s *setupStep) try() error {
	params := abi.IOURingParams{Flags: s.flags, CQEntries: 16}
	fd, err := abi.IOURingSetup(8, &params)
	if err != nil {
		return &Unavailable{Feature: s.feature, Since: s.since, Err: err, Fix: fixFor(err)}
	}
	features := params.Features
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("uring: close probe: %w", err)
	}
	const need = featExtArg | abi.IORING_FEAT_NODROP
	if features&need != need {
		return &Unavailable{Feature: "IORING_FEAT_EXT_ARG", Since: "5.11",
			Err: fmt.Errorf("features are %#x", features), Fix: fixKernel}
	}
	return nil
}

// fixFor names the likeliest cause of a refused io_uring_setup. Docker's
// seccomp profile answers EPERM, Podman's ENOSYS; the sysctl answers EPERM.
func fixFor(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		text, readErr := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
		if value := strings.TrimSpace(string(text)); readErr == nil && value != "0" {
			return fmt.Sprintf("%s (it is %s)", fixSysctl, value)
		}
		return fixSeccomp
	case errors.Is(err, unix.ENOSYS):
		return fixKernel + ", or " + fixSeccomp
	case errors.Is(err, unix.ENOMEM):
		return fixMemory
	}
	return fixKernel
}

// probeReceive checks by doing: a multishot receive into a provided buffer
// stays armed after its first completion, and a cancel by descriptor ends it.
func probeReceive(r *Ring) error {
	bufs, err := r.ProvideBuffers(2, 64)
	if err != nil {
		return &Unavailable{Feature: "IORING_REGISTER_PBUF_RING", Since: "5.19", Err: err, Fix: fixKernel}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("uring: probe: socketpair: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if _, err := unix.Write(pair[1], []byte("x")); err != nil {
		return fmt.Errorf("uring: probe: write: %w", err)
	}
	const recv, cancel = 1, 2
	r.RecvMultishot(pair[0], recv)
	got, err := r.await()
	if err != nil || got.Result != 1 || !got.More() {
		return &Unavailable{Feature: "IORING_RECV_MULTISHOT", Since: "6.0",
			Err: fmt.Errorf("completion %+v, %v", got, err), Fix: fixKernel}
	}
	id, _ := got.Buffer()
	bufs.Take(id, 1)
	bufs.Put(id)
	r.CancelAll(pair[0], cancel)
	for range 2 { // the cancel's completion and the receive's last
		got, err = r.await()
		if err != nil || got.UserData == cancel && got.Result != 1 {
			return &Unavailable{Feature: "IORING_ASYNC_CANCEL_FD", Since: "5.19",
				Err: fmt.Errorf("completion %+v, %v", got, err), Fix: fixKernel}
		}
	}
	return nil
}

// await waits for one completion, but not for ever: a probe must not hang.
func (r *Ring) await() (Completion, error) {
	if err := r.Wait(time.Second); err != nil {
		return Completion{}, err
	}
	c, ok := r.Next()
	if !ok {
		return c, errors.New("no completion within a second")
	}
	return c, nil
}
