package loop

import "golang.org/x/sys/unix"

// hungUp reports that the peer has ended its direction, also where bytes stand
// before that.
func hungUp(fd int) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0
}
