// Package uring drives one io_uring: it maps the queues, fills submission
// entries, enters the kernel and hands out completions.
//
// It has no policy: it does not retry, schedule, own descriptors or know what
// a connection is. That is package loop's.
//
// A Ring belongs to the thread that opened it: every method is called on that
// thread, with the goroutine locked to it, because the ring is set up with
// IORING_SETUP_SINGLE_ISSUER. Memory named by an operation (a slice, a Message)
// belongs to the kernel from the call until the operation's last completion;
// the caller keeps it reachable for that long and never passes stack memory.
//
// This is the only package of the proxy that uses unsafe. The kernel ABI comes
// from github.com/iceber/iouring-go/syscall; what that package lacks (newer
// setup flags, EXT_ARG, provided-buffer rings, multishot) stands here with the
// name it has in linux/io_uring.h.
package uring

import "fmt"

// Unavailable says which kernel feature the ring needs and cannot have.
type Unavailable struct {
	Feature string // the name in linux/io_uring.h
	Since   string // first kernel that has it
	Err     error  // what the kernel answered
	Fix     string // what the operator can do
}

func (u *Unavailable) Error() string {
	return fmt.Sprintf("io_uring unavailable: %s (Linux %s): %v; %s", u.Feature, u.Since, u.Err, u.Fix)
}

func (u *Unavailable) Unwrap() error { return u.Err }
