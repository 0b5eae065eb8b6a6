package loop

import (
	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
)

// Pipe lends a pipe.
func (l *ringLoop) Pipe() (*Pipe, error) { return l.pipes.take(&l.counters) }

// PutPipe takes it back.
func (l *ringLoop) PutPipe(p *Pipe) { l.pipes.put(p, &l.counters) }

// AwaitBytes waits by a poll operation: splice through the ring would take a
// kernel thread for each waiting direction (rule R10). It does so also where
// something is there already: that costs no system call, and others go on between
// two pieces of a bulk that never pauses.
func (c *ringConn) AwaitBytes() error {
	for {
		deadline := c.readDeadline
		if c.readable {
			deadline = 0 // what is here has come in time, if this thread was late
		}
		err := c.cut(deadline)
		switch {
		case len(c.in) > 0:
			return nil
		case c.inErr != nil:
			return c.inErr
		case err != nil:
			return err
		case c.armed || c.starving: // what that brings is first
			c.readable = false
			if c.armed && c.wantRecv {
				c.wantRecv = false
				c.cancel(opRecv)
			}
			c.waitReader()
		case c.readable:
			return nil
		default:
			c.awaitReadable()
		}
	}
}

// ReadPipe takes what is there with a system call of its own.
func (c *ringConn) ReadPipe(p *Pipe) (int, error) {
	invariant.That(p.held == 0, "a pipe that is filled is empty before")
	switch {
	case len(c.in) > 0, c.armed, c.starving: // what that brings is first
		return 0, nil
	case c.inErr != nil:
		return 0, c.inErr
	}
	if err := c.cut(0); err != nil {
		return 0, err
	}
	n, err := p.moveIn(c.fd)
	switch err {
	case nil:
		c.loop.counters.Spliced.Add(uint64(n))
		return n, nil
	case unix.EAGAIN:
		c.readable = false
		return 0, nil
	case ErrNoSplice:
	default: // io.EOF, or what the kernel says
		c.inErr = err
	}
	return 0, err
}

// awaitReadable waits until the socket has something, or the wait may not go on.
func (c *ringConn) awaitReadable() {
	c.pollingIn = true
	c.ops++
	c.loop.ring.Poll(c.fd, unix.POLLIN|unix.POLLRDHUP, c.userData(opPollIn))
	for cut := false; c.pollingIn; {
		if !cut && c.cut(c.readDeadline) != nil {
			cut = true
			c.cancel(opPollIn)
		}
		c.waitReader()
	}
}

func (c *ringConn) polledIn(result int32) {
	c.pollingIn, c.readable = false, result > 0
	c.loop.wake(c.reader)
}

// piecesTurn is how many pieces of a bulk a connection sends in one turn of the
// loop, 0.2 ms each. With one at a time the kernel finds that we take little in a
// round trip and keeps the window of who sends small: then its sends happen when
// we read, on our account, which was a fifth of the cost (proxy/design/0009).
const piecesTurn = 4

// WritePipe tries before it waits: mostly there is room. Like pieces of a file,
// those of a bulk have their turn.
func (c *ringConn) WritePipe(p *Pipe) (int, error) {
	if c.out != nil {
		c.flush()
	}
	if err := c.awaitSent(); err != nil {
		return 0, err
	}
	c.filing = true
	defer func() { c.filing = false }()
	if c.pieces++; c.pieces%piecesTurn == 1 {
		c.loop.Yield()
	}
	for {
		if err := c.sendFileReady(); err != nil {
			return 0, err
		}
		n, err := p.moveOut(c.fd)
		switch err {
		case nil:
			return n, nil
		case unix.EAGAIN:
			c.awaitRoom()
		default:
			c.failSend(err)
			return n, err
		}
	}
}
