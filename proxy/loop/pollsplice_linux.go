package loop

import "atlas/proxy/invariant"

// ReadPipe splices as package net does, when the poller says that there is
// something.
func (c *pollConn) ReadPipe(p *Pipe) (int, error) {
	invariant.That(p.held == 0, "a pipe that is filled is empty before")
	for {
		switch {
		case len(c.in) > 0:
			return 0, nil
		case c.inErr != nil:
			return 0, c.inErr
		}
		c.dropBuffer()
		c.unwatch()
		if err := c.stopped(c.readDeadline); err != nil {
			return 0, err
		}
		c.armRead()
		c.loop.baton.Unlock()
		err := c.raw.Read(p.fill)
		c.loop.baton.Lock()
		if err == nil {
			err = p.err
		}
		switch err = cause(err); err {
		case nil:
			c.loop.counters.Spliced.Add(uint64(p.n))
			return p.n, nil
		case ErrDeadline: // or it was interrupted: stopped knows
		case ErrNoSplice:
			return 0, err
		default: // io.EOF, or what the kernel says
			c.inErr = err
		}
	}
}

// WritePipe splices when the poller says that there is room.
func (c *pollConn) WritePipe(p *Pipe) (int, error) {
	if err := c.Flush(); err != nil {
		return 0, err
	}
	for {
		if err := c.stoppedSend(); err != nil {
			c.failSend(err)
			return 0, err
		}
		c.armWrite()
		c.sending = true
		c.loop.baton.Unlock()
		err := c.raw.Write(p.drain)
		c.loop.baton.Lock()
		c.sending = false
		if err == nil {
			err = p.err
		}
		switch err = cause(err); err {
		case nil:
			return p.n, nil
		case ErrDeadline: // it may have moved on meanwhile
		default:
			c.outErr = err
			return p.n, err
		}
	}
}
