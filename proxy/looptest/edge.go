package looptest

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// edgeTests are about moments: what happens while something else is under way.
var edgeTests = map[string]func(*Env){
	"stop while blocking work waits for a helper":       stopWithOffs,
	"read instead of fill when the buffers run out":     readWhileStarving,
	"more idle connections than receive buffers":        idleStarving,
	"a file that is cut short by a deadline":            sendFileDeadlineSticks,
	"write of received bytes while more arrive":         writeReceived,
	"write deadline that passes before there is a send": writeDeadlineBefore,
	"close when the rest does not leave in time":        closeCutsShort,
	"close from another task ends a send":               closeDuringWrite,
	"reset from another task ends a send":               resetDuringWrite,
	"close from another task ends both directions":      closeDuringBoth,
	"close while a file waits for room":                 closeDuringSendFile,
	"drain and stop from a task":                        drainFromTask,
	"drain: a connection that is accepted behind it":    drainAcceptsUnspoken,
	"drain while a response leaves":                     drainWhileSending,
	"stop while the rest of a closed connection leaves": stopCutsClosed,
	"posts while the worker ends run, and their tasks":  postsWhileEnding,
	"two guards on one client":                          guardTwice,
	"a guard whose client is closed on our side":        guardClosedHere,
	"two closes at once of a guarded connection":        guardCloses,
	"removing a guard lets no other handler in between": guardRemovalDoesNotWait,
}

// blocked stops the worker while f runs, as a busy moment would.
func (e *Env) blocked(f func()) {
	e.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	e.Loop.Post(func() { close(busy); <-free })
	<-busy
	f()
	close(free)
}

func stopWithOffs(e *Env) {
	release := make(chan struct{})
	var ended atomic.Int32
	e.Post(func() {
		for range 200 {
			e.Loop.Go(func() {
				e.Loop.Off(func() { <-release })
				ended.Add(1)
			})
		}
	})
	time.Sleep(10 * time.Millisecond)
	e.Loop.Stop()
	time.Sleep(10 * time.Millisecond)
	close(release)
	wait(e, "worker", e.Loop.Wait)
	assert.EqualValues(e, 200, ended.Load())
	assert.Empty(e, e.panics)
}

// A read of a body ends the receive that is under way and starts one of its
// own. It must go on also if the first one has just failed for want of buffers.
func readWhileStarving(e *Env) {
	cfg := e.config
	cfg.Buffers, cfg.BufferBytes = 4, 64
	e.restart(cfg)
	peer, up := e.peers()
	seen := make(chan error, 1)
	address := e.Serve(func(c loop.Conn) bool {
		up.SetReadDeadline(e.Loop.Now().After(patience / 2))
		n, err := up.Read(make([]byte, 64<<10))
		for n == 0 && err == nil {
			n, err = up.Read(make([]byte, 64<<10))
		}
		seen <- err
		up.Close()
		return false
	})
	c := e.Dial(address)
	e.eventually("accept", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	time.Sleep(5 * time.Millisecond)
	e.blocked(func() {
		e.write(c, strings.Repeat("x", 1000))
		time.Sleep(time.Millisecond)
		e.write(peer, "answer")
	})
	assert.NoError(e, <-seen)
}

// A receive that found no buffer waits for one also on a connection that has
// nothing to receive yet. Those must not keep the others waiting.
func idleStarving(e *Env) {
	cfg := e.config
	cfg.Buffers, cfg.BufferBytes = 4, 64
	e.restart(cfg)
	address := e.Serve(echoLines)
	first := e.Dial(address)
	e.write(first, "x\n")
	e.read(first, "x\n")
	var idle []io.ReadWriter
	e.blocked(func() {
		busy := e.Dial(address)
		e.write(busy, strings.Repeat("y", 999)+"\n")
		for range 64 {
			idle = append(idle, e.Dial(address))
		}
	})
	time.Sleep(20 * time.Millisecond)
	for i := range idle {
		c := idle[len(idle)-1-i]
		_, err := io.WriteString(c, "z\n")
		require.NoError(e, err)
		_, err = io.ReadFull(c, make([]byte, 2))
		require.NoError(e, err, "connection %d", len(idle)-1-i)
	}
}

// Bytes that were promised and not sent must not be followed by others.
func sendFileDeadlineSticks(e *Env) {
	_, open := e.file(make([]byte, 32<<20))
	seen := make(chan error, 3)
	address := e.Serve(func(c loop.Conn) bool {
		f := open()
		defer f.Close()
		c.SetWriteDeadline(c.Loop().Now().After(50 * time.Millisecond))
		_, err := c.SendFile(f, 0, f.Size)
		seen <- err
		c.SetWriteDeadline(0)
		_, err = c.Write([]byte("the next response"))
		seen <- err
		_, err = c.SendFile(f, 0, f.Size)
		seen <- err
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	for range 3 {
		assert.Equal(e, loop.ErrDeadline, <-seen)
	}
}

func writeReceived(e *Env) {
	ahead := pattern(8 << 20)
	large := strings.Repeat("0123456789", 900) + "\n"
	address := e.Serve(func(c loop.Conn) bool {
		c.Loop().Sleep(30 * time.Millisecond) // so that all is here
		line, err := readLine(c)
		assert.NoError(e, err)
		c.Consume(len(line))
		assert.NoError(e, c.Queue(ahead))
		assert.NoError(e, c.Flush())
		line, err = readLine(c)
		assert.NoError(e, err)
		_, err = c.Write(line)
		assert.NoError(e, err)
		c.Consume(len(line))
		return echoLines(c)
	})
	c := e.Dial(address)
	e.write(c, "short\n"+large)
	time.Sleep(60 * time.Millisecond)
	rest := strings.Repeat("r", 15_000) + "\n"
	e.write(c, rest)
	time.Sleep(20 * time.Millisecond)
	got := make([]byte, len(ahead))
	_, err := io.ReadFull(c, got)
	require.NoError(e, err)
	require.True(e, bytes.Equal(ahead, got))
	got = make([]byte, len(large)+len(rest))
	_, err = io.ReadFull(c, got)
	require.NoError(e, err)
	require.True(e, large+rest == string(got), "other bytes arrived")
}

func writeDeadlineBefore(e *Env) {
	for _, keep := range []bool{true, false} {
		accepted := e.Loop.Counters().Accepted.Load()
		address := e.Serve(func(c loop.Conn) bool {
			c.Consume(len(c.Peek()))
			c.SetWriteDeadline(c.Loop().Now().After(10 * time.Millisecond))
			c.Loop().Sleep(50 * time.Millisecond)
			if c.Queue(make([]byte, 32<<20)) != nil || c.Flush() != nil {
				return false
			}
			return keep
		})
		c := e.Dial(address)
		e.write(c, "go")
		e.eventually("the connection to open", func() bool { return e.Loop.Counters().Accepted.Load() == accepted+1 })
		e.eventually("the connection to close", func() bool { return e.Loop.Counters().Open.Load() == 0 })
	}
}

// A client must not take what it has got for all, if there was more.
func closeCutsShort(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		c.SetWriteDeadline(c.Loop().Now().After(50 * time.Millisecond))
		_ = c.Queue(make([]byte, 32<<20))
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	e.eventually("the connection to open", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	e.eventually("the connection to close", func() bool { return e.Loop.Counters().Open.Load() == 0 })
	time.Sleep(100 * time.Millisecond) // an engine may send the rest behind that
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	assert.ErrorContains(e, err, "reset")
}

func closeDuringWrite(e *Env) { endDuringWrite(e, loop.Conn.Close) }
func resetDuringWrite(e *Env) { endDuringWrite(e, loop.Conn.Reset) }

// What ends a connection ends a Write that another task waits in; its memory is
// the caller's again then.
func endDuringWrite(e *Env, end func(loop.Conn)) {
	for _, pieces := range []int{1, 3} {
		peer, c := e.peers()
		e.Task(func() {
			p := bytes.Repeat([]byte("a"), 32<<20)
			writer := e.Loop.Go(func() {
				var err error
				for i := 1; i < pieces && err == nil; i++ {
					_, err = c.Write([]byte("head"))
				}
				_, err = c.Write(p)
				assert.Error(e, err)
				clear(p)
			})
			e.Loop.Sleep(20 * time.Millisecond)
			end(c)
			assert.NoError(e, writer.Join())
			_, err := c.Write([]byte("x"))
			assert.Error(e, err)
			c.Reset()
			c.Close()
		})
		got, err := io.ReadAll(peer)
		assert.Error(e, err, "the end of what was cut short is no end in order")
		assert.Zero(e, bytes.Count(got, []byte{0}), "memory that was given back was sent")
	}
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

func closeDuringBoth(e *Env) {
	_, c := e.peers()
	e.Task(func() {
		writer := e.Loop.Go(func() {
			_, err := c.Write(make([]byte, 32<<20))
			assert.Error(e, err)
		})
		reader := e.Loop.Go(func() {
			n, err := c.Read(make([]byte, 64<<10))
			assert.Zero(e, n)
			assert.Equal(e, loop.ErrClosed, err)
		})
		e.Loop.Sleep(20 * time.Millisecond)
		c.Close()
		c.Close()
		assert.NoError(e, reader.Join())
		assert.NoError(e, writer.Join())
	})
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

func closeDuringSendFile(e *Env) {
	_, open := e.file(make([]byte, 32<<20))
	for _, end := range []func(loop.Conn){loop.Conn.Close, loop.Conn.Reset} {
		_, c := e.peers()
		e.Task(func() {
			f := open()
			defer f.Close()
			sender := e.Loop.Go(func() {
				n, err := c.SendFile(f, 0, f.Size)
				assert.Error(e, err)
				assert.Less(e, n, f.Size)
			})
			e.Loop.Sleep(20 * time.Millisecond)
			end(c)
			end(c)
			assert.NoError(e, sender.Join())
		})
	}
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

func drainFromTask(e *Env) {
	var begun atomic.Int32
	address := e.Serve(func(c loop.Conn) bool {
		begun.Add(1)
		if line, err := readLine(c); err == nil && string(line) == "drain\n" {
			c.Loop().Drain()
		}
		return echoLines(c)
	})
	c, other := e.Dial(address), e.Dial(address)
	e.write(other, "begun")
	e.eventually("its task to wait for the rest of the line", func() bool { return begun.Load() == 1 })
	e.write(c, "drain\n")
	e.read(c, "drain\n")
	e.readEnd(c)
	e.write(other, "\n")
	e.read(other, "begun\n")
	e.readEnd(other)
	wait(e, "worker", e.Loop.Wait)
	e.restart(e.config)
	ended := e.Loop
	e.Task(func() { e.Loop.Go(func() { e.Loop.Sleep(time.Hour) }); e.Loop.Stop(); e.Loop.Sleep(time.Hour) })
	wait(e, "worker", ended.Wait)
}

func drainAcceptsUnspoken(e *Env) {
	address := e.Serve(echoLines)
	first := e.Dial(address)
	e.write(first, "x\n")
	e.read(first, "x\n")
	var silent net.Conn
	e.blocked(func() {
		silent = e.Dial(address)
		go e.Loop.Drain()
		time.Sleep(10 * time.Millisecond)
	})
	wait(e, "worker", e.Loop.Wait)
	e.readEnd(silent)
}

func drainWhileSending(e *Env) {
	body := pattern(16 << 20)
	served := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		assert.NoError(e, c.Queue(body))
		close(served)
		return true
	})
	c := e.Dial(address)
	e.write(c, "go")
	wait(e, "request", func() { <-served })
	time.Sleep(10 * time.Millisecond)
	e.Loop.Drain()
	time.Sleep(10 * time.Millisecond)
	got, err := io.ReadAll(c)
	require.NoError(e, err)
	assert.True(e, bytes.Equal(body, got))
	wait(e, "worker", e.Loop.Wait)
}

// Stop does not wait, also not for what Close has promised.
func stopCutsClosed(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		assert.NoError(e, c.Queue(make([]byte, 32<<20)))
		return false
	})
	c := e.Dial(address)
	e.write(c, "go")
	e.eventually("the connection to open", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	time.Sleep(10 * time.Millisecond)
	began := time.Now()
	e.Loop.Stop()
	wait(e, "worker", e.Loop.Wait)
	assert.Less(e, time.Since(began), patience/2)
	_, err := io.Copy(io.Discard, struct{ io.Reader }{c})
	assert.ErrorContains(e, err, "reset")
}

// Post's answer is a promise.
func postsWhileEnding(e *Env) {
	for range 30 {
		l, err := loop.Start(e.config)
		require.NoError(e, err)
		var promised, ran, slept atomic.Int64
		stopped := make(chan struct{})
		for range 4 {
			go func() {
				defer func() { stopped <- struct{}{} }()
				for l.Post(func() {
					ran.Add(1)
					l.Go(func() { l.Sleep(50 * time.Microsecond); slept.Add(1) })
				}) {
					promised.Add(1)
					time.Sleep(time.Millisecond)
				}
			}()
		}
		time.Sleep(2 * time.Millisecond)
		l.Drain()
		time.Sleep(time.Millisecond)
		l.Stop()
		for range 4 {
			wait(e, "posts to be refused", func() { <-stopped })
		}
		wait(e, "worker", l.Wait)
		assert.Equal(e, promised.Load(), ran.Load())
		assert.Equal(e, promised.Load(), slept.Load())
	}
}

func guardTwice(e *Env) {
	_, up := e.peers()
	_, second := e.peers()
	seen := make(chan error, 1)
	waiting := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		up.Guard(c)
		second.Guard(c)
		other := e.Loop.Go(func() { seen <- second.Fill() })
		e.Loop.Sleep(30 * time.Millisecond)
		up.Guard(nil)
		close(waiting)
		assert.NoError(e, other.Join())
		second.Guard(nil)
		up.Close()
		second.Close()
		return false
	})
	c := e.Dial(address)
	e.write(c, "x")
	wait(e, "handler to wait", func() { <-waiting })
	require.NoError(e, c.Close())
	wait(e, "the guard", func() { assert.Equal(e, loop.ErrGuard, <-seen) })
}

func guardClosedHere(e *Env) {
	_, client := e.peers()
	_, up := e.peers()
	e.Task(func() {
		up.Guard(client)
		up.SetReadDeadline(e.Loop.Now().After(patience / 2))
		waits := e.Loop.Go(func() { assert.Equal(e, loop.ErrGuard, up.Fill()) })
		e.Loop.Sleep(60 * time.Millisecond)
		client.Close()
		assert.NoError(e, waits.Join())
		up.Close()
	})
}

func guardCloses(e *Env) {
	_, client := e.peers()
	_, up := e.peers()
	e.Task(func() {
		up.Guard(client)
		waits := e.Loop.Go(func() { assert.Error(e, up.Fill()); up.Close() })
		e.Loop.Sleep(60 * time.Millisecond)
		others := e.Loop.Go(func() { up.Close() })
		up.Close()
		assert.NoError(e, others.Join())
		assert.NoError(e, waits.Join())
		client.Close()
	})
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

func guardRemovalDoesNotWait(e *Env) {
	upstream, up := e.peers()
	peer, client := e.peers()
	go func() { time.Sleep(100 * time.Millisecond); e.write(upstream, "answer") }()
	e.Task(func() {
		up.Guard(client)
		assert.NoError(e, up.Fill()) // long enough for the client to be watched
		inside := true
		others := e.Loop.Go(func() { assert.False(e, inside) })
		up.Guard(nil)
		inside = false
		assert.NoError(e, others.Join())
		e.write(peer, "next")
		assert.NoError(e, client.Fill())
		assert.Equal(e, "next", string(client.Peek()))
		up.Close()
		client.Close()
	})
}
