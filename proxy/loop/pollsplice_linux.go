package loop

import (
	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
)

// AwaitBytes waits for the poller.
func (c *pollConn) AwaitBytes() error {
	for {
		switch {
		case len(c.in) > 0:
			return nil
		case c.inErr != nil:
			return c.inErr
		}
		c.dropBuffer()
		c.unwatch()
		if err := c.stopped(c.readDeadline); err != nil {
			return err
		}
		c.armRead()
		c.loop.baton.Unlock()
		err := c.raw.Read(isReadable)
		c.loop.baton.Lock()
		switch err = cause(err); err {
		case nil:
			return nil
		case ErrDeadline: // or it was interrupted: stopped knows
		default:
			c.inErr = err
		}
	}
}

// ReadPipe takes what is there, without the poller.
func (c *pollConn) ReadPipe(p *Pipe) (n int, err error) {
	invariant.That(p.held == 0, "a pipe that is filled is empty before")
	switch {
	case len(c.in) > 0:
		return 0, nil
	case c.inErr != nil:
		return 0, c.inErr
	}
	c.unwatch()
	if err := c.stopped(0); err != nil {
		return 0, err
	}
	c.loop.baton.Unlock()
	if failed := c.raw.Control(func(fd uintptr) { n, err = p.moveIn(int(fd)) }); failed != nil {
		err = failed
	}
	c.loop.baton.Lock()
	switch err = cause(err); err {
	case nil:
		c.loop.counters.Spliced.Add(uint64(n))
	case unix.EAGAIN:
		err = nil
	case ErrNoSplice:
	default: // io.EOF, or what the kernel says
		c.inErr = err
	}
	return n, err
}

// isReadable reports that a receive would not wait.
func isReadable(fd uintptr) bool {
	ask := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	n, err := unix.Poll(ask[:], 0)
	return n > 0 || err != nil && err != unix.EINTR
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
