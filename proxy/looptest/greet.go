package looptest

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
)

// greetTests are about handlers that may speak first.
var greetTests = map[string]func(*Env){
	"greet: the server speaks first":                  greetFirst,
	"greet: only those that it is for":                greetSome,
	"greet: and then the connection is like any":      greetThenIdle,
	"greet: a client that has gone before":            greetGone,
	"greet: a panic":                                  greetPanics,
	"greet: a drain leaves it alone, a stop does not": greetDrain,
	"greet: closed by Open":                           greetClosed,
	"addresses that somebody else says":               addressesSet,
}

// greeting is a handler that greets.
type greeting struct {
	Funcs
	greets func(loop.Conn) bool
}

func (g greeting) Greets(c loop.Conn) bool { return g.greets(c) }

func all(loop.Conn) bool { return true }

// hello says hello and echoes lines then.
func hello(c loop.Conn) bool {
	if _, err := c.Write([]byte("hello\n")); err != nil || c.Flush() != nil {
		return false
	}
	return echoLines(c)
}

func greetFirst(e *Env) {
	var opened atomic.Int32
	address := e.Listen(greeting{Funcs{
		OnOpen:  func(c loop.Conn) { opened.Add(1); c.SetReadDeadline(c.Loop().Now().After(patience)) },
		OnServe: hello,
	}, func(loop.Conn) bool { return opened.Load() > 0 }})
	for range 20 {
		c := e.Dial(address)
		e.read(c, "hello\n")
		e.write(c, "x\n")
		e.read(c, "x\n")
		assert.NoError(e, c.Close())
	}
	early := e.Dial(address) // bytes that are here before it is served
	e.write(early, "early\n")
	e.read(early, "hello\nearly\n")
	assert.EqualValues(e, 21, opened.Load())
}

func greetSome(e *Env) {
	var turn atomic.Int32
	address := e.Listen(greeting{Funcs{OnServe: hello}, func(loop.Conn) bool { return turn.Add(1)%2 == 0 }})
	for i := range 10 {
		c := e.Dial(address)
		if i%2 == 0 {
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			_, err := c.Read(make([]byte, 1))
			assert.ErrorContains(e, err, "timeout")
			_ = c.SetReadDeadline(time.Now().Add(patience))
			e.write(c, "x\n")
			e.read(c, "hello\nx\n")
			continue
		}
		e.read(c, "hello\n")
	}
}

func greetThenIdle(e *Env) {
	address := e.Listen(greeting{Funcs{OnServe: func(c loop.Conn) bool {
		if len(c.Peek()) == 0 {
			_, err := c.Write([]byte("hello\n"))
			return err == nil // the loop flushes
		}
		keep := echoLines(c)
		c.SetReadDeadline(c.Loop().Now().After(20 * time.Millisecond))
		return keep
	}}, all})
	c := e.Dial(address)
	e.read(c, "hello\n")
	e.write(c, "x\n")
	e.read(c, "x\n")
	e.readEnd(c) // it expires
}

func greetGone(e *Env) {
	address := e.Listen(greeting{Funcs{OnServe: hello}, all})
	e.blocked(func() {
		for i := range 20 {
			c := e.Dial(address)
			if i%2 == 0 {
				assert.NoError(e, c.SetLinger(0))
			}
			assert.NoError(e, c.Close())
		}
	})
	e.eventually("all to come", func() bool { return e.Loop.Counters().Accepted.Load() == 20 })
	e.eventually("all to go", func() bool { return e.Loop.Counters().Open.Load() == 0 })
}

func greetPanics(e *Env) {
	address := e.Listen(greeting{Funcs{OnServe: func(loop.Conn) bool { panic("greeting") }}, all})
	c, err := e.connect(address)
	if err == nil { // else it was reset before
		_, err = c.Read(make([]byte, 1))
		assert.NoError(e, c.Close())
	}
	assert.ErrorContains(e, err, "reset")
	assert.Equal(e, "greeting", <-e.panics)
}

func greetDrain(e *Env) {
	e.spokenTo()
	address := e.Listen(greeting{Funcs{OnServe: hello}, all})
	c := e.Dial(address)
	e.read(c, "hello\n")
	e.Loop.Drain()
	time.Sleep(20 * time.Millisecond)
	e.write(c, "x\n")
	e.read(c, "x\n")
	e.readEnd(c) // it is idle now
	wait(e, "worker", e.Loop.Wait)
}

func greetClosed(e *Env) {
	address := e.Listen(greeting{Funcs{
		OnOpen:  func(c loop.Conn) { c.Close() },
		OnServe: func(loop.Conn) bool { assert.Fail(e, "a closed connection is served"); return false },
	}, all})
	e.readEnd(e.Dial(address))
}

func addressesSet(e *Env) {
	to, from := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8::1]:99")
	address := e.Listen(Funcs{
		OnOpen: func(c loop.Conn) {
			assert.True(e, c.Remote().Addr().IsLoopback())
			c.SetAddrs(to, from)
		},
		OnServe: func(c loop.Conn) bool {
			c.Consume(len(c.Peek()))
			_, err := c.Write([]byte(c.Local().String() + " " + c.Remote().String() + "\n"))
			return err == nil && c.Flush() == nil
		},
	})
	c := e.Dial(address)
	e.write(c, "x")
	e.read(c, to.String()+" "+from.String()+"\n")
}
