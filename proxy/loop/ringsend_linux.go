package loop

import (
	"fmt"

	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
	"atlas/proxy/uring"
)

const (
	// sendChunkBytes is the size of the memory that small writes are copied
	// to: a head and a 1 KB body fit one, and many connections' chunks fit the
	// cache.
	sendChunkBytes = 2048
	// writeCopyMax is up to which size a write is copied rather than waited for.
	writeCopyMax = 4 * sendChunkBytes
	// segmentBytesMax is what the kernel makes one buffer of, at most, and cuts
	// into packets late (GSO_LEGACY_MAX_SIZE).
	segmentBytesMax = 64 << 10
	// headBytesMin is less than the head of a response has, and more than that of a chunk,
	// which is no segment of its own: that cost a quarter of a chunked answer of 1 MB.
	headBytesMin = 64
)

// batch is what leaves with one send operation: segments in order, some of them
// chunks of ours, some queued by reference.
type batch struct {
	message uring.Message
	bytes   int
	chunks  [uring.SegmentsMax][]byte // to give back; the last may have room
	owned   int
	open    bool // the last segment is the last chunk, which may grow
}

func (l *ringLoop) getBatch() *batch {
	if n := len(l.batches); n > 0 {
		b := l.batches[n-1]
		l.batches = l.batches[:n-1]
		return b
	}
	return new(batch)
}

// putBatch gives a batch and its chunks back; the kernel has none of them.
func (l *ringLoop) putBatch(b *batch) {
	for i, chunk := range b.chunks[:b.owned] {
		if len(l.chunks) < poolKept {
			l.chunks = append(l.chunks, chunk[:0])
		}
		b.chunks[i] = nil
	}
	b.message.Reset()
	b.bytes, b.owned, b.open = 0, 0, false
	if len(l.batches) < poolKept {
		l.batches = append(l.batches, b)
	}
}

func (l *ringLoop) getChunk() []byte {
	if n := len(l.chunks); n > 0 {
		chunk := l.chunks[n-1]
		l.chunks = l.chunks[:n-1]
		return chunk
	}
	return make([]byte, 0, sendChunkBytes)
}

// room is how many bytes can be copied without another segment.
func (b *batch) room() int {
	if !b.open {
		return 0
	}
	last := b.chunks[b.owned-1]
	return cap(last) - len(last)
}

// copyIn appends a copy of as much of p as fits one chunk, and returns how much
// that was. The caller made sure that the message is not full, or has room.
func (b *batch) copyIn(l *ringLoop, p []byte) (n int) {
	if !b.open || b.room() == 0 {
		b.chunks[b.owned] = l.getChunk()
		b.message.Append(b.chunks[b.owned])
		b.owned++
		b.open = true
	}
	last := &b.chunks[b.owned-1]
	n = min(b.room(), len(p))
	*last = append(*last, p[:n]...)
	b.message.Extend(n)
	b.bytes += n
	return n
}

// refer appends p itself.
func (b *batch) refer(p []byte) {
	b.bytes += len(p)
	b.message.Append(p)
	b.open = false
}

// Write copies a small p. A large one is sent from where it is, with what was
// written before, and waited for.
func (c *ringConn) Write(p []byte) (int, error) {
	if err := c.sendable(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if len(p) <= writeCopyMax {
		for rest := p; len(rest) > 0; {
			if c.out != nil && c.out.message.Full() && c.out.room() == 0 {
				// p may be what Peek returned, and dies with a wait.
				rest = append([]byte(nil), rest...)
				if err := c.drainOut(); err != nil {
					return 0, err
				}
			}
			rest = rest[c.gather().copyIn(c.loop, rest):]
		}
		return len(p), nil
	}
	c.loop.lent++
	defer func() { c.loop.lent-- }()
	if err := c.Queue(p); err != nil {
		return 0, err
	}
	if err := c.drainOut(); err != nil {
		return 0, err
	}
	return len(p), c.awaitSent()
}

// Room is what the rest of the chunks of a message hold, as far as one Write
// copies.
func (c *ringConn) Room() int {
	if c.out == nil {
		return writeCopyMax
	}
	free := uring.SegmentsMax - c.out.message.Segments()
	return min(c.out.room()+free*sendChunkBytes, writeCopyMax)
}

// Queue sends p from where it is.
func (c *ringConn) Queue(p []byte) error {
	if err := c.sendable(); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	if c.out != nil && c.out.message.Full() {
		if err := c.drainOut(); err != nil {
			return err
		}
	}
	if len(p) >= segmentBytesMax && c.out != nil && c.out.bytes >= headBytesMin {
		c.sendAhead()
	}
	c.gather().refer(p)
	return nil
}

// Flush starts sending. With one batch in flight the next one leaves when that
// is done; there is no third, so what waits to be sent is bounded.
func (c *ringConn) Flush() error {
	if err := c.sendable(); err != nil {
		return err
	}
	if c.out != nil {
		c.flush()
	}
	return nil
}

// sendAhead sends a small head at once, with a large body right behind it, and reports
// that all of it has left: a turn of the loop is spared. What has not left is still in
// c.out. It is a segment of its own, as the body is more than one anyway: the client wakes while
// that is copied, and BBR, where that is in use, takes the connection for a faster one, and sets
// fewer timers to hold it back (proxy/design/0007).
func (c *ringConn) sendAhead() bool {
	b := c.out
	if c.flight != nil || b == nil || b.message.Segments() != 1 || !b.open {
		return false
	}
	if c.sendable() != nil || c.cutSend() != nil {
		return false
	}
	n, err := uring.SendNow(c.fd, b.message.First())
	if err != nil {
		return false // the send behind it meets the same
	}
	if n < b.bytes {
		b.message.Advance(n)
		b.bytes -= n
		b.open = false
		return false
	}
	c.out = nil
	c.loop.putBatch(b)
	return true
}

func (c *ringConn) sendable() error {
	switch {
	case c.outErr != nil:
		return c.outErr
	case c.closing:
		return ErrClosed
	}
	return nil
}

func (c *ringConn) gather() *batch {
	if c.out == nil {
		c.out = c.loop.getBatch()
	}
	return c.out
}

func (c *ringConn) flush() {
	if c.flight != nil {
		c.leave = true
		return
	}
	c.flight, c.out, c.leave = c.out, nil, false
	if c.writeDeadline != 0 && c.writeTimer.index == 0 {
		// It fired when nothing was on its way.
		c.loop.timers.ensure(&c.writeTimer, c.writeDeadline)
	}
	c.submit()
}

// submit sends what is left of the batch in flight. One send at a time per
// connection: two could pass each other in the kernel (rule R5).
func (c *ringConn) submit() {
	c.ops++
	if m := &c.flight.message; m.Segments() == 1 {
		c.loop.ring.Send(c.fd, m.First(), c.userData(opSend))
	} else {
		c.loop.ring.SendMessage(c.fd, m, c.userData(opSend))
	}
}

// sent is the completion of a send.
func (c *ringConn) sent(result int32) {
	l, b := c.loop, c.flight
	switch {
	case result < 0:
		if c.outErr == nil {
			c.outErr = unix.Errno(-result)
		}
	case result == 0 && c.outErr == nil:
		c.outErr = unix.EPIPE // a socket that takes nothing takes nothing more
	case int(result) < b.bytes && c.outErr == nil:
		// MSG_WAITALL makes this rare: a signal can still cut a send short.
		b.message.Advance(int(result))
		b.bytes -= int(result)
		c.submit()
		return
	}
	l.putBatch(b)
	c.flight = nil
	if c.outErr != nil && c.out != nil {
		l.putBatch(c.out)
		c.out = nil
	}
	if c.out != nil && (c.leave || c.closing) {
		c.flush()
	}
	switch {
	case c.writer != nil:
		l.resume(c.writer)
	case c.outErr != nil && c.lost != nil:
		c.lose()
	case c.outErr != nil && c.idle:
		c.Close()
	}
}

// failSend makes sending fail from now on, and ends what is in flight.
func (c *ringConn) failSend(err error) {
	if c.outErr == nil {
		c.outErr = err
		c.broken = true
	}
	if c.out != nil {
		c.loop.putBatch(c.out)
		c.out = nil
	}
	if c.flight != nil {
		c.cancel(opSend)
	}
}

// drainOut waits until what was gathered is in flight.
func (c *ringConn) drainOut() error {
	for c.out != nil && c.outErr == nil {
		if c.flight == nil {
			c.flush()
			break
		}
		c.leave = true
		c.waitSend()
	}
	return c.outErr
}

// awaitSent waits until nothing is in flight: then no memory of the caller is
// in the kernel's hands, also after an error.
func (c *ringConn) awaitSent() error {
	for c.flight != nil {
		c.waitSend()
	}
	return c.outErr
}

func (c *ringConn) waitSend() {
	if c.outErr == nil {
		if err := c.cutSend(); err != nil {
			c.failSend(err)
		}
	}
	if c.flight != nil {
		c.waitWriter()
	}
}

// cutSend is cut for a send.
func (c *ringConn) cutSend() error {
	err := c.cut(c.writeDeadline)
	if err == ErrDeadline && c.moreTime() {
		return nil
	}
	return err
}

// moreTime moves a write deadline on that has passed, for a client that takes
// what it is sent at the least rate.
func (c *ringConn) moreTime() bool {
	l := c.loop
	if l.config.RateMin == 0 || c.handler == nil || c.progress.interval <= 0 {
		return false
	}
	acked, known := bytesAcked(c.fd)
	if !known || !c.progress.deserves(l.config.RateMin, acked, l.now) {
		return false
	}
	c.writeDeadline = l.now.After(c.progress.interval)
	l.timers.ensure(&c.writeTimer, c.writeDeadline)
	return true
}

// waitWriter suspends the task until something happens on the sending side.
func (c *ringConn) waitWriter() {
	invariant.That(c.writer == nil, "two tasks send on one connection")
	c.writer = c.loop.current
	c.loop.suspend()
	c.writer = nil
}

func (c *ringConn) polled() {
	c.polling = false
	c.loop.wake(c.writer)
}

// Yield lets everything else go first. A turn of the loop resumes one task that is
// here, be it to send a piece of a file or to answer more of a pipeline, however
// many there are: so they add the time of one to what others wait for, and the next
// system call, 0.5 us, is small beside it.
func (l *ringLoop) Yield() {
	t := l.current
	t.yielded = true
	l.yieldersLater = append(l.yieldersLater, t)
	for t.yielded {
		l.suspend()
	}
}

// runYielder resumes the task that has waited longest in Yield. It takes as long as
// tens of requests: the answers of this turn leave before it.
func (l *ringLoop) runYielder() {
	if l.yielderNext == len(l.yielders) {
		l.yielders, l.yieldersLater, l.yielderNext = l.yieldersLater, l.yielders[:0], 0
	}
	if l.yielderNext < len(l.yielders) {
		if l.ring.Queued() > 0 {
			if err := l.ring.Submit(); err != nil {
				panic(fmt.Sprintf("loop: %v", err)) // as in turn
			}
		}
		t := l.yielders[l.yielderNext]
		l.yielderNext++
		t.yielded = false
		l.resume(t)
	}
}

// CloseWrite ends our direction after everything was sent.
func (c *ringConn) CloseWrite() error {
	if err := c.drainOut(); err != nil {
		return err
	}
	if err := c.awaitSent(); err != nil {
		return err
	}
	if c.closing {
		return ErrClosed
	}
	return unix.Shutdown(c.fd, unix.SHUT_WR)
}
