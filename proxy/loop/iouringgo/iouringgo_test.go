//go:build iouringgo && linux

package iouringgo

import (
	"net"
	"syscall"
	"testing"

	"github.com/iceber/iouring-go"
	"github.com/stretchr/testify/require"

	"atlas/proxy/looptest"
)

// BenchmarkEcho serves each connection by a goroutine that receives and sends
// through one ring, as the module's own examples do.
func BenchmarkEcho(b *testing.B) {
	const conns, size = 64, 1024
	b.Run("engine=iouring-go", func(b *testing.B) {
		ring, err := iouring.New(512)
		require.NoError(b, err)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		go accept(ring, ln)
		looptest.BenchmarkEcho(b, ln.Addr().String(), conns, size)
		require.NoError(b, ln.Close())
		require.NoError(b, ring.Close())
	})
}

func accept(ring *iouring.IOURing, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		// A duplicate that Go's poller does not know.
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			return
		}
		fd, err := syscall.Dup(int(file.Fd()))
		_, _ = file.Close(), conn.Close()
		if err != nil {
			return
		}
		go echo(ring, fd)
	}
}

// echo ends with the connection.
func echo(ring *iouring.IOURing, fd int) {
	defer syscall.Close(fd)
	p := make([]byte, 4096)
	result := make(chan iouring.Result, 1)
	for {
		n, err := do(ring, iouring.Recv(fd, p, 0), result)
		if n <= 0 || err != nil {
			return
		}
		if n, err = do(ring, iouring.Send(fd, p[:n], syscall.MSG_NOSIGNAL), result); n <= 0 || err != nil {
			return
		}
	}
}

func do(ring *iouring.IOURing, request iouring.PrepRequest, result chan iouring.Result) (int, error) {
	if _, err := ring.SubmitRequest(request, result); err != nil {
		return 0, err
	}
	// Receive and send have no resolver, so ReturnInt knows nothing of them.
	return (<-result).(iouring.Request).GetRes()
}
