package relay

import (
	"errors"
	"io"
	"math"
	"time"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

var (
	// ErrTooLong says that a body is longer than its Limit.
	ErrTooLong = errors.New("body over the limit")
	// ErrTooSlow says that a body comes slower than its Demand.
	ErrTooSlow = errors.New("body below the least rate")
)

// Body reads the body of one message from a connection, without its framing.
type Body struct {
	conn    loop.Conn
	kind    h1.BodyKind
	whole   int64 // of BodyLength
	left    int64 // what is left of whole
	most    int64 // of BodyChunked, beyond which it is ErrTooLong
	room    int64 // what is left of most
	chunks  h1.Chunks
	trailer *h1.Trailer // made for the first chunked body: it is 2 KB
	tail    int         // bytes of the trailer section that End will consume
	done    bool
	cut     bool

	hurry   time.Duration // most that Copy waits for bytes, or 0
	rateMin int64         // bytes a second, or 0
	grace   time.Duration // waited without a look at the rate
	waited  time.Duration // for the sender
	taken   int64         // bytes of the body meanwhile
}

// Start prepares for a body whose first byte is the next one of c.
func (b *Body) Start(c loop.Conn, framing h1.Body) {
	b.conn, b.kind, b.left = c, framing.Kind, framing.Length
	b.whole = framing.Length
	b.chunks, b.tail, b.most, b.room = h1.Chunks{}, 0, math.MaxInt64, math.MaxInt64
	b.done, b.cut, b.hurry, b.rateMin = framing.Empty(), false, 0, 0
}

// Limit bounds how long the body may be, where that is not known in advance: in
// chunks.
func (b *Body) Limit(most int64) { b.most, b.room = most, most }

// Demand has Read fail with ErrTooSlow once it has waited for the body's sender
// for longer than grace in all, and got less than rateMin bytes a second for it.
// Only waits count: a sender that our own slowness holds back is not to blame. It
// is looked at when bytes come, as the time until then is the read deadline's, and
// never after the last one. A rate of 0 demands nothing.
func (b *Body) Demand(rateMin int64, grace time.Duration) {
	b.rateMin, b.grace, b.waited, b.taken = rateMin, grace, 0, 0
}

// Hurry has Copy wait no longer than most for the next bytes, from now on: also
// where another task is in it.
func (b *Body) Hurry(most time.Duration) {
	b.hurry = most
	b.conn.SetReadDeadline(b.conn.Loop().Now().After(most))
}

// Interrupt ends a Read that waits in another task, and every later one of this
// body. A deadline in the past alone would not: a task that is about to read
// would set its own over it.
func (b *Body) Interrupt() {
	b.cut = true
	b.conn.SetReadDeadline(loop.Past)
}

// Taken is how many bytes of the body were read, of one whose end is known without
// the end of its connection.
func (b *Body) Taken() int64 { return b.whole - b.left + b.most - b.room }

// Done reports that the whole body was read.
func (b *Body) Done() bool { return b.done }

// Whole returns the whole rest of the body, if it is known where it ends and all
// of it is here. It aliases the connection's Peek; Skip consumes it.
func (b *Body) Whole() ([]byte, bool) {
	if b.done {
		return nil, true
	}
	if p := b.conn.Peek(); b.kind == h1.BodyLength && int64(len(p)) >= b.left {
		return p[:b.left], true
	}
	return nil, false
}

// Skip consumes what Whole returned.
func (b *Body) Skip() {
	if !b.done {
		b.conn.Consume(int(b.left))
		b.left, b.done = 0, true
	}
}

// Read waits for bytes of the body and puts them into p.
//
//	n > 0, nil                   bytes of the body
//	0, io.EOF                    the body is complete; Trailer and End follow
//	0, io.ErrUnexpectedEOF       the connection ended inside of it
//	0, *h1.SyntaxError           its chunks or trailer section are malformed
//	0, ErrTooLong                it is longer than Limit
//	0, ErrTooSlow                it comes slower than Demand
//	0, loop.ErrDeadline          no byte came in time, or Interrupt
//	0, another                   what the connection said
func (b *Body) Read(p []byte) (int, error) {
	if b.rateMin == 0 {
		return b.read(p)
	}
	if b.tooSlow() {
		return 0, ErrTooSlow
	}
	l := b.conn.Loop()
	began := l.Now()
	n, err := b.read(p)
	b.waited += time.Duration(l.Now() - began)
	b.taken += int64(n)
	if err == nil && b.tooSlow() {
		return 0, ErrTooSlow
	}
	return n, err
}

func (b *Body) tooSlow() bool {
	return b.waited > b.grace && float64(b.taken) < float64(b.rateMin)*b.waited.Seconds() && !b.over()
}

func (b *Body) read(p []byte) (int, error) {
	switch {
	case b.done:
		return 0, io.EOF
	case b.cut:
		return 0, loop.ErrDeadline
	case b.room < 0:
		return 0, ErrTooLong
	case b.kind == h1.BodyChunked:
		return b.readChunked(p)
	case b.kind == h1.BodyLength && int64(len(p)) > b.left:
		p = p[:b.left]
	}
	for {
		n, err := b.conn.Read(p)
		if n > 0 {
			if b.kind == h1.BodyLength {
				b.left -= int64(n)
				b.done = b.left == 0
			}
			return n, nil
		}
		if err == io.EOF && b.kind == h1.BodyClose {
			b.done = true
			return 0, io.EOF
		}
		if err != nil {
			return 0, inside(err)
		}
	}
}

// readChunked reads the data of one or more chunks: what is here already, else
// straight into p. Chunks are decoded where they lie, so that no more of a body
// is in our memory than p holds, however fast its sender is.
func (b *Body) readChunked(p []byte) (filled int, err error) {
	if _, _, err := b.chunks.Next(nil); err != nil {
		return 0, err // the same as last time
	}
	for filled == 0 && !b.chunks.Done() {
		if in := b.conn.Peek(); len(in) > 0 {
			var used int
			filled, used, err = b.decode(p, in[:min(len(in), len(p))])
			b.conn.Consume(used)
		} else {
			// No byte behind the body: it could not be put back.
			raw := p[:min(int64(len(p)), b.chunks.Least())]
			var n int
			if n, err = b.conn.Read(raw); n > 0 {
				filled, _, err = b.decode(p, raw[:n])
			}
		}
		if err != nil {
			return filled, inside(err)
		}
	}
	if b.room -= int64(filled); b.room < 0 {
		return 0, ErrTooLong
	}
	if filled > 0 {
		return filled, nil
	}
	return 0, b.readTrailer()
}

// decode moves the data of chunks from in, which may be part of p, to the start
// of p. What follows data shows at the next call, also an error.
func (b *Body) decode(p, in []byte) (filled, used int, err error) {
	for used < len(in) && !b.chunks.Done() {
		data, n, err := b.chunks.Next(in[used:])
		if err != nil && filled == 0 {
			return 0, used, err
		}
		if err != nil {
			break
		}
		filled += copy(p[filled:], data)
		used += n
	}
	return filled, used, nil
}

// readTrailer reads the section behind the last chunk, nearly always an empty
// line, and returns io.EOF when it is there.
func (b *Body) readTrailer() error {
	for {
		n, err := h1.ParseTrailer(b.conn.Peek(), b.trailerMemory())
		switch {
		case err == nil:
			b.tail, b.done = n, true
			return io.EOF
		case err != h1.ErrShort:
			return err
		}
		if err := b.conn.Fill(); err != nil {
			return inside(err)
		}
	}
}

func (b *Body) trailerMemory() *h1.Trailer {
	if b.trailer == nil {
		b.trailer = new(h1.Trailer)
	}
	return b.trailer
}

// inside says of an error within a body that ends by itself that the end of its
// connection is not one.
func inside(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Here reports that Read finds bytes of the body without a wait.
func (b *Body) Here() bool {
	in := b.conn.Peek()
	if b.kind != h1.BodyChunked || len(in) == 0 {
		return len(in) > 0
	}
	ahead := b.chunks // a copy: looking takes nothing
	bytes, _, err := ahead.Next(in)
	return len(bytes) > 0 || err != nil
}

// over reports that nothing more is to be waited for: the next Read returns
// io.EOF at once.
func (b *Body) over() bool {
	if b.done || !b.chunks.Done() {
		return b.done
	}
	_, err := h1.ParseTrailer(b.conn.Peek(), b.trailerMemory())
	return err == nil
}

// Trailer is the trailer section of a complete chunked body, else nil. It is
// valid until the next wait or End.
func (b *Body) Trailer() *h1.Trailer {
	if b.tail == 0 {
		return nil
	}
	return b.trailer
}

// End consumes what is left of a complete body; the next message follows.
func (b *Body) End() {
	if b.tail > 0 {
		b.conn.Consume(b.tail)
		b.tail = 0
	}
}
