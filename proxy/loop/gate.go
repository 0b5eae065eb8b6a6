package loop

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrFull is why accepting waits at the bound of a Gate.
var ErrFull = errors.New("there are as many client connections as are allowed")

// Scarce reports an error that says that this machine, or what it allows this
// process, has no descriptor or memory now. Later it may have.
func Scarce(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
		errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// nearBacklogs is how near to its bound a Gate has its workers accept one by one:
// a multishot accept may bring a whole backlog before it can be cancelled.
const nearBacklogs = 4096

// Gate bounds the accepted connections of all workers together. At the bound a
// worker stops accepting, with one connection at most in its hands that waits; the
// others wait in the kernel's backlog. Who leaves lets the first in that waits.
//
// The zero Gate has no bound. Any goroutine.
type Gate struct {
	bound atomic.Int64 // 0: none
	open  atomic.Int64
	queue atomic.Int32 // len(waiting), to be read without the lock

	mu      sync.Mutex
	waiting []*gateWaiter // first come, first served
	evict   []func(int)   // one a worker: asks it to end an idle connection
	next    int           // whose turn that is
}

// gateWaiter is a place in the queue.
type gateWaiter struct{ granted func() }

// Bound changes how many connections there may be; 0 is any number. Those that
// are open stay.
func (g *Gate) Bound(n int) {
	g.bound.Store(int64(n))
	if g.queue.Load() > 0 {
		g.grant()
	}
}

// Open is how many connections there are.
func (g *Gate) Open() int64 { return g.open.Load() }

// enter counts a connection in. Nobody overtakes who waits.
func (g *Gate) enter() bool { return g.queue.Load() == 0 && g.tryEnter() }

func (g *Gate) tryEnter() bool {
	for {
		open, bound := g.open.Load(), g.bound.Load()
		if bound > 0 && open >= bound {
			return false
		}
		if g.open.CompareAndSwap(open, open+1) {
			return true
		}
	}
}

// force counts a connection in, whatever the bound is.
func (g *Gate) force() { g.open.Add(1) }

// leave counts a connection out. The number goes down before the queue is looked
// at, and who waits is in the queue before it looks at the number: one of the two
// sees the other.
func (g *Gate) leave() {
	g.open.Add(-1)
	if g.queue.Load() > 0 {
		g.grant()
	}
}

// near reports that the bound is so near that many at once could pass it.
func (g *Gate) near() bool {
	bound := g.bound.Load()
	return bound > 0 && bound-g.open.Load() < nearBacklogs
}

// wait has granted called, on any goroutine, once the connection of who waits has
// been counted in: perhaps at once.
func (g *Gate) wait(granted func()) *gateWaiter {
	w := &gateWaiter{granted}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	g.queue.Store(int32(len(g.waiting)))
	g.mu.Unlock()
	g.grant()
	return w
}

// giveUp takes w out of the queue. It reports false if it has been granted, or is
// just about to be.
func (g *Gate) giveUp(w *gateWaiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range g.waiting {
		if other == w {
			g.waiting = append(g.waiting[:i], g.waiting[i+1:]...)
			g.queue.Store(int32(len(g.waiting)))
			return true
		}
	}
	return false
}

// grant lets in who waits, as far as there is room.
func (g *Gate) grant() {
	for {
		g.mu.Lock()
		if len(g.waiting) == 0 || !g.tryEnter() {
			g.mu.Unlock()
			return
		}
		w := g.waiting[0]
		g.waiting[0] = nil
		g.waiting = g.waiting[1:]
		g.queue.Store(int32(len(g.waiting)))
		g.mu.Unlock()
		w.granted()
	}
}

// join names a worker that may be asked to end an idle connection, by a function
// that it runs. Where that finds none, the next worker is asked.
func (g *Gate) join(worker Loop, evictIdle func() bool) {
	evict := func(tries int) {
		taken := worker.Post(func() {
			if !evictIdle() {
				g.ask(tries)
			}
		})
		if !taken {
			g.ask(tries)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.evict = append(g.evict, evict)
}

// makeRoom has a worker end an idle connection: each in its turn, until one does.
func (g *Gate) makeRoom() {
	g.mu.Lock()
	tries := len(g.evict)
	g.mu.Unlock()
	g.ask(tries)
}

// ask asks the next worker, if somebody still waits.
func (g *Gate) ask(tries int) {
	g.mu.Lock()
	if tries == 0 || len(g.waiting) == 0 {
		g.mu.Unlock()
		return
	}
	evict := g.evict[g.next%len(g.evict)]
	g.next++
	g.mu.Unlock()
	evict(tries - 1)
}

const (
	// evictAge is how long a connection has to be idle before it may be ended for
	// want of room: the clients of busy ones come back at once, and in a crowd.
	evictAge = time.Second
	// evictLook is how many connections are looked at for the one that has been
	// idle for longest: the oldest of 64 is among the oldest 7 % nearly always.
	evictLook = 64
	// evictScan is how many are passed over for them.
	evictScan = 1024
)

// Follower is told that an accepted connection is gone.
type Follower interface {
	// Gone is called once, on the worker, when the descriptor is closed. It must
	// not wait.
	Gone()
}

// Follow has f told of the end of an accepted connection, or of what it stands on:
// one follower for each. false says that it has ended already.
func Follow(c Conn, f Follower) bool {
	return under(c).(interface{ follow(Follower) bool }).follow(f)
}
