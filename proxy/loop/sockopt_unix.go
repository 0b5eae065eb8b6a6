//go:build unix

package loop

import (
	"errors"

	"golang.org/x/sys/unix"
)

// setListenerOptions sets SO_REUSEPORT, and what accepted sockets inherit on
// Linux, which saves system calls for each.
func setListenerOptions(fd int) error {
	if err := setInherited(fd); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

func setInherited(fd int) error {
	if err := inheritKeepAlive(fd); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// checkListens refuses a file that is no socket that listens.
func checkListens(fd int) error {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens == 0 {
		return errors.New("it is no socket that listens")
	}
	return nil
}

func reusesPort(fd int) (bool, error) {
	on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	return on != 0, err
}

func duplicate(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }

func closeDescriptor(fd int) error { return unix.Close(fd) }
