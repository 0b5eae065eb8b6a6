package looptest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// taskTests are about tasks, and several connections in one of them.
var taskTests = map[string]func(*Env){
	"two tasks on one connection":                         twoTasks,
	"one task interrupts another by its deadline":         interruptByDeadline,
	"the client leaves while the task waits elsewhere":    guardClientLeaves,
	"the client resets while the task waits elsewhere":    guardClientResets,
	"a guard whose client is already gone":                guardClientGone,
	"a guard that is removed":                             guardRemoved,
	"a guarded client that pipelines is not gone":         guardPipelining,
	"handler code never runs twice at once":               oneAtATime,
	"a panic ends its connection, others go on":           panicIsContained,
	"a panic in a task shows at its join":                 panicInTask,
	"blocking work runs beside the worker":                offRuns,
	"a panic in blocking work is the task's":              offPanics,
	"more blocking work than helpers":                     offMany,
	"files: small, large, changed, none, directory, pipe": files,
	"names do not lead out of a directory":                filesStayInside,
	"dial: refused, no listener, unix":                    dialErrors,
	"dial: time-out":                                      dialTimeout,
	"a task that goes on and on lets others work":         yields,
	"a stop while a task goes on and on":                  yieldsStopped,
	"sleep":                                               sleeps,
}

// yields has two tasks that wait for nothing but each other's and a client's turn.
func yields(e *Env) {
	served := false
	address := e.Serve(func(c loop.Conn) bool {
		served = true
		c.Consume(len(c.Peek()))
		return true
	})
	client := e.Client(address)
	_, err := client.Write([]byte("look here"))
	require.NoError(e, err)
	e.Task(func() {
		turns, others := 0, 0
		begun := false
		other := e.Loop.Go(func() {
			begun = true
			for range 10 {
				e.Loop.Yield()
				others++
			}
		})
		for end := time.Now().Add(patience); (!served || others < 10) && time.Now().Before(end); turns++ {
			e.Loop.Yield()
		}
		assert.True(e, served, "after %d turns", turns)
		assert.True(e, begun)
		assert.Equal(e, 10, others)
		assert.NoError(e, other.Join())
	})
}

// yieldsStopped: the task waits for nothing on its connection when the worker stops,
// and learns from the next wait why it may not go on.
func yieldsStopped(e *Env) {
	_, c := e.peers()
	ended := make(chan error, 1)
	stopped := false
	e.Post(func() {
		e.Loop.Go(func() {
			for !stopped {
				e.Loop.Yield()
			}
			_, err := c.Write(make([]byte, 64<<20)) // more than the peer has room for
			ended <- err
			c.Close()
		})
	})
	e.Loop.Stop()
	e.Loop.Post(func() { stopped = true }) // behind it
	wait(e, "task", func() { assert.Equal(e, loop.ErrStopped, <-ended) })
	wait(e, "worker", e.Loop.Wait)
}

func twoTasks(e *Env) {
	peer, c := e.peers()
	go echo(peer)
	body := pattern(4 << 20)
	e.Task(func() {
		up := e.Loop.Go(func() {
			_, err := c.Write(body)
			assert.NoError(e, err)
			assert.NoError(e, c.CloseWrite())
		})
		got := make([]byte, 0, len(body))
		p := make([]byte, 64<<10)
		for {
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				assert.Equal(e, io.EOF, err)
				break
			}
		}
		assert.NoError(e, up.Join())
		assert.Equal(e, body, got)
		c.Close()
	})
}

func interruptByDeadline(e *Env) {
	peer, c := e.peers()
	e.Task(func() {
		for _, big := range []bool{false, true} { // both kinds of receive
			c.SetReadDeadline(0)
			reader := e.Loop.Go(func() {
				var err error
				if big {
					_, err = c.Read(make([]byte, 64<<10))
				} else {
					err = c.Fill()
				}
				assert.Equal(e, loop.ErrDeadline, err)
			})
			e.Loop.Sleep(5 * time.Millisecond)
			c.SetReadDeadline(loop.Past)
			assert.NoError(e, reader.Join())
		}
		writer := e.Loop.Go(func() {
			_, err := c.Write(make([]byte, 64<<20))
			assert.Equal(e, loop.ErrDeadline, err)
		})
		e.Loop.Sleep(20 * time.Millisecond)
		c.SetWriteDeadline(loop.Past)
		assert.NoError(e, writer.Join())
		c.Reset()
	})
	_ = peer
}

// guarded has a handler wait on an upstream that never answers, and returns the
// client and what the wait ended with.
func (e *Env) guarded(first string) (*net.TCPConn, chan error) {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	e.Cleanup(func() { _ = upstream.Close() })
	seen := make(chan error, 1)
	waiting := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(first))
		up, err := e.Loop.Dial(loop.Address{AddrPort: upstream.Addr().(*net.TCPAddr).AddrPort()}, patience)
		if !assert.NoError(e, err) {
			return false
		}
		defer up.Close()
		up.Guard(c)
		up.SetReadDeadline(e.Loop.Now().After(patience))
		close(waiting)
		seen <- up.Fill()
		return false
	})
	c := e.Dial(address)
	e.write(c, first)
	wait(e, "handler to wait", func() { <-waiting })
	time.Sleep(5 * time.Millisecond)
	return c, seen
}

func guardClientLeaves(e *Env) {
	c, seen := e.guarded("x")
	require.NoError(e, c.Close())
	assert.Equal(e, loop.ErrGuard, <-seen)
}

func guardClientResets(e *Env) {
	c, seen := e.guarded("x")
	require.NoError(e, c.SetLinger(0))
	require.NoError(e, c.Close())
	assert.Equal(e, loop.ErrGuard, <-seen)
}

func guardPipelining(e *Env) {
	c, seen := e.guarded("x")
	e.write(c, "and the next request")
	select {
	case err := <-seen:
		e.Fatalf("the wait ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
}

func guardClientGone(e *Env) {
	upstream, up := e.peers()
	defer upstream.Close()
	seen := make(chan error, 1)
	address := e.Serve(func(c loop.Conn) bool {
		for c.Fill() == nil {
		}
		up.Guard(c)
		seen <- up.Fill()
		up.Close()
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	require.NoError(e, c.Close())
	assert.Equal(e, loop.ErrGuard, <-seen)
}

func guardRemoved(e *Env) {
	upstream, up := e.peers()
	closed := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		up.Guard(c)
		up.SetReadDeadline(e.Loop.Now().After(50 * time.Millisecond))
		assert.Equal(e, loop.ErrDeadline, up.Fill())
		up.SetReadDeadline(0)
		up.Guard(nil)
		_, err := c.Write([]byte("now"))
		assert.NoError(e, err)
		assert.NoError(e, c.Flush())
		assert.NoError(e, up.Fill(), "the guard is gone")
		assert.Equal(e, "answer", string(up.Peek()))
		up.Close()
		close(closed)
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	e.read(c, "now")
	require.NoError(e, c.Close())
	time.Sleep(20 * time.Millisecond)
	e.write(upstream, "answer")
	wait(e, "handler", func() { <-closed })
}

// The state below has no lock: the race detector and the count would show two
// handlers at once. One holds on across no wait, so it must never see another.
func oneAtATime(e *Env) {
	inside, total := 0, 0
	address := e.Serve(func(c loop.Conn) bool {
		for range 20 {
			inside++
			total++
			assert.Equal(e, 1, inside)
			inside--
			c.Loop().Sleep(time.Microsecond)
		}
		return echoLines(c)
	})
	var clients sync.WaitGroup
	for range 20 {
		c := e.Dial(address)
		clients.Go(func() {
			for range 5 {
				_, _ = io.WriteString(c, "x\n")
				_, _ = io.ReadFull(c, make([]byte, 2))
			}
		})
	}
	clients.Wait()
	e.Post(func() { assert.Equal(e, 20*20*5, total) })
}

func panicIsContained(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		if line, err := readLine(c); err == nil && string(line) == "boom\n" {
			panic("handler is broken")
		}
		return echoLines(c)
	})
	other := e.Dial(address)
	e.write(other, "before\n")
	e.read(other, "before\n")
	for i := range 3 {
		c := e.Dial(address)
		e.write(c, "boom\n")
		_, err := io.ReadAll(c)
		assert.ErrorContains(e, err, "reset")
		assert.Equal(e, "handler is broken", <-e.panics)
		assert.EqualValues(e, i+1, e.Loop.Counters().Panics.Load())
	}
	e.write(other, "after\n")
	e.read(other, "after\n")
}

func panicInTask(e *Env) {
	e.Task(func() {
		broken := e.Loop.Go(func() { panic("task is broken") })
		fine := e.Loop.Go(func() {})
		assert.Equal(e, loop.ErrPanic, broken.Join())
		assert.NoError(e, fine.Join())
	})
	assert.Equal(e, "task is broken", <-e.panics)
}

func offRuns(e *Env) {
	e.Task(func() {
		release := make(chan struct{})
		sum := 0
		blocked := e.Loop.Go(func() { e.Loop.Off(func() { <-release; sum = 42 }) })
		e.Loop.Sleep(time.Millisecond) // the worker goes on meanwhile
		close(release)
		assert.NoError(e, blocked.Join())
		assert.Equal(e, 42, sum)
	})
}

func offPanics(e *Env) {
	e.Task(func() {
		broken := e.Loop.Go(func() { e.Loop.Off(func() { panic("helper is broken") }) })
		assert.Equal(e, loop.ErrPanic, broken.Join())
	})
	assert.Equal(e, "helper is broken", <-e.panics)
}

func offMany(e *Env) {
	e.Task(func() {
		var tasks []loop.Task
		done := 0
		for range 300 {
			tasks = append(tasks, e.Loop.Go(func() {
				e.Loop.Off(func() { time.Sleep(time.Millisecond) })
				done++
			}))
		}
		for _, task := range tasks {
			assert.NoError(e, task.Join())
		}
		assert.Equal(e, 300, done)
	})
}

func files(e *Env) {
	dir := e.TempDir()
	path := filepath.Join(dir, "small")
	require.NoError(e, os.WriteFile(path, []byte("hello"), 0o644))
	require.NoError(e, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 2000), 0o644))
	require.NoError(e, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	require.NoError(e, makePipe(filepath.Join(dir, "pipe")))
	root, err := loop.OpenDir(dir)
	require.NoError(e, err)
	defer func() { assert.NoError(e, root.Close()) }()
	e.Task(func() {
		stat, bytes, f, err := e.load(root, "small", 1000)
		assert.NoError(e, err)
		assert.Nil(e, f)
		assert.Equal(e, "hello", string(bytes))
		assert.True(e, stat.Regular)

		again, err := e.look(root, "small")
		assert.NoError(e, err)
		assert.True(e, stat.Same(again))
		assert.NoError(e, os.WriteFile(path, []byte("longer now"), 0o644))
		again, err = e.look(root, "small")
		assert.NoError(e, err)
		assert.False(e, stat.Same(again))

		for range 2 { // the same size and times, yet another content
			assert.NoError(e, os.WriteFile(path, []byte("other text"), 0o644))
			assert.NoError(e, os.Chtimes(path, again.ModTime, again.ModTime))
		}
		rewritten, err := e.look(root, "small")
		assert.NoError(e, err)
		assert.Equal(e, runtime.GOOS != "linux", again.Same(rewritten))

		stat, bytes, f, err = e.load(root, "large", 1000)
		assert.NoError(e, err)
		assert.Nil(e, bytes)
		if assert.NotNil(e, f) {
			p := make([]byte, 10)
			n, err := f.ReadAt(e.Loop, p, 1990)
			assert.NoError(e, err)
			assert.Equal(e, 10, n)
			f.Close()
		}
		assert.EqualValues(e, 2000, stat.Size)

		for _, name := range []string{"sub", "pipe"} {
			stat, bytes, f, err = e.load(root, name, 1000)
			assert.NoError(e, err, name)
			assert.Nil(e, bytes)
			assert.Nil(e, f)
			assert.False(e, stat.Regular)
			assert.Equal(e, name == "sub", stat.Dir)
		}
		_, _, _, err = e.load(root, "none", 1000)
		assert.ErrorIs(e, err, os.ErrNotExist)
	})
}

func filesStayInside(e *Env) {
	outside := e.TempDir()
	require.NoError(e, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o644))
	dir := filepath.Join(outside, "root")
	require.NoError(e, os.Mkdir(dir, 0o755))
	require.NoError(e, os.WriteFile(filepath.Join(dir, "real"), []byte("fine"), 0o644))
	require.NoError(e, os.Symlink("real", filepath.Join(dir, "inside")))
	require.NoError(e, os.Symlink("../secret", filepath.Join(dir, "relative")))
	require.NoError(e, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "absolute")))
	require.NoError(e, os.Symlink(outside, filepath.Join(dir, "up")))
	root, err := loop.OpenDir(dir)
	require.NoError(e, err)
	defer func() { assert.NoError(e, root.Close()) }()
	e.Task(func() {
		_, bytes, _, err := e.load(root, "inside", 100)
		assert.NoError(e, err)
		assert.Equal(e, "fine", string(bytes))
		for _, name := range []string{"../secret", "relative", "absolute", "up/secret", "/etc/passwd", "x\x00y"} {
			_, bytes, f, err := e.load(root, name, 100)
			assert.Error(e, err, name)
			assert.Nil(e, bytes, name)
			assert.Nil(e, f, name)
			_, err = e.look(root, name)
			assert.Error(e, err, name)
		}
	})
}

func dialErrors(e *Env) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	address := ln.Addr().(*net.TCPAddr).AddrPort()
	require.NoError(e, ln.Close())
	path := filepath.Join(e.TempDir(), "socket")
	unix, err := net.Listen("unix", path)
	require.NoError(e, err)
	defer unix.Close()
	e.Task(func() {
		_, err := e.Loop.Dial(loop.Address{AddrPort: address}, patience)
		assert.ErrorContains(e, err, "refused")
		_, err = e.Loop.Dial(loop.Address{Path: path + "none"}, patience)
		assert.ErrorContains(e, err, "no such file")
		c, err := e.Loop.Dial(loop.Address{Path: path}, patience)
		if assert.NoError(e, err) {
			assert.False(e, c.Remote().IsValid())
			c.Close()
		}
	})
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

// A listener whose queue is full leaves new connections unanswered.
func dialTimeout(e *Env) {
	address, full := fullListener(e)
	defer full()
	e.Task(func() {
		begin := time.Now()
		_, err := e.Loop.Dial(address, 50*time.Millisecond)
		assert.Equal(e, loop.ErrDeadline, err)
		assert.GreaterOrEqual(e, time.Since(begin), 50*time.Millisecond)
	})
}

func sleeps(e *Env) {
	e.Task(func() {
		begin := time.Now()
		e.Loop.Sleep(20 * time.Millisecond)
		assert.GreaterOrEqual(e, time.Since(begin), 20*time.Millisecond)
	})
}
