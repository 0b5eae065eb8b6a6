package tlsio

import (
	"io"
	"time"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
)

const (
	// recordBytes is the most that one record carries (RFC 8446 section 5.1).
	recordBytes = 16 << 10
	// outRecords is how many full records are encrypted before they are sent: 64
	// KiB, as much as a relay has of a body.
	outRecords = 4
	// outBytes holds them. What records add is 22 bytes each in TLS 1.3; the
	// first ones of a connection are short, 54 to 64 KiB.
	outBytes = outRecords*recordBytes + 2<<10
	// payTimeout bounds how long the peer may take to take what it is owed.
	payTimeout = 10 * time.Second
)

// Write gathers p, so that small writes share a record until Flush. What fills
// records is encrypted and sent, and waited for.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.turn(); err != nil {
		return 0, err
	}
	size := len(p)
	for len(p) > 0 {
		var err error
		if len(c.plain) == 0 && len(p) >= recordBytes {
			n := min(len(p)-len(p)%recordBytes, outRecords*recordBytes)
			err = c.encrypt(p[:n])
			p = p[n:]
		} else {
			if c.plain == nil {
				c.plain = c.memory.plain.take()[:0]
			}
			n := min(len(p), cap(c.plain)-len(c.plain))
			c.plain = append(c.plain, p[:n]...)
			p = p[n:]
			if len(c.plain) == cap(c.plain) {
				err = c.seal()
			}
		}
		// Only now may it wait: p can be what another connection's Peek returned.
		if err == nil && len(c.out) > outBytes-recordBytes-1<<10 {
			err = c.push()
		}
		if err != nil {
			return size - len(p), err
		}
	}
	return size, nil
}

// Room is what the next record takes.
func (c *Conn) Room() int {
	if c.sending {
		return 0
	}
	return recordBytes - 1 - len(c.plain)
}

// Queue is Write: what is encrypted is a copy.
func (c *Conn) Queue(p []byte) error {
	_, err := c.Write(p)
	return err
}

// Flush encrypts what was written and starts sending it.
func (c *Conn) Flush() error {
	if err := c.turn(); err != nil {
		return err
	}
	return c.reply()
}

// reply is Flush for the one who is sending.
func (c *Conn) reply() error {
	if err := c.seal(); err != nil {
		return err
	}
	if err := c.push(); err != nil {
		return err
	}
	return c.raw.Flush()
}

// turn waits until the task has ended that sends what the peer is owed.
func (c *Conn) turn() error {
	if c.owed != nil {
		owed := c.owed
		c.owed = nil
		if err := owed.Join(); err != nil {
			c.fail(err)
		}
	}
	if c.outErr == nil && c.parting {
		return loop.ErrClosed
	}
	return c.outErr
}

// seal encrypts what was gathered.
func (c *Conn) seal() error {
	if len(c.plain) == 0 {
		return c.outErr
	}
	p := c.plain
	c.plain = nil
	err := c.encrypt(p)
	c.memory.plain.put(p)
	return err
}

// encrypt appends records of p to out. It does not wait.
func (c *Conn) encrypt(p []byte) error {
	if cap(c.out) < outBytes {
		c.out = append(c.memory.out.take()[:0], c.out...)
	}
	if _, err := c.tls.Write(p); err != nil {
		c.fail(err)
	}
	return c.outErr
}

// push gives raw what is encrypted, and waits where raw has no room. Whoever
// reads may add to out meanwhile.
func (c *Conn) push() error {
	invariant.That(!c.sending, "two tasks send on one connection")
	c.sending = true
	for len(c.out) > 0 && c.outErr == nil {
		p := c.out
		c.out = nil
		_, err := c.raw.Write(p)
		c.memory.out.put(p)
		if err != nil {
			c.fail(err)
		}
	}
	c.sending = false
	c.wakeHeld()
	return c.outErr
}

// fail makes sending fail from now on. Nothing more piles up then.
func (c *Conn) fail(err error) {
	if c.outErr == nil {
		c.outErr = err
	}
	c.out, c.plain = nil, nil
}

// SendFile sends n bytes of f through a buffer, which is filled while the worker
// does something else.
func (c *Conn) SendFile(f *loop.File, off, n int64) (int64, error) {
	buffer := c.memory.file.take()
	defer c.memory.file.put(buffer)
	var done int64
	for done < n {
		m, err := f.ReadAt(c.raw.Loop(), buffer[:min(n-done, int64(len(buffer)))], off+done)
		if m > 0 {
			if _, err := c.Write(buffer[:m]); err != nil {
				return done, err
			}
			done += int64(m)
		}
		if err == io.EOF {
			break // the file ends here
		}
		if err != nil {
			return done, err
		}
	}
	return done, c.Flush()
}
