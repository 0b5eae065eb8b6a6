package relay

import (
	"io"
	"time"

	"atlas/proxy/loop"
)

// fakeLoop is the clock of fake connections. It stands still where it has no hand.
type fakeLoop struct {
	loop.Loop
	clock *time.Duration
}

func (l fakeLoop) Now() loop.Instant {
	begin := loop.Past.After(time.Hour)
	if l.clock == nil {
		return begin
	}
	return begin.After(*l.clock)
}

// fakeConn hands out its pieces one wait at a time, and notes what is written.
//
// It is as mean as the contract of loop allows: whenever something may wait, the
// memory that Peek returned before is overwritten.
type fakeConn struct {
	loop.Conn // nil: what is not here must not be called
	pieces    []string
	end       error // after the last piece
	in        []byte
	others    []*fakeConn // whose Peek dies with a wait on this one

	out       []byte
	outMax    int // Write fails behind it; 0 is unlimited
	flushes   int
	reads     int
	readSets  []loop.Instant
	writeSets []loop.Instant
	onWait    func() // another task's turn
	clock     *time.Duration
}

func (c *fakeConn) Loop() loop.Loop                 { return fakeLoop{clock: c.clock} }
func (c *fakeConn) SetReadDeadline(i loop.Instant)  { c.readSets = append(c.readSets, i) }
func (c *fakeConn) SetWriteDeadline(i loop.Instant) { c.writeSets = append(c.writeSets, i) }
func (c *fakeConn) Peek() []byte                    { return c.in }
func (c *fakeConn) Consume(n int)                   { c.in = c.in[n:] }

// wait moves what is not consumed to new memory, and spoils the old.
func (c *fakeConn) wait() {
	for _, conn := range append(c.others, c) {
		kept := append([]byte(nil), conn.in...)
		spoil(conn.in)
		conn.in = kept
	}
	if c.onWait != nil {
		c.onWait()
	}
}

func spoil(p []byte) {
	for i := range p {
		p[i] = 0xdd
	}
}

func (c *fakeConn) Fill() error {
	c.wait()
	if len(c.pieces) == 0 {
		return c.end
	}
	c.in = append(c.in, c.pieces[0]...)
	c.pieces = c.pieces[1:]
	return nil
}

func (c *fakeConn) Read(p []byte) (int, error) {
	c.reads++
	if len(c.in) == 0 {
		c.wait()
		if len(c.pieces) == 0 {
			return 0, c.end
		}
		n := copy(p, c.pieces[0])
		if c.pieces[0] = c.pieces[0][n:]; c.pieces[0] == "" {
			c.pieces = c.pieces[1:]
		}
		return n, nil
	}
	n := copy(p, c.in)
	c.Consume(n)
	return n, nil
}

func (c *fakeConn) Write(p []byte) (int, error) {
	if c.outMax > 0 && len(c.out)+len(p) > c.outMax {
		return 0, io.ErrClosedPipe
	}
	c.out = append(c.out, p...)
	c.wait()
	return len(p), nil
}

func (c *fakeConn) Flush() error {
	c.flushes++
	c.wait()
	return nil
}
