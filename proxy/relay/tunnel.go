package relay

import (
	"io"
	"math"
	"time"

	"atlas/proxy/loop"
)

const (
	// bulkBytes at once say that more is probably on its way.
	bulkBytes = 4 << 10
	// bulkWait is how long a buffer is kept for that, so that it comes straight
	// from the socket. Longer, and a hundred thousand tunnels that just said
	// something would each hold one.
	bulkWait = 10 * time.Millisecond
	// spliceMin is how much has to come in one bulk until it goes through a pipe:
	// below that, copying is cheaper than making one.
	spliceMin = 4 * BufferBytes
	// spliceAgain is after how much more of a bulk a pipe is asked for once more
	// where there was none.
	spliceAgain = 16 << 20
)

// Silence bounds how long a tunnel may be silent.
type Silence struct {
	Idle  time.Duration // in both directions, and until a peer takes what is sent
	Grace time.Duration // in the other direction, when the end of one was passed on
}

// Ending is how a tunnel ended.
type Ending struct {
	Err   error    // nil: both directions in order
	Side  int      // of ends, whose connection Err is about
	Moved [2]int64 // bytes from ends[0] and from ends[1]
}

// Tunnel passes bytes both ways between two connections, whatever they mean,
// from what is in their Peek on. It returns when both directions have ended.
//
// The end of one direction is passed on, and the other goes on. A reset, an
// error or too much silence resets both connections: then no side can take what
// it has for all there was.
//
// What comes in a large bulk goes from socket to socket in the kernel, where both
// ends and the system can do that.
//
// A direction that waits for bytes holds no memory of ours and no pipe; one that
// waits for room holds one of buffers or a pipe, and takes no more bytes meanwhile.
func Tunnel(ends [2]loop.Conn, buffers *Buffers, allowed Silence) Ending {
	t := &tunnel{ends: ends, loop: ends[0].Loop(), buffers: buffers, allowed: allowed, silence: allowed.Idle}
	from, can := ends[0].(loop.Splicer)
	to, both := ends[1].(loop.Splicer)
	if can && both {
		t.splicers = [2]loop.Splicer{from, to}
		t.spliceAt = [2]int64{spliceMin, spliceMin}
	} else {
		t.spliceAt = [2]int64{math.MaxInt64, math.MaxInt64}
	}
	t.touch()
	back := t.loop.Go(func() { t.pass(1) })
	t.pass(0)
	if err := back.Join(); err != nil {
		t.fail(1, err)
	}
	return t.ending
}

// tunnel is shared by the two tasks of a Tunnel.
type tunnel struct {
	ends    [2]loop.Conn
	loop    loop.Loop
	buffers *Buffers
	allowed Silence
	silence time.Duration // allowed now, in what is received
	bulk    [2]bool       // the end is read with a deadline of its own
	ended   [2]bool       // the end has said its last
	ending  Ending

	splicers [2]loop.Splicer // ends, if both are
	spliceAt [2]int64        // how much a bulk of a side has to bring to be spliced
}

// pass moves what one side sends to the other one until it ends.
func (t *tunnel) pass(side int) {
	from, to := t.ends[side], t.ends[1-side]
	for {
		var readErr, writeErr error
		if len(from.Peek()) == 0 {
			// Also what was written before the tunnel.
			if writeErr = to.Flush(); writeErr == nil {
				readErr = from.Fill()
			}
		}
		if readErr == nil && writeErr == nil {
			var more bool
			if more, readErr, writeErr = t.burst(side); more {
				readErr, writeErr = t.splice(side)
			}
		}
		switch {
		case writeErr != nil:
			t.fail(1-side, writeErr)
			return
		case readErr == io.EOF:
			t.end(side)
			return
		case readErr != nil:
			t.fail(side, readErr)
			return
		}
	}
}

// burst moves what is here of one side, and, if that is much, what follows close
// behind it. The buffer between is what may wait: Peek's bytes die with a wait.
// more says that the rest is to be spliced.
func (t *tunnel) burst(side int) (more bool, readErr, writeErr error) {
	from, to := t.ends[side], t.ends[1-side]
	buffer := t.buffers.Take()
	defer t.buffers.Put(buffer)
	for moved := int64(0); ; {
		n, err := t.read(side, buffer, moved >= bulkBytes)
		if n == 0 {
			return false, err, nil
		}
		moved += int64(n)
		t.ending.Moved[side] += int64(n)
		t.touch()
		if _, err := to.Write(buffer[:n]); err != nil {
			return false, nil, err
		}
		t.touch() // it may have taken its time
		if len(from.Peek()) > 0 {
			continue
		}
		if err := to.Flush(); err != nil {
			return false, nil, err
		}
		if moved < bulkBytes || moved >= t.spliceAt[side] {
			return moved >= t.spliceAt[side], nil, nil
		}
	}
}

// splice moves the rest of a bulk through pipes. While it waits for more it has
// none, and it ends with what comes in no bulk.
func (t *tunnel) splice(side int) (readErr, writeErr error) {
	from := t.splicers[side]
	t.spliceAt[side] = spliceMin
	for {
		if err := from.AwaitBytes(); err != nil {
			return err, nil
		}
		if len(from.Peek()) > 0 {
			return nil, nil
		}
		n, readErr, writeErr := t.pump(side)
		if n < bulkBytes || readErr != nil || writeErr != nil {
			return readErr, writeErr
		}
	}
}

// pump moves what is here of one side, and what comes meanwhile. n is how much it
// was, or less.
func (t *tunnel) pump(side int) (n int, readErr, writeErr error) {
	from, to := t.splicers[side], t.splicers[1-side]
	pipe, err := t.loop.Pipe()
	if err != nil {
		t.spliceAt[side] = spliceAgain
		return 0, nil, nil
	}
	defer t.loop.PutPipe(pipe)
	for {
		moved, err := from.ReadPipe(pipe)
		if err == loop.ErrNoSplice {
			t.spliceAt[side] = math.MaxInt64
			return 0, nil, nil
		}
		if moved == 0 {
			return n, err, nil
		}
		n = max(n, moved)
		t.ending.Moved[side] += int64(moved)
		t.touch()
		for pipe.Held() > 0 {
			if _, err := to.WritePipe(pipe); err != nil {
				return n, nil, err
			}
			t.touch() // it may have taken its time
		}
	}
}

// read is Read. In bulk it waits for bulkWait only, and returns nothing then.
func (t *tunnel) read(side int, p []byte, bulk bool) (int, error) {
	from := t.ends[side]
	if len(from.Peek()) > 0 || !bulk {
		return from.Read(p)
	}
	t.bulk[side] = true
	from.SetReadDeadline(t.loop.Now().After(bulkWait))
	n, err := from.Read(p)
	t.bulk[side] = false
	from.SetReadDeadline(t.loop.Now().After(t.silence))
	if err == loop.ErrDeadline {
		err = nil
	}
	return n, err
}

// touch starts the time of silence anew.
func (t *tunnel) touch() {
	if t.ending.Err != nil {
		return
	}
	now := t.loop.Now()
	for side, c := range t.ends {
		c.SetWriteDeadline(now.After(t.allowed.Idle))
		if !t.bulk[side] {
			c.SetReadDeadline(now.After(t.silence))
		}
	}
}

// end passes the end of a side's bytes on, when all of them have left.
func (t *tunnel) end(side int) {
	t.ended[side] = true
	err := t.ends[1-side].CloseWrite()
	// One that has said its last may have closed as well: it wants no end.
	if err != nil && !t.ended[1-side] {
		t.fail(1-side, err)
		return
	}
	t.silence = min(t.silence, t.allowed.Grace)
	t.touch()
}

// fail ends both directions. The first to fail says why: the other one fails
// because of it.
func (t *tunnel) fail(side int, err error) {
	if t.ending.Err != nil {
		return
	}
	t.ending.Err, t.ending.Side = err, side
	for _, c := range t.ends {
		c.Reset()
	}
}
