package loop

import (
	"slices"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

// ringListener accepts for one worker. The socket belongs to the Listener, and
// so to the process (rule R9): the worker only stops accepting from it.
type ringListener struct {
	loop       *ringLoop
	listener   *Listener
	sharer     sharer
	fd         int
	handler    Handler
	slot       uint32
	armed      bool
	multishot  bool // what is armed
	starved    bool // waits for descriptors
	closing    bool
	cancelling bool
	ended      []func() // who asked to close it
	retry      timer

	held   []int       // accepted, but beyond the bound: more than one only after a multishot accept
	waiter *gateWaiter // the place of the first of them in the queue
}

// Listen arms an accept.
func (l *ringLoop) Listen(ln *Listener, h Handler) error {
	if l.draining {
		return ErrStopped
	}
	if rl := l.listening(ln); rl != nil && !rl.closing {
		rl.handler = h
		return nil
	}
	fd, err := ln.detach()
	if err != nil {
		return err
	}
	slot := slices.Index(l.listeners, nil)
	if slot < 0 {
		slot = len(l.listeners)
		l.listeners = append(l.listeners, nil)
	}
	rl := &ringListener{loop: l, listener: ln, fd: fd, handler: h, slot: uint32(slot)}
	rl.retry = timer{kind: timerWake, wake: rl.again}
	rl.sharer = sharer{worker: l, counters: &l.counters, gate: l.config.Gate, accepts: rl}
	ln.share.join(&rl.sharer)
	l.listeners[slot] = rl
	rl.arm()
	return nil
}

// Unlisten cancels the accept.
func (l *ringLoop) Unlisten(ln *Listener, ended func()) {
	rl := l.listening(ln)
	if rl == nil {
		ended()
		return
	}
	rl.ended = append(rl.ended, ended)
	rl.close()
	rl.settle()
}

// listening finds what accepts of ln.
func (l *ringLoop) listening(ln *Listener) *ringListener {
	for _, rl := range l.listeners {
		if rl != nil && rl.listener == ln {
			return rl
		}
	}
	return nil
}

// SetRateMin replaces the rate of Config.
func (l *ringLoop) SetRateMin(bytes int64) { l.config.RateMin = bytes }

// arm accepts one after the other without being asked again, but near the bound
// one at a time.
func (rl *ringListener) arm() {
	if rl.armed || rl.closing || len(rl.held) > 0 {
		return
	}
	rl.armed, rl.starved = true, false
	rl.multishot = !rl.loop.config.Gate.near()
	if rl.multishot {
		rl.loop.ring.AcceptMultishot(rl.fd, userData(opAccept, 0, rl.slot))
	} else {
		rl.loop.ring.Accept(rl.fd, userData(opAccept, 0, rl.slot))
	}
}

// disarm ends a multishot accept.
func (rl *ringListener) disarm() {
	if rl.armed && !rl.cancelling {
		rl.cancelling = true
		rl.loop.ring.Cancel(userData(opAccept, 0, rl.slot), userData(opAcceptCancel, 0, rl.slot))
	}
}

// accepted takes one connection, or learns that accepting has stopped.
func (rl *ringListener) accepted(e uring.Completion) {
	if !e.More() {
		rl.armed = false
	}
	defer rl.settle()
	if e.Result >= 0 {
		rl.admit(int(e.Result))
		rl.arm()
		if rl.multishot && rl.loop.config.Gate.near() {
			rl.disarm()
		}
		return
	}
	switch errno := unix.Errno(-e.Result); errno {
	case unix.ECANCELED, unix.ECONNABORTED, unix.EINTR, unix.EAGAIN:
		rl.arm() // we did that, or the network to one connection, or nothing happened
	default:
		// EMFILE, ENFILE, ENOBUFS, ENOMEM: no descriptor or memory now, later
		// there may be. Never at once, nor for an error that nobody foresaw:
		// the connection stays queued, so the worker would spin.
		l := rl.loop
		l.counters.Refused.Add(1)
		rl.starved = true
		l.timers.ensure(&rl.retry, l.now.After(acceptRetry))
		l.evictIdle()
		l.config.held(errno)
	}
}

// again tries what had to wait for a moment.
func (rl *ringListener) again() {
	if len(rl.held) == 0 {
		rl.arm()
		return
	}
	rl.loop.timers.ensure(&rl.retry, rl.loop.now.After(acceptRetry))
	rl.loop.config.Gate.makeRoom()
}

// freed has listeners that wait for descriptors try again: one was closed.
func (l *ringLoop) freed() {
	for _, rl := range l.listeners {
		if rl != nil && rl.starved {
			rl.arm()
		}
	}
}

// admit serves a connection, or holds it while there are too many.
func (rl *ringListener) admit(fd int) {
	gate := rl.loop.config.Gate
	switch {
	case rl.closing:
		// Also while closing: a connection accepted meanwhile is served, or
		// its client would see a reset that a drain promises not to cause.
		gate.force()
		rl.serve(fd)
	case len(rl.held) == 0 && gate.enter():
		rl.place(fd)
	default:
		rl.held = append(rl.held, fd)
		if len(rl.held) == 1 {
			rl.wait()
		}
	}
}

// wait queues for the first connection that is held.
func (rl *ringListener) wait() {
	l := rl.loop
	l.counters.Full.Add(1)
	rl.waiter = l.config.Gate.wait(func() {
		if !l.Post(rl.granted) {
			l.config.Gate.leave()
		}
	})
	l.timers.ensure(&rl.retry, l.now.After(acceptRetry))
	l.config.Gate.makeRoom()
	l.config.held(ErrFull)
}

// granted serves it.
func (rl *ringListener) granted() {
	rl.waiter = nil
	if len(rl.held) == 0 {
		rl.loop.config.Gate.leave() // close was faster
		return
	}
	fd := rl.held[0]
	rl.held = rl.held[1:]
	rl.place(fd)
	if len(rl.held) > 0 {
		rl.wait()
		return
	}
	rl.arm()
}

// place serves a connection, or has a worker serve it that has fewer.
func (rl *ringListener) place(fd int) {
	other := rl.sharer.lighter()
	if other == nil || !other.take(func() { other.accepts.(*ringListener).begin(fd) }) {
		rl.serve(fd)
		return
	}
	rl.loop.counters.Handed.Add(1)
}

func (rl *ringListener) serve(fd int) {
	rl.loop.counters.Open.Add(1)
	rl.begin(fd)
}

// begin serves a connection that counts as open. It may be one that another worker
// has handed over before this one stopped accepting.
func (rl *ringListener) begin(fd int) {
	l := rl.loop
	c := l.newConn(fd)
	c.handler = rl.handler
	l.counters.Accepted.Add(1)
	rl.handler.Open(c)
	if l.stopping {
		c.Reset()
	}
	if c.closing {
		return
	}
	if Greets(rl.handler, c) {
		l.start(c, nil)
		return
	}
	c.rest()
	if l.draining && c.idle {
		c.drain()
	}
}

// close stops accepting. What is held is served, as a drain promises.
func (rl *ringListener) close() {
	if rl.closing {
		return
	}
	rl.closing = true
	rl.listener.share.leave(&rl.sharer)
	rl.loop.timers.remove(&rl.retry)
	rl.disarm()
	if rl.waiter != nil {
		rl.loop.config.Gate.giveUp(rl.waiter) // or granted comes, and finds nothing
	}
	for _, fd := range rl.held {
		rl.loop.config.Gate.force()
		rl.serve(fd)
	}
	rl.held = nil
}

// cancelled is the completion of the cancel itself; the accept's own last
// completion comes beside it, in either order.
func (rl *ringListener) cancelled() {
	rl.cancelling = false
	rl.settle()
}

// settle takes what waits in the queue when the kernel accepts for us no more, and
// then frees the slot. The kernel wakes one of those that accept from a socket for
// each connection: one that woke us just before the cancel would wait in vain for
// another process that has the socket now, and one in the queue of a socket that is
// closed is reset.
func (rl *ringListener) settle() {
	if !rl.closing || rl.armed || rl.cancelling || rl.loop.listeners[rl.slot] != rl {
		return
	}
	rl.loop.listeners[rl.slot] = nil
	for range sweepMax {
		fd, err := acceptWaiting(rl.fd)
		if err != nil {
			break
		}
		rl.admit(fd)
	}
	for _, ended := range rl.ended {
		ended()
	}
}

// evictIdle ends the connection that has been idle for longest of some, and
// reports whether there was one.
func (l *ringLoop) evictIdle() bool {
	var oldest *ringConn
	latest := l.now - Instant(evictAge)
	for looked, n := 0, 0; looked < evictLook && n < min(len(l.slots), evictScan); n++ {
		l.evictNext = (l.evictNext + 1) % len(l.slots)
		c := l.slots[l.evictNext]
		if c == nil || !c.idle {
			continue
		}
		looked++
		if c.rested <= latest {
			oldest, latest = c, c.rested
		}
	}
	if oldest == nil {
		return false
	}
	l.counters.Evicted.Add(1)
	oldest.dismiss()
	return true
}
