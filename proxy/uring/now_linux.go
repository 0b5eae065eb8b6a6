package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// wide reports that the offset of this machine's first sendfile has 64 bits.
const wide = unsafe.Sizeof(uintptr(0)) == 8

// Sendfile sends n bytes of a file from off, for a file whose bytes are in memory and a
// socket that does not block: without telling Go's scheduler, as Wait does not where nothing is
// to be waited for. Its monitor would take the processor away each time and give it back.
// A call that blocks after all keeps a collection of garbage from beginning.
func Sendfile(to, from int, off int64, n int) (int, error) {
	if !wide {
		return unix.Sendfile(to, from, &off, n)
	}
	m, _, errno := unix.RawSyscall6(unix.SYS_SENDFILE,
		uintptr(to), uintptr(from), uintptr(unsafe.Pointer(&off)), uintptr(n), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(m), nil
}
