//go:build unix

package looptest

import (
	"fmt"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"atlas/proxy/loop"
)

// Echo is a handler that sends back what it gets.
var Echo = Funcs{OnServe: func(c loop.Conn) bool {
	_, err := c.Write(c.Peek())
	c.Consume(len(c.Peek()))
	return err == nil && c.Flush() == nil
}}

// BenchmarkEcho measures a server that echoes: conns connections, each with one
// message of size bytes on its way at a time. The client is a goroutine that
// makes plain blocking system calls, a write for each connection and then a
// read for each: cheap, the same for every server, and free of allocations.
func BenchmarkEcho(b *testing.B, address string, conns, size int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fds := make([]int, conns)
	for i := range fds {
		fds[i] = dialRaw(b, address)
	}
	out, in := make([]byte, size), make([]byte, size)
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	for done := 0; done < b.N; {
		batch := fds[:min(conns, b.N-done)]
		for _, fd := range batch {
			if n, err := unix.Write(fd, out); n != size || err != nil {
				b.Fatalf("write: %d, %v", n, err)
			}
		}
		for _, fd := range batch {
			for got := 0; got < size; {
				n, err := unix.Read(fd, in[got:])
				if n <= 0 || err != nil {
					b.Fatalf("read: %d, %v", n, err)
				}
				got += n
			}
		}
		done += len(batch)
	}
	b.StopTimer()
	for _, fd := range fds {
		require.NoError(b, unix.Close(fd))
	}
}

// dialRaw connects a blocking socket that Go's poller does not know.
func dialRaw(t testing.TB, address string) int {
	t.Helper()
	to, err := net.ResolveTCPAddr("tcp", address)
	require.NoError(t, err)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Connect(fd, &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}),
		fmt.Sprintf("connect to %s", address))
	require.NoError(t, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	return fd
}
