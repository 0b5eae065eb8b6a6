package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What follows are system calls that wait for nothing, made without telling Go's
// scheduler, as Wait does not. Its monitor would take the processor away at each look
// and give it back, and look every 20 us (proxy/design/0004, 0007). A call that waits
// after all keeps a collection of garbage from beginning.

// wide reports that a register of this machine holds an offset. Where one does not,
// the scheduler is told.
const wide = unsafe.Sizeof(uintptr(0)) == 8

// Sendfile sends n bytes of a file from off, for a file whose bytes are in memory and
// a socket that does not block.
func Sendfile(to, from int, off int64, n int) (int, error) {
	if !wide {
		return unix.Sendfile(to, from, &off, n)
	}
	return outcome(unix.RawSyscall6(unix.SYS_SENDFILE,
		uintptr(to), uintptr(from), uintptr(unsafe.Pointer(&off)), uintptr(n), 0, 0))
}

// SendNow sends what a socket has room for.
func SendNow(fd int, p []byte) (int, error) {
	return outcome(unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0))
}

// ReadNow reads what of a file is in memory at off (RWF_NOWAIT, 4.14).
func ReadNow(fd int, p []byte, off int64) (int, error) {
	if !wide {
		return unix.Preadv2(fd, [][]byte{p}, off, unix.RWF_NOWAIT)
	}
	vector := unix.Iovec{Base: unsafe.SliceData(p)}
	vector.SetLen(len(p))
	return outcome(unix.RawSyscall6(unix.SYS_PREADV2,
		uintptr(fd), uintptr(unsafe.Pointer(&vector)), 1, uintptr(off), 0, unix.RWF_NOWAIT))
}

// Cachestat counts the pages of a file that are in memory (6.5).
func Cachestat(fd int, span *unix.CachestatRange, pages *unix.Cachestat_t) error {
	_, err := outcome(unix.RawSyscall6(unix.SYS_CACHESTAT,
		uintptr(fd), uintptr(unsafe.Pointer(span)), uintptr(unsafe.Pointer(pages)), 0, 0, 0))
	return err
}

// noPath is the path of an open file itself.
var noPath [1]byte

// StatNow is what the kernel knows of an open file; it asks no server of a network's
// filesystem (AT_STATX_DONT_SYNC, 4.11).
func StatNow(fd int, stat *unix.Statx_t) error {
	_, err := outcome(unix.RawSyscall6(unix.SYS_STATX, uintptr(fd), uintptr(unsafe.Pointer(&noPath)),
		unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(stat)), 0))
	return err
}

// outcome is that of a system call.
func outcome(n, _ uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
