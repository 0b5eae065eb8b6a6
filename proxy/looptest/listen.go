package looptest

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// listenTests are about listening that ends while clients come.
var listenTests = map[string]func(*Env){
	"unlisten: whoever is connected is served":       unlistenServes,
	"unlisten: what waits in the queue is served":    unlistenQueue,
	"unlisten: another worker goes on":               unlistenShared,
	"unlisten twice: both are told":                  unlistenTwice,
	"unlisten: what was accepted stays":              unlistenStays,
	"listen twice: new connections have the new":     listenTwice,
	"listen: the handler goes with each connection":  listenHandlers,
	"refuse: who had begun is served, nobody begins": refuseBegun,
	"unlisten, then listen again":                    listenAgain,
	"unlisten what is not listened to":               unlistenUnknown,
	"a listener that is handed over goes on":         listenAdopted,
	"drain: what waits in the queue is served":       drainQueue,
	"drain: a client that goes on asking is told so": drainAsking,
}

// socket is a listening socket that the test closes.
func (e *Env) socket() *loop.Listener {
	e.Helper()
	ln, err := loop.ListenTCP("127.0.0.1:0", 0)
	require.NoError(e, err)
	return ln
}

func (e *Env) listen(l loop.Loop, ln *loop.Listener, h loop.Handler) {
	e.Helper()
	wait(e, "listen", func() {
		done := make(chan error, 1)
		l.Post(func() { done <- l.Listen(ln, h) })
		assert.NoError(e, <-done)
	})
}

func (e *Env) unlisten(l loop.Loop, ln *loop.Listener) {
	e.Helper()
	wait(e, "the end of listening", func() {
		done := make(chan struct{})
		if l.Post(func() { l.Unlisten(ln, func() { close(done) }) }) {
			<-done
		}
	})
}

// visit connects, says a line and wants it back. refused is one who was not
// connected.
func visit(address string) (refused bool, err error) {
	// Less than a second: then whoever was turned away tries again.
	c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
	if err != nil {
		return true, nil
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return false, err
	}
	if _, err := io.WriteString(c, "x\n"); err != nil {
		return false, err
	}
	_, err = io.ReadFull(c, make([]byte, 2))
	return false, err
}

// visitors are clients who come one after another until they are told to stop. A
// pause between two of them saves ports, where that takes seconds: each visit leaves
// one behind that is not to be had again for a minute.
type visitors struct {
	e              *Env
	enough         chan struct{}
	done           sync.WaitGroup
	served, turned atomic.Int64
}

func (e *Env) visitors(n int, address string, pause time.Duration) *visitors {
	v := &visitors{e: e, enough: make(chan struct{})}
	for range n {
		v.done.Go(func() {
			for {
				select {
				case <-v.enough:
					return
				default:
				}
				time.Sleep(pause)
				refused, err := visit(address)
				if !assert.NoError(e, err) {
					return
				}
				if refused {
					v.turned.Add(1)
				} else {
					v.served.Add(1)
				}
			}
		})
	}
	return v
}

func (v *visitors) end() {
	close(v.enough)
	wait(v.e, "visitors", v.done.Wait)
}

// In the order in which a process gives an address up. Nobody sees a reset, however
// close to the end they come.
func unlistenServes(e *Env) {
	for range 4 {
		ln := e.socket()
		e.listen(e.Loop, ln, Funcs{OnServe: echoLines})
		v := e.visitors(4, ln.Addr().String(), 0)
		e.eventually("visits", func() bool { return v.served.Load() > 10 })
		require.NoError(e, ln.Refuse())
		e.unlisten(e.Loop, ln)
		require.NoError(e, ln.Close())
		v.end()
		_, err := net.DialTimeout("tcp", ln.Addr().String(), patience)
		assert.True(e, errors.Is(err, syscall.ECONNREFUSED), "%v", err)
	}
}

// crowd connects clients while the worker is busy, and has each say a line.
func (e *Env) crowd(address string, and func()) (clients []*net.TCPConn) {
	e.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	e.Loop.Post(func() { close(busy); <-free })
	<-busy
	for range 50 {
		c := e.Dial(address)
		e.write(c, "x\n")
		clients = append(clients, c)
	}
	and()
	close(free)
	return clients
}

func unlistenQueue(e *Env) {
	ln := e.socket()
	e.listen(e.Loop, ln, Funcs{OnServe: echoLines})
	gone := make(chan struct{})
	clients := e.crowd(ln.Addr().String(), func() {
		e.Loop.Post(func() { e.Loop.Unlisten(ln, func() { close(gone) }) })
	})
	wait(e, "the end of listening", func() { <-gone })
	require.NoError(e, ln.Close())
	for _, c := range clients {
		e.read(c, "x\n")
	}
}

func drainQueue(e *Env) {
	ln := e.socket()
	e.listen(e.Loop, ln, Funcs{OnServe: echoLines})
	gone := make(chan struct{})
	clients := e.crowd(ln.Addr().String(), func() {
		e.Loop.Drain()
		e.Loop.Post(func() { e.Loop.Unlisten(ln, func() { close(gone) }) })
	})
	wait(e, "the end of listening", func() { <-gone })
	require.NoError(e, ln.Close())
	for _, c := range clients {
		e.read(c, "x\n")
		e.readEnd(c)
	}
	wait(e, "worker", e.Loop.Wait)
}

// The kernel wakes one of those that accept from a socket for each connection. One
// that is woken and then ends must not leave the connection where it is.
func unlistenShared(e *Env) {
	other, err := loop.Start(e.config)
	require.NoError(e, err)
	ln := e.socket()
	address := ln.Addr().String()
	defer func() {
		other.Stop()
		wait(e, "worker", other.Wait)
		e.unlisten(e.Loop, ln)
		require.NoError(e, ln.Close())
	}()
	e.listen(e.Loop, ln, Funcs{OnServe: echoLines})
	for range 60 {
		e.listen(other, ln, Funcs{OnServe: echoLines})
		var visits sync.WaitGroup
		visits.Go(func() {
			refused, err := visit(address)
			assert.False(e, refused)
			assert.NoError(e, err)
		})
		e.unlisten(other, ln)
		wait(e, "visit", visits.Wait)
	}
}

// Clients who come meanwhile wait.
func listenAgain(e *Env) {
	ln := e.socket()
	defer func() {
		e.unlisten(e.Loop, ln)
		require.NoError(e, ln.Close())
	}()
	e.listen(e.Loop, ln, Funcs{OnServe: echoLines})
	for range 30 {
		e.unlisten(e.Loop, ln)
		c := e.Dial(ln.Addr().String())
		e.write(c, "x\n")
		e.listen(e.Loop, ln, Funcs{OnServe: echoLines})
		e.read(c, "x\n")
		require.NoError(e, c.Close())
	}
}

// says is a handler that answers each line with a name.
func says(name string) loop.Handler {
	return Funcs{OnServe: func(c loop.Conn) bool {
		line, err := readLine(c)
		if err != nil {
			return false
		}
		c.Consume(len(line))
		_, err = c.Write([]byte(name + "\n"))
		return err == nil && c.Flush() == nil
	}}
}

// Two parts of a process may be done with a listener at once.
func unlistenTwice(e *Env) {
	ln := e.socket()
	e.listen(e.Loop, ln, says("a"))
	told := make(chan struct{}, 2)
	clients := e.crowd(ln.Addr().String(), func() {
		for range 2 {
			e.Loop.Post(func() { e.Loop.Unlisten(ln, func() { told <- struct{}{} }) })
		}
	})
	wait(e, "the end of listening", func() { <-told; <-told })
	require.NoError(e, ln.Close())
	for _, c := range clients {
		e.read(c, "a\n")
	}
}

// A connection goes on with its handler when its listener, and the socket, are gone.
func unlistenStays(e *Env) {
	ln := e.socket()
	e.listen(e.Loop, ln, says("a"))
	c := e.Dial(ln.Addr().String())
	e.write(c, "x\n")
	e.read(c, "a\n")
	e.unlisten(e.Loop, ln)
	require.NoError(e, ln.Close())
	for range 3 {
		e.write(c, "x\n")
		e.read(c, "a\n")
	}
}

// A handler is replaced under the clients who come: nobody is turned away, and who
// comes after that has the new one, also who waited in the queue.
func listenTwice(e *Env) {
	ln := e.socket()
	address := ln.Addr().String()
	defer func() {
		e.unlisten(e.Loop, ln)
		require.NoError(e, ln.Close())
	}()
	e.listen(e.Loop, ln, says("0"))
	v := e.visitors(2, address, 0)
	defer v.end()
	old := e.Dial(address)
	e.write(old, "x\n")
	e.read(old, "0\n")
	for _, name := range []string{"1", "2", "3", "4"} {
		e.listen(e.Loop, ln, says(name))
		for range 5 {
			c := e.Dial(address)
			e.write(c, "x\n")
			e.read(c, name+"\n")
			require.NoError(e, c.Close())
		}
		e.write(old, "x\n")
		e.read(old, "0\n")
	}
}

// What was queued while the worker was busy has the handler of when it is accepted.
// Once accepted, a connection that has not spoken yet keeps the one it has.
func listenHandlers(e *Env) {
	ln := e.socket()
	defer func() {
		e.unlisten(e.Loop, ln)
		require.NoError(e, ln.Close())
	}()
	e.listen(e.Loop, ln, says("a"))
	silent := e.Dial(ln.Addr().String())
	e.eventually("accept", func() bool { return e.Loop.Counters().Accepted.Load() == 1 })
	e.listen(e.Loop, ln, says("b"))
	e.write(silent, "x\n")
	e.read(silent, "a\n")
	e.unlisten(e.Loop, ln)
	late := e.Dial(ln.Addr().String())
	e.write(late, "x\n")
	e.listen(e.Loop, ln, says("c"))
	e.read(late, "c\n")
}

// A socket that refuses still gives what it holds, to whoever listens to it by then.
func refuseBegun(e *Env) {
	ln := e.socket()
	address := ln.Addr().String()
	waiting := e.Dial(address)
	e.write(waiting, "x\n")
	require.NoError(e, ln.Refuse())
	if runtime.GOOS == "linux" {
		_, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		var timeout net.Error
		assert.True(e, errors.As(err, &timeout) && timeout.Timeout(), "%v", err)
	}
	require.NoError(e, ln.Refuse(), "again")
	e.listen(e.Loop, ln, says("a"))
	for range 3 {
		e.read(waiting, "a\n")
		e.write(waiting, "x\n")
	}
	e.unlisten(e.Loop, ln)
	require.NoError(e, ln.Close())
	_, err := net.DialTimeout("tcp", address, patience)
	assert.ErrorIs(e, err, syscall.ECONNREFUSED)
}

func unlistenUnknown(e *Env) {
	ln := e.socket()
	e.unlisten(e.Loop, ln)
	require.NoError(e, ln.Close())
}

// The descriptor of a listener is the same socket: clients who wait in its queue
// are served by whoever has it.
func listenAdopted(e *Env) {
	ln := e.socket()
	c := e.Dial(ln.Addr().String())
	e.write(c, "x\n")
	assert.True(e, ln.Joins())
	file, err := ln.File()
	require.NoError(e, err)
	require.NoError(e, ln.Close())
	adopted, err := loop.Adopt(file, 7)
	require.NoError(e, err)
	require.NoError(e, file.Close())
	assert.Equal(e, ln.Addr().String(), adopted.Addr().String())
	assert.True(e, adopted.Joins())
	e.listen(e.Loop, adopted, Funcs{OnServe: echoLines})
	e.read(c, "x\n")
	e.unlisten(e.Loop, adopted)
	require.NoError(e, adopted.Close())

	plain, err := os.CreateTemp(e.TempDir(), "")
	require.NoError(e, err)
	defer plain.Close()
	_, err = loop.Adopt(plain, 0)
	assert.ErrorContains(e, err, "no socket that listens", "a file")
	datagrams, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(e, err)
	defer datagrams.Close()
	other, err := datagrams.File()
	require.NoError(e, err)
	defer other.Close()
	_, err = loop.Adopt(other, 0)
	assert.ErrorContains(e, err, "no socket that listens", "UDP")
	there, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	defer there.Close()
	connected, err := net.Dial("tcp", there.Addr().String())
	require.NoError(e, err)
	defer connected.Close()
	end, err := connected.(*net.TCPConn).File()
	require.NoError(e, err)
	defer end.Close()
	_, err = loop.Adopt(end, 0)
	assert.ErrorContains(e, err, "no socket that listens", "a connection")
}

// A client that asks without a pause gets each answer: the connection is not closed
// under a request of its.
func drainAsking(e *Env) {
	e.spokenTo()
	address := e.Serve(func(c loop.Conn) bool { return echoLines(c) && !c.Loop().Draining() })
	c := e.Dial(address)
	e.write(c, "x\n")
	e.read(c, "x\n")
	e.Loop.Drain()
	time.Sleep(100 * time.Millisecond) // on its way to us, and back
	e.write(c, "y\n")
	e.read(c, "y\n")
	e.readEnd(c)
	wait(e, "worker", e.Loop.Wait)
}
