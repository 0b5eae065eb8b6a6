package looptest

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// sendTests are about sending.
var sendTests = map[string]func(*Env){
	"writes and queued slices keep their order":   writeOrder,
	"written memory may be reused at once":        writeCopies,
	"back-pressure: a peer that does not read":    backPressure,
	"write deadline of a send that is waited for": writeDeadline,
	"write deadline of a send that nobody awaits": writeDeadlineUnawaited,
	"sending to a peer that has reset":            sendAfterReset,
	"close sends what was written":                closeSendsRest,
	"reset drops it":                              resetDrops,
	"files":                                       sendFile,
	"a file behind two heads that are leaving":    sendFileBehindTwo,
	"a file that shrinks while it is sent":        sendShrunkFile,
	"a file to a peer that reads slowly":          sendFileSlowly,
	"deadline while a file waits for room":        sendFileDeadline,
}

func writeOrder(e *Env) {
	queued := []byte(strings.Repeat("Q", 3000))
	large := []byte(strings.Repeat("L", 200_000))
	var want strings.Builder
	for i := range 60 {
		want.WriteString("<" + strconv.Itoa(i) + ">")
		want.Write(queued)
		if i%7 == 0 {
			want.Write(large)
		}
	}
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		for i := range 60 {
			_, err := c.Write([]byte("<" + strconv.Itoa(i) + ">"))
			assert.NoError(e, err)
			assert.NoError(e, c.Queue(queued))
			if i%7 == 0 {
				_, err := c.Write(large)
				assert.NoError(e, err)
			}
			if i%3 == 0 {
				assert.NoError(e, c.Flush())
			}
		}
		return c.Flush() == nil
	})
	c := e.Dial(address)
	e.write(c, "go")
	e.read(c, want.String())
}

func writeCopies(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		for _, size := range []int{10, 4000, 5000, 100_000} {
			p := bytes.Repeat([]byte("a"), size)
			_, err := c.Write(p)
			assert.NoError(e, err)
			copy(p, bytes.Repeat([]byte("b"), size))
		}
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	got, err := io.ReadAll(c)
	require.NoError(e, err)
	assert.Equal(e, 109_010, len(got))
	assert.Equal(e, len(got), bytes.Count(got, []byte("a")))
}

func backPressure(e *Env) {
	const total = 64 << 20
	sent := make(chan int, 1)
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		p := pattern(100_000)
		n := 0
		c.SetWriteDeadline(c.Loop().Now().After(300 * time.Millisecond))
		for n < total {
			m, err := c.Write(p)
			if err != nil {
				assert.Equal(e, loop.ErrDeadline, err)
				break
			}
			n += m
		}
		sent <- n
		c.Reset()
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	// The kernel takes a few megabytes on loopback; the rest has to wait.
	assert.Less(e, <-sent, total/2)
}

func writeDeadline(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		c.SetWriteDeadline(c.Loop().Now().After(50 * time.Millisecond))
		_, err := c.Write(make([]byte, 32<<20))
		assert.Equal(e, loop.ErrDeadline, err)
		_, err = c.Write([]byte("x"))
		assert.Equal(e, loop.ErrDeadline, err, "a failed send stays failed")
		assert.Equal(e, loop.ErrDeadline, c.Flush())
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	e.eventually("the connection to open", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	e.eventually("the connection to close", func() bool { return e.Loop.Counters().Open.Load() == 0 })
}

// A response that nobody waits for, to a client that never reads: the
// connection ends by itself although it is idle.
func writeDeadlineUnawaited(e *Env) {
	body := make([]byte, 32<<20)
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		c.SetWriteDeadline(c.Loop().Now().After(50 * time.Millisecond))
		if err := c.Queue(body); err != nil {
			return false
		}
		return c.Flush() == nil
	})
	c := e.Dial(address)
	e.write(c, "go")
	e.eventually("the connection to open", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	e.eventually("the connection to close", func() bool { return e.Loop.Counters().Open.Load() == 0 })
}

func sendAfterReset(e *Env) {
	peer, c := e.peers()
	require.NoError(e, peer.SetLinger(0))
	require.NoError(e, peer.Close())
	e.Task(func() {
		var err error
		for range 100 {
			if _, err = c.Write(make([]byte, 10_000)); err != nil {
				break
			}
			c.Loop().Sleep(time.Millisecond)
		}
		assert.Error(e, err)
		c.Close()
	})
}

func closeSendsRest(e *Env) {
	body := pattern(1 << 20)
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		_, err := c.Write([]byte("head:"))
		assert.NoError(e, err)
		assert.NoError(e, c.Queue(body))
		return false // without a flush
	})
	c := e.Dial(address)
	e.write(c, "go")
	got, err := io.ReadAll(c)
	require.NoError(e, err)
	assert.True(e, bytes.Equal(append([]byte("head:"), body...), got))
}

func resetDrops(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		_, err := c.Write([]byte("never seen"))
		assert.NoError(e, err)
		c.Reset()
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	got, err := io.ReadAll(c)
	assert.Empty(e, got)
	assert.ErrorContains(e, err, "reset")
}

// file makes a file in a directory of its own and opens it on the worker.
func (e *Env) file(content []byte) (path string, open func() *loop.File) {
	dir := e.TempDir()
	path = filepath.Join(dir, "file")
	require.NoError(e, os.WriteFile(path, content, 0o644))
	root, err := loop.OpenDir(dir)
	require.NoError(e, err)
	e.Cleanup(func() { assert.NoError(e, root.Close()) })
	return path, func() *loop.File {
		stat, whole, f, err := e.load(root, "file", 0)
		assert.NoError(e, err)
		assert.Nil(e, whole)
		assert.EqualValues(e, len(content), stat.Size)
		return f
	}
}

func sendFile(e *Env) {
	content := pattern(3<<20 + 17)
	_, open := e.file(content)
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		f := open()
		defer f.Close()
		_, err := c.Write([]byte("head:"))
		assert.NoError(e, err)
		n, err := c.SendFile(f, 0, f.Size)
		assert.NoError(e, err)
		assert.EqualValues(e, len(content), n)
		n, err = c.SendFile(f, 5, 10)
		assert.NoError(e, err)
		assert.EqualValues(e, 10, n)
		_, err = c.Write([]byte(":tail"))
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	for range 2 {
		e.write(c, "go")
		e.read(c, "head:"+string(content)+string(content[5:15])+":tail")
	}
}

// sendFileBehindTwo has the second head leave while the file waits for its turn.
func sendFileBehindTwo(e *Env) {
	content := pattern(100_000)
	_, open := e.file(content)
	address := e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		for _, head := range []string{"one:", "two:"} {
			_, err := c.Write([]byte(head))
			assert.NoError(e, err)
			assert.NoError(e, c.Flush())
		}
		c.Consume(len(c.Peek()))
		_, err := c.SendFile(f, 0, f.Size)
		return assert.NoError(e, err) && c.Flush() == nil
	})
	clients := make([]*net.TCPConn, 8) // so that most of them wait for a turn for a while
	for i := range clients {
		clients[i] = e.Dial(address)
	}
	for range 20 {
		for _, c := range clients {
			e.write(c, "go")
		}
		for _, c := range clients {
			e.read(c, "one:two:"+string(content))
		}
	}
}

func sendShrunkFile(e *Env) {
	path, open := e.file(make([]byte, 1<<20))
	sent := make(chan int64, 1)
	address := e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		assert.NoError(e, os.Truncate(path, 1000))
		n, err := c.SendFile(f, 0, f.Size)
		assert.NoError(e, err)
		sent <- n
		c.Reset()
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	assert.EqualValues(e, 1000, <-sent)
}

func sendFileSlowly(e *Env) {
	content := pattern(16 << 20)
	_, open := e.file(content)
	address := e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		n, err := c.SendFile(f, 0, f.Size)
		assert.NoError(e, err)
		assert.EqualValues(e, len(content), n)
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	time.Sleep(50 * time.Millisecond)
	got, err := io.ReadAll(c)
	require.NoError(e, err)
	assert.True(e, bytes.Equal(content, got))
}

func sendFileDeadline(e *Env) {
	_, open := e.file(make([]byte, 32<<20))
	seen := make(chan error, 1)
	address := e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		c.SetWriteDeadline(c.Loop().Now().After(50 * time.Millisecond))
		_, err := c.SendFile(f, 0, f.Size)
		seen <- err
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	assert.Equal(e, loop.ErrDeadline, <-seen)
}
