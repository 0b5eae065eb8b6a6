//go:build unix

package loop

import "golang.org/x/sys/unix"

// setListenerOptions sets SO_REUSEPORT, and what accepted sockets inherit on
// Linux, which saves system calls for each.
func setListenerOptions(fd int) error {
	if err := inheritKeepAlive(fd); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

func closeDescriptor(fd int) error { return unix.Close(fd) }
