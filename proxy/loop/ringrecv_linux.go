package loop

import (
	"io"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

const (
	// stashMax is how much a connection may send ahead of its handler before
	// its multishot receive is ended. More can arrive in the turn that ends it
	// (the kernel hands over up to 32 buffers at a time), never without bound.
	stashMax = 16 << 10
	// multishotBodyMax is up to which rest of a body an armed multishot receive
	// is left to bring it. Beyond, it is ended and the body read with single
	// receives, sized to what may be taken: then a fast sender is held back by
	// TCP and not by our memory (one turn of multishot took 396 KiB before a
	// cancel could be submitted).
	multishotBodyMax = 16 << 10
)

// stashSizes are what stashes are made in, and how many free ones are kept of each:
// for a head that came in pieces, and a client's pipeline; for an answer of 100 KB,
// of which most comes with its head; and for what a turn brings of a larger one. As
// slices that grew they were 250 KB of garbage for each answer of 100 KB, which
// cost as much as all else of it.
var stashSizes = [...]struct{ bytes, kept int }{{8 << 10, 256}, {32 << 10, 64}, {128 << 10, 32}, {512 << 10, 8}}

// getStash returns memory for at least n bytes.
func (l *ringLoop) getStash(n int) []byte {
	for i, size := range stashSizes {
		if n > size.bytes {
			continue
		}
		free := l.stashes[i]
		if len(free) == 0 {
			return make([]byte, 0, size.bytes)
		}
		l.stashes[i] = free[:len(free)-1]
		return free[len(free)-1]
	}
	return make([]byte, 0, n+n/2) // a handler that Fills without end: its copies must not add up
}

func (l *ringLoop) putStash(stash []byte) {
	for i, size := range stashSizes {
		if cap(stash) == size.bytes && len(l.stashes[i]) < size.kept {
			l.stashes[i] = append(l.stashes[i], stash[:0])
		}
	}
}

// armRecv starts a multishot receive, or a single one. One that is being cancelled is armed
// again when it has ended.
//
// An upstream whose last answer was large gets a single one: a multishot receive would bring
// 128 KB of the next answer in pieces of 4 KB, with a copy of each, before we see its head.
func (c *ringConn) armRecv() {
	c.wantRecv = true
	if c.armed || c.starving || c.once != nil {
		return
	}
	c.armed = true
	c.ops++
	if c.single {
		c.loop.ring.RecvBuffer(c.fd, c.userData(opRecv))
	} else {
		c.loop.ring.RecvMultishot(c.fd, c.userData(opRecv))
	}
}

// endRecv ends receives of both kinds. Bytes may still arrive with the last
// completion.
func (c *ringConn) endRecv() {
	c.wantRecv = false
	if c.armed {
		c.cancel(opRecv)
	}
	if c.once != nil {
		c.cancel(opRecvOnce)
	}
}

// received is one completion of the multishot receive.
func (c *ringConn) received(e uring.Completion) {
	if !e.More() {
		c.armed = false
	}
	switch errno := unix.Errno(-min(e.Result, 0)); {
	case e.Result > 0:
		id, _ := e.Buffer()
		c.more = e.MoreBytes()
		last := c.single && !c.armed
		if last {
			c.wantRecv = false // until somebody waits for more
		}
		c.arrived(id, int(e.Result))
		if last {
			return
		}
	case e.Result == 0:
		c.ended(io.EOF)
		return
	case errno == unix.ENOBUFS:
		c.loop.counters.Starved.Add(1)
		if c.wantRecv {
			c.starving = true
			c.loop.starved = append(c.loop.starved, c)
			return
		}
	case errno == unix.ECANCELED || errno == unix.EINTR || errno == unix.EAGAIN:
	default:
		c.ended(errno)
		return
	}
	switch {
	case c.armed || c.closing:
	case c.wantRecv:
		c.armRecv() // F_MORE went away although nobody ended it
	default:
		c.loop.wake(c.reader) // Read ends multishot, however that ends, before it receives into p
	}
}

// arrived gives n received bytes in ring buffer id to whom they are for. Where more were
// there, which came with completions of the same turn, a task gets all of them at once: it
// would send on the first 4 KB in a segment of their own.
func (c *ringConn) arrived(id uint16, n int) {
	l := c.loop
	p := l.buffers.Take(id, n)
	switch {
	case c.closing:
		l.buffers.Put(id)
	case len(c.in) == 0 && (c.idle || c.reader != nil):
		c.in, c.view = p, id+1
		l.views = append(l.views, c)
		idle, later := c.idle, c.more && c.armed
		c.idle = false
		switch {
		case idle && later:
			l.wake(l.assign(c, nil))
		case idle:
			l.due = l.server(c)
		case later:
			l.wake(c.reader)
		default:
			l.resume(c.reader)
		}
	default:
		// The task is busy elsewhere (pipelining, or a parked upstream that
		// spoke out of turn): keep a copy.
		c.keep(p)
		l.buffers.Put(id)
		if len(c.in) > stashMax && c.armed && c.wantRecv {
			c.wantRecv = false
			c.cancel(opRecv)
		}
		if c.lost != nil {
			c.lose()
		}
		l.wake(c.reader)
	}
}

// keep appends p to what is unconsumed, in memory of our own.
func (c *ringConn) keep(p []byte) {
	if c.view != 0 {
		c.releaseView()
	}
	if len(c.in) == 0 {
		c.stash = c.stash[:0]
	}
	if len(c.stash)+len(p) > cap(c.stash) {
		c.makeRoom(len(p))
	}
	unread := len(c.in)
	c.stash = append(c.stash, p...)
	c.in = c.stash[len(c.stash)-unread-len(p):]
}

// makeRoom has the stash take n bytes more: in place of consumed ones, or in other
// memory. A task may be waiting in a Write of what it has in Peek: then the kernel
// reads the old memory, which is left as it is.
func (c *ringConn) makeRoom(n int) {
	l, old := c.loop, c.stash
	if len(c.in)+n <= cap(old) && l.lent == 0 {
		c.stash = append(old[:0], c.in...)
	} else {
		c.stash = append(l.getStash(len(c.in)+n), c.in...)
		if l.lent == 0 {
			l.putStash(old)
		}
	}
	c.in = c.stash
}

// releaseView gives the ring buffer under in back, and keeps a copy of what is
// unconsumed.
func (c *ringConn) releaseView() {
	if c.view == 0 {
		return
	}
	p, id := c.in, c.view-1
	c.view, c.in = 0, nil
	if len(p) > 0 {
		c.keep(p)
	}
	c.loop.buffers.Put(id)
}

// dropView gives the buffer back without a copy.
func (c *ringConn) dropView() {
	if c.view != 0 {
		c.loop.buffers.Put(c.view - 1)
		c.view = 0
	}
}

func (c *ringConn) dropStash() {
	if cap(c.stash) > 0 {
		c.loop.putStash(c.stash)
		c.stash = nil
	}
}

func (c *ringConn) Peek() []byte { return c.in }

func (c *ringConn) Consume(n int) {
	c.in = c.in[n:]
	if len(c.in) == 0 {
		c.dropView()
		c.dropStash()
		c.in = nil
	}
}

// Fill waits until there are more bytes than now.
func (c *ringConn) Fill() error {
	for had := len(c.in); len(c.in) == had; {
		if c.inErr != nil {
			return c.inErr
		}
		if err := c.cut(c.readDeadline); err != nil {
			return err
		}
		if c.waitsSingly() {
			if err := c.fillStash(); err != nil {
				return err
			}
			continue
		}
		c.armRecv()
		c.waitReader()
	}
	return nil
}

// waitsSingly reports that the last receive was a single one, and left bytes in the socket.
func (c *ringConn) waitsSingly() bool { return c.single && c.more && !c.armed && !c.starving }

// fillStash receives behind what is unconsumed: what a provided buffer was too small
// for, such as a record of TLS.
func (c *ringConn) fillStash() error {
	c.releaseView()
	if len(c.in) == 0 {
		c.stash, c.in = c.stash[:0], nil
	}
	if cap(c.stash)-len(c.stash) < stashMax {
		c.makeRoom(stashMax)
	}
	n, err := c.receiveOnce(c.stash[len(c.stash):cap(c.stash)])
	unread := len(c.in)
	c.stash = c.stash[:len(c.stash)+n]
	c.in = c.stash[len(c.stash)-unread-n:]
	return err
}

// Read takes what is there, else receives into p. Behind a head that came with a single
// receive it does both: the beginning of a body is sent with what follows.
func (c *ringConn) Read(p []byte) (int, error) {
	if len(p) > multishotBodyMax {
		c.large = true
	}
	for {
		if len(c.in) > 0 {
			n := copy(p, c.in)
			c.Consume(n)
			if n < len(p) && c.waitsSingly() && c.inErr == nil {
				m, _ := c.receiveOnce(p[n:]) // what ended it shows at the next call
				n += m
			}
			return n, nil
		}
		if c.inErr != nil {
			return 0, c.inErr
		}
		if err := c.cut(c.readDeadline); err != nil {
			return 0, err
		}
		if !c.armed && !c.starving {
			if n, err := c.receiveOnce(p); n > 0 || err != nil || len(p) == 0 {
				return n, err
			}
			continue // it was cut, or the kernel found nothing after all
		}
		if len(p) > multishotBodyMax && c.armed && c.wantRecv {
			c.wantRecv = false
			c.cancel(opRecv)
		}
		c.waitReader()
	}
}

// receipt is a single receive. The kernel may write p until the completion.
type receipt struct {
	p   []byte
	n   int   // bytes that it brought
	cut error // why it was cancelled
}

func (l *ringLoop) getReceipt() *receipt {
	if n := len(l.receipts); n > 0 {
		r := l.receipts[n-1]
		l.receipts = l.receipts[:n-1]
		return r
	}
	return new(receipt)
}

func (l *ringLoop) putReceipt(r *receipt) {
	*r = receipt{}
	if len(l.receipts) < receiptsKept {
		l.receipts = append(l.receipts, r)
	}
}

// receiveOnce receives into p. An interrupted receive is cancelled, and waited for.
func (c *ringConn) receiveOnce(p []byte) (int, error) {
	r := c.loop.getReceipt()
	c.once, r.p = r, p
	more := c.more
	c.wantRecv, c.more = false, false
	c.ops++
	if more {
		// Mostly there is: but urgent bytes count and do not come, and before Linux 6.5 a Unix
		// socket said so at random. What is here already must not wait for it.
		c.loop.ring.RecvNow(c.fd, p, c.userData(opRecvOnce))
	} else {
		c.loop.ring.Recv(c.fd, p, c.userData(opRecvOnce))
	}
	for c.once != nil {
		if r.cut == nil {
			if r.cut = c.cut(c.readDeadline); r.cut != nil && !c.closing {
				c.cancel(opRecvOnce)
			}
		}
		c.waitReader()
	}
	n, err := r.n, r.cut
	c.loop.putReceipt(r)
	switch {
	case n > 0:
		return n, nil
	case c.inErr != nil:
		return 0, c.inErr
	}
	return 0, err
}

func (c *ringConn) receivedOnce(result int32) {
	r := c.once
	c.once = nil
	r.n = int(max(result, 0))
	switch errno := unix.Errno(-min(result, 0)); {
	case result > 0:
	case result == 0 && len(r.p) > 0:
		c.inErr = io.EOF
	case errno == unix.ECANCELED, errno == unix.EINTR, errno == unix.EAGAIN:
		// Ours, or nothing happened: receiveOnce knows.
	default:
		c.inErr = errno
	}
	if c.reader != nil {
		c.loop.resume(c.reader)
	}
}

// Await leaves a multishot receive armed, which tells of the peer's end. What it
// brings is kept as for a task that is busy elsewhere.
func (c *ringConn) Await(at Instant) error {
	c.awaiting = true
	err := c.await(at)
	c.awaiting, c.notified = false, false
	if c.readDeadline != 0 {
		// Its timer may have fired meanwhile, to no effect.
		c.loop.timers.ensure(&c.readTimer, c.readDeadline)
	}
	return err
}

func (c *ringConn) await(at Instant) error {
	for !c.notified {
		if err := c.cut(at); err != nil {
			return err
		}
		if c.inErr != nil {
			return ErrGuard
		}
		if len(c.in) < stashMax {
			c.armRecv()
		}
		if at != 0 {
			c.loop.timers.ensure(&c.readTimer, at)
		}
		c.waitReader()
	}
	return nil
}

// Notify wakes a reader of any kind: who is not in Await looks again and waits on.
func (c *ringConn) Notify() {
	c.notified = true
	c.loop.wake(c.reader)
}

// waitReader suspends the task until something happens on the receiving side.
func (c *ringConn) waitReader() {
	c.reader = c.loop.current
	c.loop.suspend()
	c.reader = nil
}
