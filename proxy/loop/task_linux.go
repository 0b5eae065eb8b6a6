package loop

import (
	"fmt"
	"iter"
	"runtime/debug"

	"atlas/proxy/invariant"
)

// task is a coroutine of the worker's locked thread. iter.Pull makes it: a
// round trip is 75 ns and allocates nothing, and one made on a locked thread
// can only run on it, which is what a worker wants.
//
// Tasks are reused last in, first out: their stacks stay few and warm.
type task struct {
	loop  *ringLoop
	next  func() (struct{}, bool)
	yield func(struct{}) bool

	conn *ringConn // serve this connection, or
	fork *fork     // run this function

	leads   bool // was started by run and has not waited: turns the loop when it is done
	running bool // has work; false in the free list
	queued  bool // in the loop's ready list
	yielded bool // waits in Yield for its turn
	end     bool // return instead of waiting for more work
}

// fork is a function started by Go, and its Task. It outlives the coroutine
// that ran it, which serves others by the time it is joined.
type fork struct {
	loop   *ringLoop
	f      func()
	done   bool
	err    error
	joiner *task
}

func (l *ringLoop) newTask() *task {
	t := &task{loop: l}
	t.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		for !t.end {
			t.work()
			l.finish(t)
			if !t.leads || !l.lead(t) {
				yield(struct{}{})
			}
		}
	})
	l.counters.Tasks.Add(1)
	return t
}

// work runs what the task was taken for, and survives its panics.
func (t *task) work() {
	defer func() {
		if value := recover(); value != nil {
			t.loop.panicked(t, value, debug.Stack())
		}
	}()
	if t.fork != nil {
		t.fork.f()
		return
	}
	c := t.conn
	keep := c.handler.Serve(c)
	c.served = true
	if !keep || len(c.in) > 0 || c.closing {
		c.Close()
		return
	}
	c.rest()
	if t.loop.draining && c.idle {
		c.drain()
	}
}

// start runs a task at once.
func (l *ringLoop) start(c *ringConn, f *fork) { l.resume(l.assign(c, f)) }

// assign takes a task off the free list, or makes one, that has work now.
func (l *ringLoop) assign(c *ringConn, f *fork) *task {
	var t *task
	if n := len(l.free); n > 0 {
		t = l.free[n-1]
		l.free = l.free[:n-1]
		l.freeLow = min(l.freeLow, n-1)
	} else {
		t = l.newTask()
		l.freeLow = 0
	}
	l.occupy(t, c, f)
	return t
}

// server takes the task for a connection whose bytes begin an exchange: who leads, if
// somebody does.
func (l *ringLoop) server(c *ringConn) *task {
	t := l.leader
	if t == nil {
		return l.assign(c, nil)
	}
	l.leader = nil
	l.occupy(t, c, nil)
	return t
}

// occupy gives an idle task work.
func (l *ringLoop) occupy(t *task, c *ringConn, f *fork) {
	t.conn, t.fork, t.running = c, f, true
	l.busy++
}

// finish is the end of a task's work.
func (l *ringLoop) finish(t *task) {
	l.current, t.running, t.queued = nil, false, false
	l.busy--
	if f := t.fork; f != nil {
		f.done = true
		l.wake(f.joiner)
	}
	t.conn, t.fork = nil, nil
}

// lead turns the loop on the stack of a task that is done, until there is work for it: a
// request that nobody has to wait for costs no switch to the loop and back, which were 4 % of a
// small file. It is false where the loop is run's again.
func (l *ringLoop) lead(t *task) bool {
	defer keepStack()
	l.leader = t
	for !l.reap(t) {
		l.endTurn()
		if l.draining {
			l.leader, t.leads = nil, false
			return false // run knows when all has ended
		}
		l.enter()
	}
	l.current = t
	return true
}

// keepStack has a panic of the loop say where it was: iter.Pull brings it to run without that.
func keepStack() {
	if value := recover(); value != nil {
		panic(fmt.Sprintf("%v\n\n%s", value, debug.Stack()))
	}
}

// resume runs t until it waits, or is done and does not lead. Only the loop calls it,
// never a task that has work.
func (l *ringLoop) resume(t *task) {
	invariant.That(t.running && l.current == nil, "resumed an idle task, or from within one")
	t.queued = false
	l.current = t
	t.next()
	l.current = nil
	if t.running {
		return
	}
	l.free = append(l.free, t)
	if len(l.free) > tasksKept && l.trim.index == 0 {
		l.timers.ensure(&l.trim, l.now.After(trimInterval))
	}
}

// suspend gives the thread back to the loop until someone wakes the task. Who
// calls it looks again at what it waits for: a task may be woken too often.
func (l *ringLoop) suspend() {
	l.releaseViews()
	l.current.leads = false
	l.current.yield(struct{}{})
}

// wake has t resumed in this turn or the next.
func (l *ringLoop) wake(t *task) {
	if t == nil || t.queued {
		return
	}
	t.queued = true
	l.ready = append(l.ready, t)
}

// runReady resumes what was woken. Tasks woken meanwhile wait for the next
// turn, so that a task that keeps waking itself lets completions through.
func (l *ringLoop) runReady() {
	batch := l.ready
	l.ready = l.readySpare[:0]
	for i, t := range batch {
		batch[i] = nil
		if t.queued {
			l.resume(t)
		}
	}
	l.readySpare = batch[:0]
}

// trimTasks ends the tasks that the last interval had no use for.
func (l *ringLoop) trimTasks() {
	surplus := min(l.freeLow, len(l.free)-tasksKept)
	for range surplus {
		// The bottom of the list is the coldest.
		t := l.free[0]
		l.free = l.free[1:]
		t.end = true
		t.next()
		l.counters.Tasks.Add(-1)
	}
	l.free = append([]*task(nil), l.free...) // let go of the ended ones
	l.freeLow = len(l.free)
	if len(l.free) > tasksKept {
		l.timers.ensure(&l.trim, l.now.After(trimInterval))
	}
}

// panicked contains a panic: its connection is reset, the others go on. Whoever
// joins a fork that panicked learns it there.
func (l *ringLoop) panicked(t *task, value any, stack []byte) {
	l.counters.Panics.Add(1)
	if l.config.Panicked != nil {
		l.config.Panicked(value, stack)
	}
	if t.fork != nil {
		t.fork.err = ErrPanic
		return
	}
	t.conn.Reset()
}

// Go starts f in the next turn.
func (l *ringLoop) Go(f func()) Task {
	started := &fork{loop: l, f: f}
	l.forks = append(l.forks, started)
	return started
}

// Join waits for the fork's end.
func (f *fork) Join() error {
	for !f.done {
		f.joiner = f.loop.current
		f.loop.suspend()
	}
	f.joiner = nil
	return f.err
}
