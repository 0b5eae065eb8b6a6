package loop

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
	"atlas/proxy/uring"
)

const (
	ringEntries     = 512  // operations between two enters; a full queue is submitted on the way
	ringCompletions = 4096 // beyond it the kernel keeps the overflow (IORING_FEAT_NODROP)

	// Receive memory: 2 MiB, touched as used. A request head fits one buffer,
	// as does a head with a 1 KB body; 4,096 buffers instead of 512 measured
	// the same.
	buffersDefault     = 512
	bufferBytesDefault = 4096

	tasksKept    = 16          // idle tasks kept for ever; more are ended when unused for an interval
	trimInterval = time.Second // how long a burst's tasks are kept
	poolKept     = 2048        // free chunks and batches kept by a worker: 4 MiB and 1 MiB
	receiptsKept = 256         // as many bodies that are received at a time cost no allocation

	// acceptRetry is how long a listener waits after the process ran out of
	// descriptors. Re-arming at once would spin: the connection stays queued.
	acceptRetry = 100 * time.Millisecond
)

// ringLoop is a worker over one io_uring.
type ringLoop struct {
	config   Config
	ring     *uring.Ring
	buffers  *uring.Buffers
	counters Counters

	now   Instant
	clock time.Time

	// Operations name their connection by slot and generation. A slot is free
	// only when its last operation has completed (rule R1).
	slots     []*ringConn
	slotsFree []uint32
	gen       uint32
	conns     int // slots in use

	listeners []*ringListener
	evictNext int // slot that was looked at last for one to evict

	current    *task
	due        *task   // has got the connection of the completion at hand
	leader     *task   // turns the loop, on its own stack and without work; nil: run does
	free       []*task // idle tasks, last in first out
	freeLow    int     // fewest idle since the last trim
	busy       int     // tasks with work
	ready      []*task // to be resumed
	readySpare []*task
	forks      []*fork // to be started

	// Tasks in Yield, of which a turn resumes one.
	yielders      []*task // from yielderNext on
	yielderNext   int
	yieldersLater []*task // behind all of yielders

	fileOps     []*fileOp
	fileOpsFree []uint32
	waste       []byte // where pages are read to that only have to be in memory

	timers timers
	trim   timer

	views   []*ringConn // connections whose Peek may alias a ring buffer
	starved []*ringConn // receives that wait for a buffer to come back
	lent    int         // Writes that wait while the kernel reads the caller's memory

	batches []*batch                  // free list
	chunks  [][]byte                  // free list of sendChunkBytes each
	stashes [len(stashSizes)][][]byte // free lists of each size

	receipts []*receipt // free list

	address uring.Address // memory for the names of connections

	offs       int
	offWaiters []*task

	pipes pipes

	draining bool
	stopping bool

	// wakeFd is an eventfd: other goroutines append to posts and write to it.
	wakeFd    int
	wakeBytes []byte
	wakeArmed bool
	mu        sync.Mutex
	posts     []func()
	posted    bool
	ended     bool
	done      chan struct{}
}

// run turns until the worker has been drained or stopped and everything of it
// is gone.
func (l *ringLoop) run() {
	for !l.end() {
		l.turn()
	}
	l.close()
}

// turn is one round: one system call submits everything that was queued and
// waits; then completions, posts, timers and woken tasks run, and what they
// queue leaves with the next turn's call.
func (l *ringLoop) turn() {
	l.enter()
	l.reap(nil)
	l.endTurn()
}

// enter begins a turn.
func (l *ringLoop) enter() {
	if err := l.ring.Wait(l.patience()); err != nil {
		panic(fmt.Sprintf("loop: %v", err)) // a bug here, not the world's fault
	}
	l.tick()
	l.counters.Enters.Store(l.ring.Enters())
	if n := l.ring.Overflows(); n != l.counters.Overflow.Load() {
		l.counters.Overflow.Store(n)
	}
}

// reap gives completions to whom they are for. It is true as soon as one of them has
// made work for leader.
func (l *ringLoop) reap(leader *task) bool {
	for range ringCompletions {
		e, ok := l.ring.Next()
		if !ok {
			break
		}
		switch t := l.complete(e); t {
		case nil:
		case leader:
			return true
		default:
			t.leads = true // nobody else does, or it would have got the work
			l.resume(t)
		}
	}
	return false
}

func (l *ringLoop) endTurn() {
	l.expire()
	l.startForks()
	l.runReady()
	l.runYielder()
	l.releaseViews()
	l.feedStarved()
}

// patience is how long the next wait may take; negative is for ever.
func (l *ringLoop) patience() time.Duration {
	ready := len(l.ready) + len(l.forks) + len(l.yielders) - l.yielderNext + len(l.yieldersLater)
	if ready > 0 || len(l.starved) > 0 && l.buffers.Free() > 0 {
		return 0
	}
	next := l.timers.next()
	if next == 0 {
		return -1
	}
	return max(0, time.Duration(next-now()))
}

func (l *ringLoop) tick() {
	l.clock = time.Now()
	l.now = Instant(l.clock.Sub(started)) + 2
}

// Operation kinds in user data: kind, generation, slot.
const (
	opWake uint8 = iota
	opAccept
	opAcceptCancel
	opRecv     // multishot receive into ring buffers
	opRecvOnce // one receive into the task's memory
	opSend
	opConnect
	opPoll
	opPollIn
	opCancel
	opFile     // one read of a file
	opFileHint // advice about a file
)

const genMask = 1<<24 - 1

func userData(kind uint8, gen, slot uint32) uint64 {
	return uint64(kind) | uint64(gen&genMask)<<8 | uint64(slot)<<32
}

// complete gives one completion to its operation's owner. Of a connection that was idle it returns
// the task that serves it: that begins behind all else here, as it may lead.
func (l *ringLoop) complete(e uring.Completion) *task {
	kind, gen, slot := uint8(e.UserData), uint32(e.UserData>>8)&genMask, uint32(e.UserData>>32)
	switch kind {
	case opWake:
		l.runPosts()
		l.wakeArmed = false
		if !l.ended {
			l.armWake()
		}
		return nil
	case opAccept:
		l.listeners[slot].accepted(e)
		return nil
	case opAcceptCancel:
		l.listeners[slot].cancelled()
		return nil
	case opFile, opFileHint:
		l.fileDone(e, slot, kind == opFile)
		return nil
	}
	c := l.slots[slot]
	invariant.That(c != nil && c.gen == gen, "completion of an operation whose slot was freed")
	if !e.More() {
		c.ops--
	}
	switch kind {
	case opRecv:
		c.received(e)
	case opRecvOnce:
		c.receivedOnce(e.Result)
	case opSend:
		c.sent(e.Result)
	case opConnect:
		c.connected(e.Result)
	case opPoll:
		c.polled()
	case opPollIn:
		c.polledIn(e.Result)
	}
	if c.closing {
		c.settle()
	}
	t := l.due
	l.due = nil
	return t
}

// expire fires the timers that are due.
func (l *ringLoop) expire() {
	for {
		t := l.timers.pop(l.now)
		if t == nil {
			return
		}
		switch t.kind {
		case timerRead:
			t.conn.readTimerFired()
		case timerWrite:
			t.conn.writeTimerFired()
		case timerWake, timerDoze:
			t.wake()
		}
	}
}

func (l *ringLoop) startForks() {
	for n := 0; n < len(l.forks); n++ { // a fork may start forks
		f := l.forks[n]
		l.forks[n] = nil
		l.start(nil, f)
	}
	l.forks = l.forks[:0]
}

// feedStarved re-arms receives that found no buffer, as far as buffers are
// back: never all at once, or they would fail again at once (ENOBUFS spins).
// Those that are left have the next turn, which does not wait: what was armed
// here may be connections without bytes, of which no completion would come.
func (l *ringLoop) feedStarved() {
	n := min(len(l.starved), l.buffers.Free())
	for _, c := range l.starved[:n] {
		c.starving = false
		if c.wantRecv && !c.closing {
			c.armRecv()
		}
	}
	l.starved = append(l.starved[:0], l.starved[n:]...)
}

// releaseViews copies what tasks have not consumed out of ring buffers: none is
// held across a wait, or a slow peer would starve all others.
func (l *ringLoop) releaseViews() {
	for i, c := range l.views {
		c.releaseView()
		l.views[i] = nil
	}
	l.views = l.views[:0]
}

// Post appends to the posts and wakes the worker if nobody has yet.
func (l *ringLoop) Post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.posts = append(l.posts, f)
	if !l.posted {
		l.posted = true
		l.signal()
	}
	return true
}

// signal completes the read that is armed on the eventfd.
func (l *ringLoop) signal() {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := unix.Write(l.wakeFd, one); err != nil {
		panic(fmt.Sprintf("loop: wake worker: %v", err)) // an eventfd of ours, far from its maximum
	}
}

func (l *ringLoop) armWake() {
	l.wakeArmed = true
	l.ring.Read(l.wakeFd, l.wakeBytes, userData(opWake, 0, 0))
}

func (l *ringLoop) runPosts() {
	l.mu.Lock()
	posts := l.posts
	l.posts, l.posted = nil, false
	l.mu.Unlock()
	for _, f := range posts {
		f()
	}
}

// Off runs f on a helper goroutine; at most offsMax at a time, others wait.
func (l *ringLoop) Off(f func()) {
	t := l.current
	for l.offs >= offsMax {
		l.offWaiters = append(l.offWaiters, t)
		l.suspend()
	}
	l.offs++
	var done bool
	var thrown any
	back := func() {
		done = true
		l.offs--
		l.wake(t)
		if len(l.offWaiters) > 0 {
			l.wake(l.offWaiters[0])
			l.offWaiters = l.offWaiters[1:]
		}
	}
	go func() {
		defer func() {
			thrown = recover()
			l.Post(back) // the worker does not end while offs > 0
		}()
		f()
	}()
	for !done {
		l.suspend()
	}
	if thrown != nil {
		panic(thrown)
	}
}

// Sleep waits for at least d.
func (l *ringLoop) Sleep(d time.Duration) { l.sleep(d, timerWake, &l.stopping) }
func (l *ringLoop) Doze(d time.Duration)  { l.sleep(d, timerDoze, &l.draining) }

// sleep waits for d, or until it is over.
func (l *ringLoop) sleep(d time.Duration, kind timerKind, over *bool) {
	t := l.current
	due := now().After(d) // l.now is when this turn began
	alarm := timer{kind: kind, wake: func() { l.wake(t) }}
	for l.now < due && !*over {
		l.timers.ensure(&alarm, due)
		l.suspend()
	}
	l.timers.remove(&alarm)
}

func (l *ringLoop) Now() Instant        { return l.now }
func (l *ringLoop) Clock() time.Time    { return l.clock }
func (l *ringLoop) Draining() bool      { return l.draining }
func (l *ringLoop) Engine() Engine      { return IOUring }
func (l *ringLoop) Counters() *Counters { return &l.counters }
func (l *ringLoop) Wait()               { <-l.done }
