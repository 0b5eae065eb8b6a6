package loop

import "golang.org/x/sys/unix"

// acceptWaiting takes a connection that waits in the queue of a listening socket.
// It never waits for one.
func acceptWaiting(listening int) (fd int, err error) {
	for {
		fd, _, err = unix.Accept4(listening, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != unix.EINTR && err != unix.ECONNABORTED {
			return fd, err
		}
	}
}
