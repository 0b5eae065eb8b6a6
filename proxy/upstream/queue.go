package upstream

import (
	"container/list"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"atlas/proxy/loop"
)

// Errors of an exchange that finds all upstreams at their bound.
var (
	ErrFull      = errors.New("every upstream has as many requests as it may")
	ErrQueueFull = errors.New("too many requests wait for an upstream")
	ErrQueueWait = errors.New("no upstream had room in time")
)

// queue holds the exchanges of all workers that wait for a free slot, in their
// order. It exists for upstreams with MaxConnections only: nobody else comes
// here, so its lock is on no hot path.
type queue struct {
	group   *Group
	waiting atomic.Int32 // list.Len(), readable without the lock

	mu   sync.Mutex
	list list.List // of *waiter
}

// waiter is an exchange that waits.
type waiter struct {
	loop    loop.Loop
	client  loop.Conn
	tried   []*Endpoint
	place   *list.Element
	granted *Endpoint // its slot is ours; under queue.mu
}

// join appends a waiter, if there is room.
func (q *queue) join(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.list.Len() >= q.group.set.Load().options.QueueMax {
		return false
	}
	w.place = q.list.PushBack(w)
	q.waiting.Store(int32(q.list.Len()))
	return true
}

// has reports that a waiter was granted a slot. Being woken does not say so: the
// word may be about an earlier wait of the same client.
func (q *queue) has(w *waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return w.granted != nil
}

// leave takes a waiter out, and returns what it was granted, if it was.
func (q *queue) leave(w *waiter) *Endpoint {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.granted == nil {
		q.list.Remove(w.place)
		q.waiting.Store(int32(q.list.Len()))
	}
	return w.granted
}

// dispatch gives free slots to those who have waited longest, and wakes them.
// Whoever frees a slot calls it after that, and whoever joins after having
// joined: so no slot stays free while somebody waits for it.
func (q *queue) dispatch() {
	if q.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for place := q.list.Front(); place != nil; {
		w, next := place.Value.(*waiter), place.Next()
		if q.grant(w) {
			q.list.Remove(place)
		} else if len(w.tried) == 0 {
			break // what is not for it is for nobody behind it
		}
		place = next
	}
	q.waiting.Store(int32(q.list.Len()))
}

// grant takes the slot for a waiter that has the least to do for its weight, and
// wakes it.
func (q *queue) grant(w *waiter) bool {
	s := q.group.set.Load()
	for {
		var best *Endpoint
		var load, share int64
		for i, e := range s.endpoints {
			weight := int64(s.weights[i])
			if weight == 0 || !e.up() || !e.free() || slices.Contains(w.tried, e) {
				continue
			}
			if active := int64(e.active.Load()); best == nil || active*share < load*weight {
				best, load, share = e, active, weight
			}
		}
		if best == nil {
			return false
		}
		if best.acquire() {
			w.granted = best
			w.loop.Post(w.client.Notify)
			return true
		}
	}
}

// free reports that the endpoint has room for an exchange.
func (e *Endpoint) free() bool {
	most := e.upstream.Load().MaxConnections
	return most == 0 || int(e.active.Load()) < most
}

// acquire counts an exchange in, if there is room.
func (e *Endpoint) acquire() bool {
	most := int32(e.upstream.Load().MaxConnections)
	if most == 0 {
		e.active.Add(1)
		return true
	}
	for {
		n := e.active.Load()
		if n >= most {
			return false
		}
		if e.active.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release counts an exchange out, and gives its slot to one that waits.
func (g *Group) release(e *Endpoint) {
	e.active.Add(-1)
	g.queue.dispatch()
}
