package loop

import (
	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

// ringListener accepts for one worker. The socket belongs to the Listener, and
// so to the process (rule R9): the worker only stops accepting from it.
type ringListener struct {
	loop       *ringLoop
	fd         int
	handler    Handler
	slot       uint32
	armed      bool
	closing    bool
	cancelling bool
	retry      timer
}

// Listen arms a multishot accept.
func (l *ringLoop) Listen(ln *Listener, h Handler) error {
	if l.draining {
		return ErrStopped
	}
	fd, err := ln.detach()
	if err != nil {
		return err
	}
	rl := &ringListener{loop: l, fd: fd, handler: h, slot: uint32(len(l.listeners))}
	rl.retry = timer{kind: timerWake, wake: rl.arm}
	l.listeners = append(l.listeners, rl)
	rl.arm()
	return nil
}

func (rl *ringListener) arm() {
	if rl.armed || rl.closing {
		return
	}
	rl.armed = true
	rl.loop.ring.AcceptMultishot(rl.fd, userData(opAccept, 0, rl.slot))
}

// accepted takes one connection, or learns that accepting has stopped.
func (rl *ringListener) accepted(e uring.Completion) {
	if !e.More() {
		rl.armed = false
	}
	if e.Result >= 0 {
		// Also while closing: a connection accepted meanwhile is served, or
		// its client would see a reset that a drain promises not to cause.
		rl.serve(int(e.Result))
		rl.arm()
		return
	}
	switch errno := unix.Errno(-e.Result); errno {
	case unix.ECANCELED: // close did that
	case unix.ECONNABORTED, unix.EINTR, unix.EAGAIN:
		rl.arm() // what the network did to one connection, or nothing happened
	default:
		// EMFILE, ENFILE, ENOBUFS, ENOMEM: no descriptor or memory now, later
		// there may be. Never at once, nor for an error that nobody foresaw:
		// the connection stays queued, so the worker would spin.
		rl.loop.counters.Refused.Add(1)
		rl.loop.timers.ensure(&rl.retry, rl.loop.now.After(acceptRetry))
	}
}

func (rl *ringListener) serve(fd int) {
	l := rl.loop
	c := l.newConn(fd)
	c.handler = rl.handler
	l.counters.Accepted.Add(1)
	l.counters.Open.Add(1)
	rl.handler.Open(c)
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

func (rl *ringListener) close() {
	if rl.closing {
		return
	}
	rl.closing = true
	rl.loop.timers.remove(&rl.retry)
	if rl.armed {
		rl.cancelling = true
		rl.loop.ring.Cancel(userData(opAccept, 0, rl.slot), userData(opAcceptCancel, 0, rl.slot))
	}
}

// cancelled is the completion of the cancel itself; the accept's own last
// completion comes beside it, in either order.
func (rl *ringListener) cancelled() { rl.cancelling = false }
