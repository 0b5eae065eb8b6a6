package loop

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A connection is closed, and its send completes, in one turn: who waits for the send
// must not touch the descriptor, which is closed and may be another's.
func TestSendFileOfClosed(t *testing.T) {
	requireRing(t)
	started, err := Start(Config{Engine: IOUring, CPU: -1})
	require.NoError(t, err)
	l := started.(*ringLoop)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(name, make([]byte, 4<<20), 0o600))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	defer unix.Close(pair[1])
	file := &File{fd: int(f.Fd())}
	file.Size = 4 << 20
	var c *ringConn
	type outcome struct {
		err            error
		freed, touched bool
	}
	result := make(chan outcome, 1)
	l.Post(func() {
		c = l.newConn(pair[0])
		l.counters.Dialled.Add(1)
		l.Go(func() {
			_ = c.Queue(make([]byte, 300<<10))
			_ = c.Flush()
			_, err := c.SendFile(file, 0, 4<<20)
			result <- outcome{err, c.freed, c.bounded}
		})
	})
	time.Sleep(100 * time.Millisecond)
	hold, held := make(chan bool), make(chan bool)
	l.Post(func() { held <- true; <-hold })
	<-held
	l.Post(func() { c.Close() })
	buf := make([]byte, 1<<20)
	for {
		if n, err := unix.Read(pair[1], buf); n <= 0 || err != nil {
			break
		}
	}
	hold <- true
	got := <-result
	require.ErrorIs(t, got.err, ErrClosed)
	require.True(t, got.freed)
	require.False(t, got.touched, "setsockopt of a descriptor that is closed")
	l.Stop()
	l.Wait()
}

// A connection ends while a task sends what it had in Peek: the kernel still reads that
// memory, so nobody else gets it.
func TestStashOfClosed(t *testing.T) {
	requireRing(t)
	started, err := Start(Config{Engine: IOUring, CPU: -1})
	require.NoError(t, err)
	l := started.(*ringLoop)
	kept := make(chan int)
	for _, lent := range []int{0, 1} {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		require.NoError(t, err)
		defer unix.Close(pair[1])
		require.True(t, l.Post(func() {
			c := l.newConn(pair[0])
			l.counters.Dialled.Add(1)
			l.stashes[0] = nil
			c.keep([]byte("a request"))
			l.lent = lent
			c.Close()
			l.lent = 0
			kept <- len(l.stashes[0])
		}))
		require.Equal(t, 1-lent, <-kept)
	}
	l.Stop()
	l.Wait()
}
