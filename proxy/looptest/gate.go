package looptest

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// gateTests are about the bound of accepted connections.
var gateTests = map[string]func(*Env){
	"GateHolds":            gateHolds,
	"GateIsRaised":         gateIsRaised,
	"GateIsShared":         gateIsShared,
	"GateDrains":           gateDrains,
	"GateStops":            gateStops,
	"GateEvictsIdle":       gateEvictsIdle,
	"GateEvictsElsewhere":  gateEvictsElsewhere,
	"GateAndManyAtOnce":    gateAndManyAtOnce,
	"FollowerIsTold":       followerIsTold,
	"FollowerIsToldFirst":  followerIsToldFirst,
	"FollowerOfResetConns": followerOfResetConns,
}

// behind starts the worker anew, behind a gate.
func (e *Env) behind(bound int) *loop.Gate {
	e.Helper()
	gate := new(loop.Gate)
	gate.Bound(bound)
	cfg := e.config
	cfg.Gate = gate
	e.restart(cfg)
	return gate
}

// busy is a client in the middle of an exchange, which nobody evicts: it has sent
// the first of two bytes and had it back.
func (e *Env) busy(address string) *net.TCPConn {
	c := e.Dial(address)
	e.write(c, "a")
	e.read(c, "a")
	return c
}

// twoBytes echoes two bytes in one call of Serve, and keeps the connection.
func twoBytes(c loop.Conn) bool {
	for range 2 {
		if len(c.Peek()) == 0 && c.Fill() != nil {
			return false
		}
		_, err := c.Write(c.Peek()[:1])
		c.Consume(1)
		if err != nil || c.Flush() != nil {
			return false
		}
	}
	return true
}

// held wants a client to be connected by the system, and to hear nothing.
func (e *Env) held(address string) *net.TCPConn {
	e.Helper()
	c := e.Dial(address)
	e.write(c, "a")
	require.NoError(e, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	n, err := c.Read(make([]byte, 1))
	require.Zero(e, n)
	require.ErrorContains(e, err, "timeout")
	require.NoError(e, c.SetReadDeadline(time.Now().Add(patience)))
	return c
}

func gateHolds(e *Env) {
	gate := e.behind(2)
	address := e.Serve(twoBytes)
	first, second := e.busy(address), e.busy(address)
	third := e.held(address)
	fourth := e.held(address)
	assert.EqualValues(e, 2, gate.Open())
	e.eventually("the third to be counted", func() bool { return e.Loop.Counters().Full.Load() > 0 })
	require.NoError(e, first.Close())
	e.read(third, "a")
	require.NoError(e, second.Close())
	e.read(fourth, "a")
	assert.EqualValues(e, 2, gate.Open())
	require.NoError(e, third.Close())
	require.NoError(e, fourth.Close())
	e.eventually("all to be gone", func() bool { return gate.Open() == 0 })
	e.busy(address)
}

func gateIsRaised(e *Env) {
	gate := e.behind(1)
	address := e.Serve(twoBytes)
	e.busy(address)
	second, third := e.held(address), e.held(address)
	gate.Bound(3)
	e.read(second, "a")
	e.read(third, "a")
	gate.Bound(1) // nobody is cut
	e.write(second, "b")
	e.read(second, "b")
	fourth := e.held(address)
	gate.Bound(0)
	e.read(fourth, "a")
}

func gateIsShared(e *Env) {
	gate := e.behind(1)
	address := e.Serve(twoBytes)
	other := New(e.TB, loop.Config{Engine: e.config.Engine, CPU: -1, Gate: gate})
	there := other.Serve(twoBytes)
	for range 3 {
		here := e.busy(address)
		waits := e.held(there)
		require.NoError(e, here.Close())
		e.read(waits, "a")
		back := e.held(address)
		require.NoError(e, waits.Close())
		e.read(back, "a")
		require.NoError(e, back.Close())
		e.eventually("all to be gone", func() bool { return gate.Open() == 0 })
	}
	e.Loop.Stop() // its tasks are goroutines that the other worker does not know
	wait(e, "worker to end", e.Loop.Wait)
}

func gateDrains(e *Env) {
	e.behind(1)
	address := e.Serve(func(c loop.Conn) bool { return twoBytes(c) && !c.Loop().Draining() })
	first := e.busy(address)
	second := e.held(address)
	e.Loop.Drain()
	e.read(second, "a") // it was accepted, so it is served
	e.write(first, "b")
	e.read(first, "b")
	e.readEnd(first)
	e.write(second, "b")
	e.read(second, "b")
	e.readEnd(second)
	wait(e, "worker to end", e.Loop.Wait)
}

func gateStops(e *Env) {
	gate := e.behind(1)
	address := e.Serve(twoBytes)
	e.busy(address)
	e.held(address)
	e.Loop.Stop()
	wait(e, "worker to end", e.Loop.Wait)
	assert.Zero(e, gate.Open())
}

// The one that has been idle for longest makes room, and only after a moment.
func gateEvictsIdle(e *Env) {
	e.behind(2)
	address := e.Serve(func(c loop.Conn) bool { return twoBytes(c) })
	oldest := e.busy(address)
	e.write(oldest, "b")
	e.read(oldest, "b")
	time.Sleep(20 * time.Millisecond)
	younger := e.busy(address)
	e.write(younger, "b")
	e.read(younger, "b")
	third := e.held(address)
	e.read(third, "a")
	e.readEnd(oldest)
	assert.EqualValues(e, 1, e.Loop.Counters().Evicted.Load())
	e.write(younger, "c")
	e.read(younger, "c")
}

func gateEvictsElsewhere(e *Env) {
	gate := e.behind(1)
	address := e.Serve(twoBytes)
	other := New(e.TB, loop.Config{Engine: e.config.Engine, CPU: -1, Gate: gate})
	there := other.Serve(twoBytes)
	silent := e.Dial(address) // it has never said a word
	e.eventually("it to be accepted", func() bool { return gate.Open() == 1 })
	e.read(other.held(there), "a")
	e.readEnd(silent)
}

// A crowd that comes at once does not pass the bound.
func gateAndManyAtOnce(e *Env) {
	const bound, clients = 5, 200
	gate := e.behind(bound)
	var most atomic.Int64
	address := e.Serve(func(c loop.Conn) bool {
		for now := gate.Open(); ; {
			if old := most.Load(); now <= old || most.CompareAndSwap(old, now) {
				break
			}
		}
		return twoBytes(c)
	})
	var crowd []*net.TCPConn
	for range clients {
		c := e.Dial(address)
		e.write(c, "ab")
		crowd = append(crowd, c)
	}
	for _, c := range crowd {
		require.NoError(e, c.SetReadDeadline(time.Now().Add(patience)))
	}
	for left := crowd; len(left) > 0; left = left[1:] {
		e.read(left[0], "ab")
		require.NoError(e, left[0].Close())
	}
	assert.LessOrEqual(e, most.Load(), int64(bound))
}

// told counts its calls.
type told struct{ n atomic.Int32 }

func (t *told) Gone() { t.n.Add(1) }

func followerIsTold(e *Env) {
	var follower told
	address := e.Listen(Funcs{
		OnOpen:  func(c loop.Conn) { assert.True(e, loop.Follow(c, &follower)) },
		OnServe: twoBytes,
	})
	c := e.busy(address)
	assert.Zero(e, follower.n.Load())
	require.NoError(e, c.Close())
	e.eventually("the follower to be told", func() bool { return follower.n.Load() > 0 })
	e.Loop.Stop()
	wait(e, "worker to end", e.Loop.Wait)
	assert.EqualValues(e, 1, follower.n.Load())
}

// census notes how many places of a gate were taken when it was told.
type census struct {
	gate *loop.Gate
	open atomic.Int64
}

func (c *census) Gone() { c.open.Store(c.gate.Open()) }

// Whoever gets the place finds that the connection before it counts no more: it may
// be of the same client, which has no more than its share.
func followerIsToldFirst(e *Env) {
	follower := &census{gate: e.behind(1)}
	address := e.Listen(Funcs{
		OnOpen:  func(c loop.Conn) { assert.True(e, loop.Follow(c, follower)) },
		OnServe: twoBytes,
	})
	for _, end := range []func(*net.TCPConn){
		func(c *net.TCPConn) { _ = c.Close() },
		func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
	} {
		end(e.busy(address))
		e.eventually("the place to be free", func() bool { return follower.gate.Open() == 0 })
		assert.EqualValues(e, 1, follower.open.Swap(0))
	}
}

func followerOfResetConns(e *Env) {
	var follower told
	address := e.Listen(Funcs{
		OnOpen: func(c loop.Conn) {
			loop.Follow(c, &follower)
			c.Reset()
			assert.False(e, loop.Follow(c, &follower), "it is gone")
		},
		OnServe: twoBytes,
	})
	c, err := e.connect(address)
	if err == nil { // else it was reset that soon
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	assert.ErrorContains(e, err, "reset")
	e.eventually("the follower to be told", func() bool { return follower.n.Load() == 1 })
}
