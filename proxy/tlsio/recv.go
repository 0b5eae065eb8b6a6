package tlsio

import (
	"io"
	"time"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
)

const (
	// recordMax is the longest record that crypto/tls takes, header included (RFC
	// 5246 section 6.2.3).
	recordMax = headerBytes + recordBytes + 2<<10
	// stageMin is from which size on encrypted bytes are received into the memory
	// that the plain ones are wanted in: room for a record that has begun and
	// one more.
	stageMin = 2 * recordMax
	// owedMax is how much the peer may make us owe it, in answers that no call of
	// ours to send has carried yet, before nothing more is read from it. An answer
	// to new keys has 27 bytes.
	owedMax = 16 << 10
	// owedTurn is how much of that may come of one turn of the worker: new keys
	// take some 6 us of it.
	owedTurn = 2 << 10
	// holdInterval is how often that is looked at where nothing tells of it.
	holdInterval = 10 * time.Millisecond
)

// Peek is what was decrypted and not consumed.
func (c *Conn) Peek() []byte { return c.in }

// Consume drops the first n bytes of Peek.
func (c *Conn) Consume(n int) {
	c.in = c.in[n:]
	c.dropMemory()
}

// Fill waits until Peek is longer than now.
func (c *Conn) Fill() error {
	for {
		if c.inErr != nil {
			return c.inErr
		}
		if err := c.hold(); err != nil {
			return err
		}
		c.pace()
		if err := c.take(); err != errWait {
			return err
		}
		c.dropMemory() // nobody waits with an empty buffer
		if err := c.wait(); err != nil {
			return err
		}
	}
}

// take decrypts what is here behind what Peek holds. It does not wait.
func (c *Conn) take() error {
	if !c.more && !c.wire.here() {
		return errWait
	}
	c.makeRoom()
	n, err := c.pull(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	return err
}

// pull decrypts into p. It does not wait:
//
//	n > 0, nil      there may be more
//	0, errWait      nothing is here
//	0, another      how receiving has ended
func (c *Conn) pull(p []byte) (int, error) {
	if !c.more && !c.wire.here() {
		return 0, errWait // without the look of crypto/tls, which allocates
	}
	owed := len(c.out)
	n, err := c.tls.Read(p)
	c.answered += len(c.out) - owed
	c.more = n == len(p)
	if err != nil && err != errWait {
		c.end(err)
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// end notes how receiving ended: io.EOF is close_notify, all else an alert.
func (c *Conn) end(err error) {
	c.inErr = err
	c.failed = err != io.EOF
}

// wait waits for encrypted bytes. The end of TCP is not one of TLS.
func (c *Conn) wait() error { return c.torn(c.raw.Fill()) }

func (c *Conn) torn(err error) error {
	if err == io.EOF {
		err = truncated
		c.inErr = err
	}
	return err
}

// Read takes what is there, else decrypts into p.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.in) > 0 {
		n := copy(p, c.in)
		c.Consume(n)
		return n, nil
	}
	for len(p) > 0 {
		if c.inErr != nil {
			return 0, c.inErr
		}
		if err := c.hold(); err != nil {
			return 0, err
		}
		c.pace()
		if n, err := c.pullAll(p); n > 0 || err != errWait {
			return n, err
		}
		if len(p) < stageMin {
			if err := c.wait(); err != nil {
				return 0, err
			}
			continue
		}
		if n, err := c.receive(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, nil
}

// pullAll decrypts all records that are here into p, as far as it holds them.
func (c *Conn) pullAll(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.pull(p[n:])
		n += m
	}
	if n > 0 {
		err = nil // an end shows at the next call
	}
	return n, err
}

// receive waits for encrypted bytes in p and decrypts them where they are, so that
// a bulk of them needs no other memory and comes with one receive.
//
// Before the first of them there is room for what crypto/tls already has of the
// record: as records only get shorter by being decrypted, what was decrypted
// never reaches what was not.
func (c *Conn) receive(p []byte) (int, error) {
	given := c.wire.given
	n, err := c.raw.Read(p[given:])
	if err != nil {
		return 0, c.torn(err)
	}
	c.wire.stage = p[given : given+n]
	for n, err = 0, nil; n < len(p) && err == nil; {
		owed := len(c.out)
		for n < len(p) && err == nil && len(c.out) < owed+owedTurn {
			var m int
			m, err = c.pull(p[n:])
			n += m
		}
		if err == nil {
			c.raw.Loop().Sleep(0)
		}
	}
	if n > 0 {
		err = nil // an end shows at the next call
	}
	invariant.That(len(c.wire.stage) == 0 || c.inErr != nil, "encrypted bytes were left in the memory of others")
	c.wire.stage = nil
	if err == errWait {
		err = nil
	}
	return n, err
}

// pace lets the others of the worker go on where what was read has caused many
// answers: whoever has many records here at once could have them wait for all.
func (c *Conn) pace() {
	if c.answered >= owedTurn {
		c.answered = 0
		c.raw.Loop().Sleep(0)
	}
}

// makeRoom sees to it that in can grow.
func (c *Conn) makeRoom() {
	switch {
	case c.inMemory == nil:
		c.inMemory = c.memory.in.take()
		c.in = c.inMemory[:0]
	case len(c.in) <= cap(c.inMemory)/2:
		if cap(c.in)-len(c.in) < cap(c.inMemory)/2 {
			c.in = append(c.inMemory[:0], c.in...)
		}
	case len(c.in) == cap(c.in):
		grown := append(make([]byte, 0, 2*len(c.in)), c.in...)
		c.memory.in.put(c.inMemory)
		c.in, c.inMemory = grown, grown
	}
}

// dropMemory gives back the memory that nothing is in.
func (c *Conn) dropMemory() {
	if len(c.in) == 0 && c.inMemory != nil {
		c.memory.in.put(c.inMemory)
		c.in, c.inMemory = nil, nil
	}
}

// hold waits until the peer has taken what it is owed, where that is too much: a
// peer that asks and never reads is not read from.
func (c *Conn) hold() error {
	for len(c.out) > owedMax && c.outErr == nil {
		if !c.sending {
			c.sending = true
			c.owed = c.raw.Loop().Go(c.pay)
		}
		c.holding = true
		err := c.raw.Await(c.readDeadline)
		c.holding = false
		if err == loop.ErrGuard {
			// The peer has said its last, which is still to be read, and may be
			// reading itself: of that nothing tells any more.
			l := c.raw.Loop()
			l.Sleep(holdInterval)
			if at := c.readDeadline; at != 0 && at <= l.Now() {
				return loop.ErrDeadline
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// pay sends what the peer is owed, in a task of its own: it may wait, and who
// reads must go on listening to its deadline.
func (c *Conn) pay() {
	c.raw.SetWriteDeadline(c.raw.Loop().Now().After(payTimeout))
	c.sending = false
	if c.push() == nil {
		_ = c.raw.Flush() // it shows at the next call that sends
	}
}

// wakeHeld has the task in hold look again.
func (c *Conn) wakeHeld() {
	if c.holding {
		c.raw.Notify()
	}
}
