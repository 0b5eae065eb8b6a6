package loop

import "syscall"

// Park leaves the connection to the sweep.
func (c *pollConn) Park(lost Parked) {
	c.Guard(nil)
	c.dropBuffer()
	l := c.loop
	c.lost = lost
	l.parked[c] = struct{}{}
	if !l.sweeping {
		l.sweeping = true
		go l.sweep()
	}
}

// Unpark looks at the socket, because the sweep may not have yet.
func (c *pollConn) Unpark() bool {
	c.lost = nil
	delete(c.loop.parked, c)
	return !c.closing && c.inErr == nil && c.outErr == nil && len(c.in) == 0 && c.quiet()
}

// quiet reports whether the socket of a parked connection has neither bytes nor
// an end. Bytes are taken, for whoever knows what to make of them.
func (c *pollConn) quiet() bool {
	c.isQuiet = false
	return c.raw.Control(c.look) == nil && c.isQuiet
}

func (c *pollConn) lookOnce(fd uintptr) {
	var p [1]byte
	n, _, err := syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK)
	c.isQuiet = err == syscall.EAGAIN
	if n > 0 && err == nil && len(c.in) == 0 {
		c.makeRoom()
		n, _ = syscall.Read(int(fd), c.in[:cap(c.in)]) // an error shows again
		c.in = c.in[:max(n, 0)]
	}
}

func (c *pollConn) lose() {
	if lost := c.lost; lost != nil {
		c.lost = nil
		delete(c.loop.parked, c)
		lost.Lost(c)
	}
}
