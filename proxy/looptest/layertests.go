package looptest

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// layerTests are about what a protocol between a connection and its handler needs.
var layerTests = map[string]func(*Env){
	"room: what is written without a wait":               roomIsThere,
	"a guard on a client that is a layer":                guardedLayer,
	"a parked connection goes on after bytes":            parkedGoesOn,
	"an unparked connection goes on after bytes":         unparkedGoesOn,
	"a last word: idle, and in a drain":                  lastWord,
	"a last word: a drain gives a fresh connection time": freshInDrain,
}

// On a connection whose peer reads nothing, Write never waits for what there is
// Room for: the test's task is not a task, where a wait would end the process.
func roomIsThere(e *Env) {
	_, c := e.peers()
	e.Post(func() {
		p := make([]byte, 1<<20)
		for range 1000 {
			room := c.Room()
			if room == 0 {
				break
			}
			n, err := c.Write(p[:1+(room-1)/2])
			assert.Equal(e, 1+(room-1)/2, n)
			assert.NoError(e, err)
		}
		assert.Less(e, c.Room(), 2, "it is used up in the end")
		c.Reset()
	})
}

// overlay is a layer that does nothing.
type overlay struct{ loop.Conn }

func (o overlay) Under() loop.Conn { return o.Conn }

func guardedLayer(e *Env) {
	peer, client := e.peers()
	_, up := e.peers()
	e.Task(func() {
		up.Guard(overlay{client})
		waits := e.Loop.Go(func() { assert.Equal(e, loop.ErrGuard, up.Fill()) })
		assert.NoError(e, peer.Close())
		assert.NoError(e, waits.Join())
		up.Guard(nil)
		client.Close()
		up.Close()
	})
}

// ticket takes what a parked connection has heard and parks it again, as long as
// it is the same.
type ticket struct {
	heard chan string
	lost  lost
}

func (t ticket) Lost(c loop.Conn) {
	text := string(c.Peek())
	c.Consume(len(text))
	if text != "" && c.Unpark() {
		c.Park(t)
		t.heard <- text
		return
	}
	t.lost.Lost(c)
}

func parkedGoesOn(e *Env) {
	peer, c := e.peers()
	told := ticket{make(chan string, 10), make(lost, 1)}
	e.Task(func() { c.Park(told) })
	for _, text := range []string{"ticket", "another"} {
		e.write(peer, text)
		wait(e, "what was said", func() { assert.Equal(e, text, <-told.heard) })
	}
	require.NoError(e, peer.Close())
	wait(e, "loss", func() { assert.Same(e, c, <-told.lost) })
}

func unparkedGoesOn(e *Env) {
	peer, c := e.peers()
	told := ticket{make(chan string, 1), make(lost, 1)}
	e.Task(func() { c.Park(told) })
	e.write(peer, "ticket")
	heard := false
	e.eventually("the bytes", func() bool {
		e.Task(func() {
			usable := c.Unpark()
			if !usable && assert.Equal(e, "ticket", string(c.Peek())) {
				c.Consume(len("ticket"))
				usable, heard = c.Unpark(), true
			}
			assert.True(e, usable)
			c.Park(told)
		})
		return heard || len(told.heard) > 0
	})
	e.Task(func() {
		assert.True(e, c.Unpark())
		c.Close()
	})
}

// polite is a handler with a last word.
type polite struct {
	Funcs
	fresh bool
}

func (p *polite) Leave(c loop.Conn) {
	room := c.Room()
	_, _ = c.Write([]byte("bye")[:min(3, room)])
}

func (p *polite) Fresh(loop.Conn) bool { return p.fresh }

func lastWord(e *Env) {
	h := &polite{Funcs: Funcs{OnServe: func(c loop.Conn) bool {
		if string(c.Peek()) == "soon\n" {
			c.SetReadDeadline(e.Loop.Now().After(20 * time.Millisecond))
		}
		return echoLines(c)
	}}}
	address := e.Listen(h)
	first, second := e.Dial(address), e.Dial(address)
	e.write(first, "soon\n")
	e.read(first, "soon\nbye")
	e.readEnd(first)
	e.write(second, "x\n")
	e.read(second, "x\n")
	e.Loop.Drain()
	e.read(second, "bye")
	e.readEnd(second)
	wait(e, "worker", e.Loop.Wait)
}

// What has served only what comes before the first exchange is not idle: its
// request may be on the way.
func freshInDrain(e *Env) {
	e.spokenTo()
	h := &polite{fresh: true}
	h.OnServe = func(c loop.Conn) bool {
		h.fresh = string(c.Peek()) != "request\n"
		return echoLines(c)
	}
	address := e.Listen(h)
	c := e.Dial(address)
	e.write(c, "hello\n")
	e.read(c, "hello\n")
	e.Loop.Drain()
	time.Sleep(20 * time.Millisecond)
	e.write(c, "request\n")
	e.read(c, "request\nbye")
	e.readEnd(c)
	wait(e, "worker", e.Loop.Wait)
}
