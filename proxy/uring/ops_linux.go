package uring

import (
	"unsafe"

	abi "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// Each method queues one operation; the kernel sees it at the next enter.
// userData comes back in the operation's completions.

// AcceptMultishot accepts connections from listener fd until cancelled: one
// completion each. New descriptors are close-on-exec, because an upgraded
// child must not inherit them, and non-blocking, because sendfile and splice
// on them must not stop the thread (rule R6).
func (r *Ring) AcceptMultishot(fd int, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_ACCEPT, int32(fd), 0, 0, 0)
	sqe.SetOpFlags(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	sqe.SetIoprio(acceptMultishot)
	sqe.SetUserData(userData)
}

// Accept is AcceptMultishot for one connection.
func (r *Ring) Accept(fd int, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_ACCEPT, int32(fd), 0, 0, 0)
	sqe.SetOpFlags(unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK)
	sqe.SetUserData(userData)
}

// RecvMultishot receives into provided buffers until cancelled, ended, failed
// or out of buffers: one completion a buffer.
func (r *Ring) RecvMultishot(fd int, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_RECV, int32(fd), 0, 0, 0)
	sqe.SetIoprio(recvMultishot)
	sqe.SetFlags(abi.IOSQE_FLAGS_BUFFER_SELECT)
	sqe.SetBufGroup(bufferGroup)
	sqe.SetUserData(userData)
}

// RecvBuffer receives once into a provided buffer.
func (r *Ring) RecvBuffer(fd int, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_RECV, int32(fd), 0, 0, 0)
	sqe.SetFlags(abi.IOSQE_FLAGS_BUFFER_SELECT)
	sqe.SetBufGroup(bufferGroup)
	sqe.SetUserData(userData)
}

// Recv receives once into p, which the kernel owns until the completion.
func (r *Ring) Recv(fd int, p []byte, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_RECV, int32(fd), address(p), uint32(len(p)), 0)
	sqe.SetUserData(userData)
}

// RecvNow is Recv that does not wait: where nothing is there it completes with EAGAIN.
func (r *Ring) RecvNow(fd int, p []byte, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_RECV, int32(fd), address(p), uint32(len(p)), 0)
	sqe.SetOpFlags(unix.MSG_DONTWAIT)
	sqe.SetUserData(userData)
}

// Send sends all of p (MSG_WAITALL: without it a 16 MB send went short on
// kernel 6.18). The kernel owns p until the completion.
func (r *Ring) Send(fd int, p []byte, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_SEND, int32(fd), address(p), uint32(len(p)), 0)
	sqe.SetOpFlags(unix.MSG_WAITALL | unix.MSG_NOSIGNAL)
	sqe.SetUserData(userData)
}

// SendMessage sends all segments of m, which the kernel owns until the
// completion.
func (r *Ring) SendMessage(fd int, m *Message, userData uint64) {
	sqe := r.next()
	m.header.Iov = &m.segments[m.first]
	m.header.SetIovlen(m.count - m.first)
	// m is heap memory: the caller holds it in a struct until the completion.
	sqe.PrepOperation(abi.IORING_OP_SENDMSG, int32(fd), uint64(uintptr(unsafe.Pointer(&m.header))), 1, 0)
	sqe.SetOpFlags(unix.MSG_WAITALL | unix.MSG_NOSIGNAL)
	sqe.SetUserData(userData)
}

// Connect connects fd to the address.
func (r *Ring) Connect(fd int, to *Address, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_CONNECT, int32(fd), uint64(uintptr(unsafe.Pointer(&to.raw))), 0, uint64(to.size))
	sqe.SetUserData(userData)
}

// Read reads once from fd into p, for descriptors without a position
// (eventfd). The kernel owns p until the completion.
func (r *Ring) Read(fd int, p []byte, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_READ, int32(fd), address(p), uint32(len(p)), 0)
	sqe.SetUserData(userData)
}

// ReadFile reads once from off of a file into p, on a thread of the kernel's own:
// on ours it would wait for the disk, or at the least start the reading. The
// kernel owns p until the completion.
func (r *Ring) ReadFile(fd int, p []byte, off int64, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_READ, int32(fd), address(p), uint32(len(p)), uint64(off))
	sqe.SetFlags(abi.IOSQE_FLAGS_ASYNC)
	sqe.SetUserData(userData)
}

// Fadvise gives advice (unix.FADV_WILLNEED and the like) on n bytes of a file from
// off, on a thread of the kernel's own.
func (r *Ring) Fadvise(fd int, off int64, n uint32, advice uint32, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_FADVISE, int32(fd), 0, n, uint64(off))
	sqe.SetOpFlags(advice)
	sqe.SetFlags(abi.IOSQE_FLAGS_ASYNC)
	sqe.SetUserData(userData)
}

// Poll waits once for events (unix.POLLOUT and the like) on fd.
func (r *Ring) Poll(fd int, events uint32, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_POLL_ADD, int32(fd), 0, 0, 0)
	sqe.SetOpFlags(events)
	sqe.SetUserData(userData)
}

// Cancel cancels the operation that was given target as its userData. Its own
// completion says 0 or -ENOENT; the target's last completion still comes.
func (r *Ring) Cancel(target, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_ASYNC_CANCEL, -1, target, 0, 0)
	sqe.SetUserData(userData)
}

// CancelAll cancels every operation of this ring on fd. Its own completion
// gives their number; the last completion of each still comes.
func (r *Ring) CancelAll(fd int, userData uint64) {
	sqe := r.next()
	sqe.PrepOperation(abi.IORING_OP_ASYNC_CANCEL, int32(fd), 0, 0, 0)
	sqe.SetOpFlags(cancelFd | cancelAll)
	sqe.SetUserData(userData)
}

// address is where p lives. p is heap or mapped memory that the caller keeps
// in a struct until the completion, so the number stays true meanwhile.
func address(p []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))) }
