package loop

import (
	"time"

	"golang.org/x/sys/unix"
)

// inheritKeepAlive has the sockets that are accepted by the ring ask whether
// their peer is alive; package net sets it on each that it accepts itself.
func inheritKeepAlive(fd int) error {
	const seconds = int(keepAliveIdle / time.Second)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds)
}
