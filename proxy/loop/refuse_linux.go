package loop

import "golang.org/x/sys/unix"

// refuseNew has the kernel drop every SYN that arrives for a listening socket, and
// nothing else: handshakes under way complete, for their last segment has no SYN.
// To close the socket, or to shut it down, would reset those and all that wait to
// be accepted. The sender of a SYN tries again a second later, and is told by then
// that nobody listens.
//
// The filter sees segments from the head of TCP on. A connection inherits it, and
// has no use for a SYN either.
func refuseNew(fd int) error {
	const (
		flagsAt = 13 // in the head of TCP
		syn     = 0x02
		ack     = 0x10
	)
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flagsAt},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: syn, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0}, // drop
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
