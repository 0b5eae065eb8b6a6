package loop

import (
	"io"
	"net"
)

// Write copies a small p; a large one is sent at once, with what was written
// before.
func (c *pollConn) Write(p []byte) (int, error) {
	if err := c.sendable(); err != nil {
		return 0, err
	}
	if len(p) >= pollOutMax/4 {
		c.refer(p)
		return len(p), c.Flush()
	}
	if c.outN+len(p) > pollOutMax {
		if err := c.Flush(); err != nil {
			return 0, err
		}
	}
	c.copyIn(p)
	return len(p), nil
}

// Room is what can be gathered. While a task sends, out is not ours to add to.
func (c *pollConn) Room() int {
	if c.sending {
		return 0
	}
	return max(0, min(pollOutMax-c.outN, pollOutMax/4-1))
}

// copyIn appends a copy of p. Slices of own that stand in out already stay
// true when own has to move: they keep the old memory alive.
func (c *pollConn) copyIn(p []byte) {
	c.outN += len(p)
	joined := len(c.out) > 0 && c.ownEnd == len(c.own) && c.ownEnd > 0
	if cap(c.own)-len(c.own) < len(p) {
		c.own = make([]byte, 0, max(pollBufferBytes, 2*len(p)))
		joined = false
	}
	from := len(c.own)
	c.own = append(c.own, p...)
	c.ownEnd = len(c.own)
	if joined {
		last := &c.out[len(c.out)-1]
		*last = c.own[from-len(*last) : len(c.own)]
		return
	}
	c.out = append(c.out, c.own[from:])
}

func (c *pollConn) refer(p []byte) {
	c.outN += len(p)
	c.out = append(c.out, p)
	c.ownEnd = 0 // the next copy starts a segment of its own
}

// Queue sends p from where it is.
func (c *pollConn) Queue(p []byte) error {
	if err := c.sendable(); err != nil {
		return err
	}
	if len(p) > 0 {
		c.refer(p)
	}
	return nil
}

func (c *pollConn) sendable() error {
	switch {
	case c.outErr != nil:
		return c.outErr
	case c.closing:
		return ErrClosed
	}
	return nil
}

// Flush writes what was gathered. Unlike the ring it waits until the socket has
// taken it, without the baton.
func (c *pollConn) Flush() error {
	if err := c.sendable(); err != nil {
		return err
	}
	for c.outN > 0 {
		if err := c.stoppedSend(); err != nil {
			c.failSend(err)
			break
		}
		c.armWrite()
		c.sending = true
		c.loop.baton.Unlock()
		n, err := c.writeOut()
		c.loop.baton.Lock()
		c.sending = false
		c.outN -= n
		if err = cause(err); err != nil && err != ErrDeadline {
			c.outErr = err
			break
		}
	}
	c.out, c.own, c.ownEnd = c.out[:0], c.own[:0], 0
	if c.outErr != nil {
		c.outN = 0
	}
	return c.outErr
}

// stoppedSend is stopped for a send.
func (c *pollConn) stoppedSend() error {
	err := c.stopped(c.writeDeadline)
	if err == ErrDeadline && c.moreTime() {
		return nil
	}
	return err
}

// moreTime moves a write deadline on that has passed, for a client that takes
// what it is sent at the least rate.
func (c *pollConn) moreTime() bool {
	rate := c.loop.config.RateMin
	if rate == 0 || c.handler == nil || c.progress.interval <= 0 {
		return false
	}
	var acked uint64
	known := false
	if c.raw.Control(func(fd uintptr) { acked, known = bytesAcked(int(fd)) }) != nil || !known {
		return false
	}
	at := now()
	if !c.progress.deserves(rate, acked, at) {
		return false
	}
	c.writeDeadline = at.After(c.progress.interval)
	return true
}

// failSend makes sending fail from now on.
func (c *pollConn) failSend(err error) { c.outErr, c.broken = err, true }

// writeOut writes as much as it can and keeps the rest in out.
func (c *pollConn) writeOut() (int, error) {
	if len(c.out) == 1 {
		n, err := c.conn.Write(c.out[0])
		c.out[0] = c.out[0][n:]
		return n, err
	}
	rest := c.out // WriteTo consumes it; the array is wanted again
	n, err := rest.WriteTo(c.conn)
	if err != nil {
		c.out = rest
	}
	return int(n), err
}

// SendFile leaves the choice of sendfile to package net. What is not in memory is
// brought in first.
func (c *pollConn) SendFile(f *File, off, n int64) (int64, error) {
	if err := c.Flush(); err != nil {
		return 0, err
	}
	var done int64
	for done < n {
		piece := min(n-done, warmFileBytes)
		if at := off + done; !f.inMemory(at, piece) {
			c.loop.counters.Cold.Add(1)
			c.loop.coldly(func() { f.bringIn(at, piece) })
		}
		m, err := c.sendPiece(f, off+done, piece)
		done += m
		if err != nil || m < piece {
			return done, err
		}
	}
	return done, nil
}

// sendPiece sends n bytes, or fewer where the file ends.
func (c *pollConn) sendPiece(f *File, off, n int64) (int64, error) {
	var done int64
	for {
		if err := c.stoppedSend(); err != nil {
			c.failSend(err)
			return done, err
		}
		// The file's offset is where sending stopped, for all that is known.
		if _, err := f.os.Seek(off+done, io.SeekStart); err != nil {
			return done, err
		}
		c.armWrite()
		c.sending = true
		c.loop.baton.Unlock()
		m, err := io.Copy(c.conn, &io.LimitedReader{R: f.os, N: n - done})
		c.loop.baton.Lock()
		c.sending = false
		done += m
		switch err = cause(err); {
		case err == nil:
			return done, nil // all, or the file ends here
		case err != ErrDeadline:
			c.outErr = err
			return done, err
		}
		// The deadline has moved on meanwhile, or stopped sees that it has not.
	}
}

// CloseWrite ends our direction after everything was sent.
func (c *pollConn) CloseWrite() error {
	if err := c.Flush(); err != nil {
		return err
	}
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok {
		return nil // every stream socket of package net has it
	}
	return cause(half.CloseWrite())
}

// Close closes after what was written has left, which a goroutine waits for.
func (c *pollConn) Close() {
	if c.closing {
		return
	}
	c.Guard(nil)
	c.closing = true
	c.goneFor(c.guards)
	for len(c.guards) > 0 {
		up := c.guards[0]
		up.Guard(nil)
		up.guarded = true
	}
	if c.lost != nil {
		c.lost = nil
		delete(c.loop.parked, c)
	}
	if c.sending {
		c.broken = true // a task waits in it
	}
	if c.broken || c.outN == 0 || c.outErr != nil || c.loop.stopping || !c.loop.hold() {
		c.free()
		return
	}
	if c.writeDeadline == 0 {
		c.SetWriteDeadline(now().After(closeTimeout))
	}
	c.setWrite(c.writeDeadline)
	c.setRead(Past) // a task may be waiting
	c.sending = true
	go func() {
		defer c.loop.release()
		_, err := c.writeOut()
		c.loop.baton.Lock()
		defer c.loop.baton.Unlock()
		for cause(err) == ErrDeadline && c.moreTime() {
			c.setWrite(c.writeDeadline)
			c.loop.baton.Unlock()
			_, err = c.writeOut()
			c.loop.baton.Lock()
		}
		c.broken = c.broken || err != nil
		c.outN = 0
		c.free()
	}()
}

// Reset closes at once.
func (c *pollConn) Reset() {
	c.broken = true
	c.Close()
	c.free()
}

// free closes the socket, with RST where something broke off and the socket can.
func (c *pollConn) free() {
	if c.freed {
		return
	}
	c.freed = true
	l := c.loop
	delete(l.conns, c)
	if tcp, ok := c.conn.(*net.TCPConn); ok && (c.broken || c.outN > 0) {
		_ = tcp.SetLinger(0)
	}
	// What a close could report was reported by the reads and writes. What follows
	// counts on it: whoever gets the place in the gate needs the descriptor.
	_ = c.conn.Close()
	if c.handler != nil {
		l.counters.Open.Add(-1)
		if c.follower != nil {
			c.follower.Gone() // before another worker has the place, for the same client perhaps
		}
		l.config.Gate.leave()
	} else {
		l.counters.Dialled.Add(-1)
	}
}
