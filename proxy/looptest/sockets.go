//go:build unix

package looptest

import (
	"net/netip"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"atlas/proxy/loop"
)

func makePipe(path string) error { return unix.Mkfifo(path, 0o644) }

// setReceiveBuffer makes a socket's window small, before it connects.
func setReceiveBuffer(fd uintptr, size int) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
}

// cpuTime is what this process has used of processors so far.
func cpuTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// fullListener is an address whose queue of new connections is full, and a
// function that frees it.
func fullListener(e *Env) (loop.Address, func()) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(e, err)
	require.NoError(e, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(e, unix.Listen(fd, 0))
	name, err := unix.Getsockname(fd)
	require.NoError(e, err)
	in := name.(*unix.SockaddrInet4)
	fds := []int{fd}
	for range 4 { // the queue holds backlog + 1; one more hangs
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		require.NoError(e, err)
		require.NoError(e, unix.SetNonblock(c, true))
		_ = unix.Connect(c, in) // in progress, for ever or not
		fds = append(fds, c)
	}
	address := netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
	return loop.Address{AddrPort: address}, func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	}
}
