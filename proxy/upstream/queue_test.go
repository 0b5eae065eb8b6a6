package upstream

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// waiting is a client that asks for an upstream at its bound, on a connection of
// its own.
type waiting struct {
	*looptest.Peer
	begun chan struct{} // closed when it is its exchange that is served
	got   chan string   // the upstream's name, or the error
	let   chan struct{}
}

// queueing starts exchanges that pick or wait, one for each client that sends
// something, and that end when they are let.
func (r *rig) queueing() func() *waiting {
	next := make(chan *waiting, 100)
	address := r.Listen(looptest.Funcs{OnServe: func(c loop.Conn) bool {
		w := <-next
		close(w.begun)
		c.Consume(len(c.Peek()))
		target, err := r.pool.Pick(balance.Request{}, nil)
		if err == ErrFull {
			target, err = r.pool.Await(c, nil)
		}
		if err != nil {
			w.got <- err.Error()
			return false
		}
		w.got <- target.Name
		for ended := false; !ended; r.Loop.Sleep(time.Millisecond) {
			select {
			case <-w.let:
				ended = true
			default:
			}
		}
		r.pool.Done(target)
		return false
	}})
	return func() *waiting {
		w := &waiting{
			Peer: r.Client(address), begun: make(chan struct{}), got: make(chan string, 1), let: make(chan struct{}),
		}
		next <- w
		w.Send("x")
		<-w.begun // or a busy machine serves the next one as this one
		return w
	}
}

func (r *rig) awaitWaiting(n int32) {
	r.Eventually("exchanges to wait", func() bool { return r.pool.group.queue.waiting.Load() == n })
}

// Who comes first is served first, as slots get free.
func TestQueue(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1, MaxConnections: 2}, {Weight: 0}}
		r.to(addresses(2)...)
		ask := r.queueing()
		first, second := ask(), ask()
		assert.Equal(t, "a", <-first.got)
		assert.Equal(t, "a", <-second.got)
		var others []*waiting
		for i := range 3 {
			others = append(others, ask())
			r.awaitWaiting(int32(i + 1))
		}
		close(first.let)
		assert.Equal(t, "a", <-others[0].got)
		r.awaitWaiting(2)
		close(second.let)
		assert.Equal(t, "a", <-others[1].got)
		close(others[0].let)
		assert.Equal(t, "a", <-others[2].got)
		close(others[1].let)
		close(others[2].let)
		r.Eventually("all to end", func() bool { return r.pool.group.Active() == 0 })
		last := ask()
		assert.Equal(t, "a", <-last.got, "nobody waits any more")
		close(last.let)
	})
}

// One whose client leaves, or who waits too long, takes nobody's slot.
func TestQueueLeave(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1, MaxConnections: 1}}
		r.options.QueueWait = 2 * time.Second // within which a busy machine sees that a client has left
		r.options.QueueMax = 2
		r.to(addresses(1)...)
		ask := r.queueing()
		first := ask()
		assert.Equal(t, "a", <-first.got)
		gone, late := ask(), ask()
		r.awaitWaiting(2)
		assert.Equal(t, ErrQueueFull.Error(), <-ask().got)
		gone.Reset()
		assert.Equal(t, loop.ErrGuard.Error(), <-gone.got)
		assert.Equal(t, ErrQueueWait.Error(), <-late.got)
		r.awaitWaiting(0)
		close(first.let)
		r.Eventually("it to end", func() bool { return r.pool.group.Active() == 0 })
		again := ask()
		assert.Equal(t, "a", <-again.got)
		close(again.let)
	})
}

// An upstream that comes back takes those who wait.
func TestQueueEndsWithHealth(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1, MaxConnections: 1}, {Weight: 1, MaxConnections: 1}}
		r.to(addresses(2)...)
		g := r.pool.group
		g.settle(g.Endpoints()[1], true, nil)
		ask := r.queueing()
		first := ask()
		assert.Equal(t, "a", <-first.got)
		second := ask()
		r.awaitWaiting(1)
		g.settle(g.Endpoints()[1], false, nil)
		assert.Equal(t, "b", <-second.got)
		close(first.let)
		close(second.let)
	})
}

// Whatever happens at once, no slot is lost or taken twice.
func TestQueueStress(t *testing.T) {
	const slots, clients = 3, 40
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1, MaxConnections: slots}}
		r.options.QueueMax = clients
		r.to(addresses(1)...)
		var active, most, served atomic.Int64
		address := r.Listen(looptest.Funcs{OnServe: func(c loop.Conn) bool {
			c.Consume(len(c.Peek()))
			target, err := r.pool.Pick(balance.Request{}, nil)
			if err == ErrFull {
				target, err = r.pool.Await(c, nil)
			}
			if err != nil {
				return false
			}
			most.Store(max(most.Load(), active.Add(1)))
			r.Loop.Sleep(time.Millisecond)
			active.Add(-1)
			served.Add(1)
			r.pool.Done(target)
			return false
		}})
		for i := range clients {
			c := r.Client(address)
			c.Send("x")
			if i%3 == 0 {
				c.Reset()
			}
		}
		r.Eventually("all to be served", func() bool { return served.Load() >= clients-(clients+2)/3 })
		r.Eventually("all to end", func() bool { return r.pool.group.Active() == 0 })
		assert.LessOrEqual(t, most.Load(), int64(slots))
		assert.Zero(t, r.pool.group.queue.waiting.Load())
	})
}
