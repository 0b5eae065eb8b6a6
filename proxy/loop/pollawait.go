package loop

import (
	"io"
	"syscall"
)

// Await waits until the socket says that the peer has gone, and is interrupted by
// the read deadline: its own, or one in the past for all that another task does.
func (c *pollConn) Await(at Instant) error {
	c.awaiting = true
	c.unwatch() // the two would share the socket
	c.dropBuffer()
	err := c.await(at)
	c.awaiting, c.notified = false, false
	if len(c.guards) > 0 && c.inErr == nil {
		c.watch() // go on for those who were told that we watch
	}
	return err
}

func (c *pollConn) await(at Instant) error {
	for !c.notified {
		if err := c.stopped(at); err != nil {
			return err
		}
		if c.inErr != nil {
			return ErrGuard
		}
		c.setRead(at)
		c.loop.baton.Unlock()
		behind, end, err := c.peekEnd()
		c.loop.baton.Lock()
		switch {
		case behind && !c.notified && !c.closing:
			c.goneFor(c.guards)
			return ErrGuard
		case end != nil:
			c.inErr = end
			c.goneFor(c.guards)
		case err != nil && cause(err) != ErrDeadline && !c.closing:
			c.inErr = cause(err)
		}
	}
	return nil
}

// peekEnd waits for the peer's end without taking anything. Bytes do not end the
// wait, and the poller, which tells of changes only, says nothing more until
// others arrive. behind is an end behind bytes, where the system tells of it.
func (c *pollConn) peekEnd() (behind bool, end, err error) {
	err = c.raw.Read(func(fd uintptr) bool {
		var p [1]byte
		for {
			n, _, err := syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK)
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return false
			case err == nil && n > 0:
				behind = hungUp(int(fd))
				return behind
			case err == nil:
				err = io.EOF
			}
			end = err
			return true
		}
	})
	return behind, end, err
}

// Notify interrupts Await by its deadline.
func (c *pollConn) Notify() {
	c.notified = true
	if c.awaiting {
		c.setRead(Past)
	}
}
