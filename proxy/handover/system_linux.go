package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// peerOf asks the kernel who is at the other end.
func peerOf(conn *net.UnixConn) (uid, pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var who *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(controlErr, err); err != nil {
		return 0, 0, err
	}
	return int(who.Uid), int(who.Pid), nil
}

// listenPrivately listens at a path that only this user may connect to. Between
// bind and chmod nobody can: it does not listen yet.
func listenPrivately(path string) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("bind %s: %w", path, err)
	}
	err = os.Chmod(path, 0o600)
	if err == nil {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	ln, err := net.FileListener(file)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return ln.(*net.UnixListener), nil
}

// lockFolder keeps other processes from a folder's socket for the moment.
func lockFolder(folder string) (unlock func(), err error) {
	file, err := os.Open(folder)
	if err != nil {
		return nil, err
	}
	for tries := 0; ; tries++ {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR || tries == 100 {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", folder, err), file.Close())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pair is a connection to be shared with a child.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "handover"), os.NewFile(uintptr(fds[1]), "handover"), nil
}

// KeepStderr gives a child of Raise the standard error of its parent, which read it
// until now.
func (h *Heir) KeepStderr() error {
	if !h.child {
		return nil
	}
	h.child = false
	err := unix.Dup3(childStderr, 2, 0)
	return errors.Join(err, unix.Close(childStderr))
}
