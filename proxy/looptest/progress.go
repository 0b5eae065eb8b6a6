package looptest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// progressTests are about receivers that are slow, and how slow they may be.
var progressTests = map[string]func(*Env){
	"slow receivers that take enough get all":     slowGetAll,
	"slow receivers that take nothing are cut":    takesNothing,
	"slow receivers that take too little are cut": takesTooLittle,
	"slow receivers, and no rate is asked for":    slowWithoutRate,
	"slow receivers, and the send is interrupted": slowInterrupted,
	"slow receivers, and the worker stops":        slowStopped,
	"slow upstreams are cut at the deadline":      slowUpstream,
}

const slowBytes = 16 << 20 // more than the kernel takes at once

// slowSends are the ways in which bytes leave; each is asked for by its letter.
var slowSends = map[byte]func(c loop.Conn, p []byte, f *loop.File) (keep bool){
	'w': func(c loop.Conn, p []byte, _ *loop.File) bool {
		_, err := c.Write(p)
		return err == nil
	},
	's': func(c loop.Conn, p []byte, _ *loop.File) bool { // in segments
		half := len(p) / 2
		return c.Queue(p[:half]) == nil && c.Queue(p[half:]) == nil && c.Flush() == nil
	},
	'q': func(c loop.Conn, p []byte, _ *loop.File) bool { // and nobody waits
		return c.Queue(p) == nil && c.Flush() == nil
	},
	'c': func(c loop.Conn, p []byte, _ *loop.File) bool { // and it is closed
		_ = c.Queue(p)
		return false
	},
	'f': func(c loop.Conn, p []byte, f *loop.File) bool {
		_, err := c.SendFile(f, 0, f.Size)
		return err == nil
	},
}

// serveSlowly starts a worker that demands the rate, and sends in all ways.
func (e *Env) serveSlowly(rate int64, deadline time.Duration) (address string, content []byte) {
	e.Helper()
	cfg := e.config
	cfg.RateMin = rate
	e.restart(cfg)
	content = pattern(slowBytes)
	_, open := e.file(content)
	return e.Serve(func(c loop.Conn) bool {
		how := c.Peek()[0]
		c.Consume(len(c.Peek()))
		f := open()
		defer f.Close()
		c.SetWriteDeadline(c.Loop().Now().After(deadline))
		return slowSends[how](c, content, f)
	}), content
}

// dialSlow connects a client with little room for what it does not read yet, also
// in the bridge of a layer.
func (e *Env) dialSlow(address string) (*net.TCPConn, error) {
	// With much less the kernel drops segments for want of room, and a receiver that
	// reads all the time still takes nothing while the time to send again doubles.
	const room = 64 << 10
	dialer := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { err = setReceiveBuffer(fd, room) })
		return errors.Join(err, controlErr)
	}}
	dialled, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := dialled.(*net.TCPConn)
	if e.layer != nil {
		test, plain := pair(e, dialer)
		_ = plain.SetWriteBuffer(room) // it cannot fail on an open socket
		e.join(c, e.layer.Connect, test, plain)
		c = test
	}
	return c, c.SetDeadline(time.Now().Add(2 * patience))
}

// drip reads a little at a time until it was long enough.
func drip(c net.Conn, length time.Duration) (got []byte, err error) {
	p := make([]byte, 4<<10)
	for end := time.Now().Add(length); time.Now().Before(end) && err == nil; time.Sleep(5 * time.Millisecond) {
		var n int
		n, err = c.Read(p)
		got = append(got, p[:n]...)
	}
	return got, err
}

// slowly asks for bytes in every way at once, and runs f for each client.
func (e *Env) slowly(address string, f func(how byte, c *net.TCPConn)) {
	e.Helper()
	var clients sync.WaitGroup
	for how := range slowSends {
		c, err := e.dialSlow(address)
		require.NoError(e, err)
		e.Cleanup(func() { _ = c.Close() })
		e.write(c, string(how))
		clients.Go(func() { f(how, c) })
	}
	e.eventually("all to be accepted", func() bool {
		return e.Loop.Counters().Accepted.Load() == uint64(len(slowSends))
	})
	wait(e, "clients", clients.Wait)
}

func slowGetAll(e *Env) {
	if runtime.GOOS != "linux" {
		return // nobody knows there what they take
	}
	const deadline = time.Second // in which a busy machine lets each client take something
	address, content := e.serveSlowly(1, deadline)
	e.slowly(address, func(how byte, c *net.TCPConn) {
		got, err := drip(c, 2*deadline)
		assert.NoError(e, err, "%c", how)
		assert.Less(e, len(got), len(content), "%c", how)
		assert.NoError(e, c.SetReadBuffer(1<<20)) // the rest is not to take long
		rest := make([]byte, len(content)-len(got))
		n, err := io.ReadFull(c, rest)
		assert.NoError(e, err, "%c: %d of %d", how, len(got)+n, len(content))
		assert.True(e, bytes.Equal(content, append(got, rest...)), "%c", how)
	})
}

func takesNothing(e *Env) {
	address, _ := e.serveSlowly(1, 50*time.Millisecond)
	e.slowly(address, func(byte, *net.TCPConn) {})
	e.eventually("all to be cut", func() bool { return e.Loop.Counters().Open.Load() == 0 })
}

func takesTooLittle(e *Env)  { e.cutSlowly(1 << 40) }
func slowWithoutRate(e *Env) { e.cutSlowly(0) }

// cutSlowly has receivers that take bytes all the time cut, and visibly.
func (e *Env) cutSlowly(rate int64) {
	address, content := e.serveSlowly(rate, 50*time.Millisecond)
	e.slowly(address, func(how byte, c *net.TCPConn) {
		got, err := drip(c, patience/2)
		assert.Error(e, err, "%c", how)
		assert.Less(e, len(got), len(content), "%c", how)
	})
	e.eventually("all to be cut", func() bool { return e.Loop.Counters().Open.Load() == 0 })
}

func slowInterrupted(e *Env) {
	cfg := e.config
	cfg.RateMin = 1
	e.restart(cfg)
	content := pattern(slowBytes)
	_, open := e.file(content)
	seen := make(chan error, 2)
	address := e.Serve(func(c loop.Conn) bool {
		file := string(c.Peek()) == "f"
		c.Consume(len(c.Peek()))
		c.SetWriteDeadline(e.Loop.Now().After(50 * time.Millisecond))
		sender := e.Loop.Go(func() {
			if !file {
				_, err := c.Write(content)
				seen <- err
				return
			}
			f := open()
			defer f.Close()
			_, err := c.SendFile(f, 0, f.Size)
			seen <- err
		})
		e.Loop.Sleep(200 * time.Millisecond)
		c.SetWriteDeadline(loop.Past)
		assert.NoError(e, sender.Join())
		return false
	})
	for _, how := range []string{"w", "f"} {
		c, err := e.dialSlow(address)
		require.NoError(e, err)
		e.write(c, how)
		got, err := drip(c, patience/2)
		assert.Error(e, err)
		assert.Less(e, len(got), len(content))
		assert.Equal(e, loop.ErrDeadline, <-seen)
		require.NoError(e, c.Close())
	}
}

func slowStopped(e *Env) {
	address, content := e.serveSlowly(1, 50*time.Millisecond)
	time.AfterFunc(200*time.Millisecond, e.Loop.Stop)
	e.slowly(address, func(how byte, c *net.TCPConn) {
		got, err := drip(c, patience/2)
		assert.Error(e, err, "%c", how)
		assert.Less(e, len(got), len(content), "%c", how)
	})
	wait(e, "worker", e.Loop.Wait)
}

// The rate is asked of clients: an upstream has its deadlines.
func slowUpstream(e *Env) {
	cfg := e.config
	cfg.RateMin = 1
	e.restart(cfg)
	peer, up := e.peers()
	go func() { _, _ = drip(peer, 2*patience) }() // longer than the test waits
	e.Task(func() {
		up.SetWriteDeadline(e.Loop.Now().After(100 * time.Millisecond))
		_, err := up.Write(make([]byte, 64<<20))
		assert.Equal(e, loop.ErrDeadline, err)
		up.Reset()
	})
}
