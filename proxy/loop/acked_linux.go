package loop

import "golang.org/x/sys/unix"

// bytesAcked is how much the socket's peer has acknowledged. false: it is no TCP
// socket.
func bytesAcked(fd int) (uint64, bool) {
	facts, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return facts.Bytes_acked, err == nil
}
