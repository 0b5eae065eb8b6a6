package loop

import (
	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
)

// Pipe lends a pipe.
func (l *ringLoop) Pipe() (*Pipe, error) { return l.pipes.take(&l.counters) }

// PutPipe takes it back.
func (l *ringLoop) PutPipe(p *Pipe) { l.pipes.put(p, &l.counters) }

// ReadPipe waits for bytes by a poll operation, and takes them with a system call
// of its own: splice through the ring would take a kernel thread for each waiting
// direction (rule R10).
//
// It waits before it tries: that costs no system call, and others go on between
// two pieces of a bulk that never pauses.
func (c *ringConn) ReadPipe(p *Pipe) (int, error) {
	invariant.That(p.held == 0, "a pipe that is filled is empty before")
	for polled := false; ; {
		switch {
		case len(c.in) > 0:
			return 0, nil
		case c.inErr != nil:
			return 0, c.inErr
		}
		if err := c.cut(c.readDeadline); err != nil {
			return 0, err
		}
		switch {
		case c.armed || c.starving: // what that brings is first
			polled = false
			if c.armed && c.wantRecv {
				c.wantRecv = false
				c.cancel(opRecv)
			}
			c.waitReader()
			continue
		case !polled:
			polled = true
			c.awaitReadable()
			continue
		}
		n, err := p.moveIn(c.fd)
		switch err {
		case nil:
			c.loop.counters.Spliced.Add(uint64(n))
			return n, nil
		case unix.EAGAIN:
			polled = false
		case ErrNoSplice:
			return 0, err
		default: // io.EOF, or what the kernel says
			c.inErr = err
		}
	}
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

func (c *ringConn) polledIn() {
	c.pollingIn = false
	c.loop.wake(c.reader)
}

// WritePipe tries before it waits: mostly there is room. Like a piece of a file,
// it has its turn.
func (c *ringConn) WritePipe(p *Pipe) (int, error) {
	if c.out != nil {
		c.flush()
	}
	if err := c.awaitSent(); err != nil {
		return 0, err
	}
	c.filing = true
	defer func() { c.filing = false }()
	c.loop.awaitTurn()
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
