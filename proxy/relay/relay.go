// Package relay moves message bodies, and what is no HTTP any more, between two
// connections of a worker with bounded memory.
//
// It decides nothing about messages: not their heads, not who may talk to whom,
// not what a failure means for a connection. Read and write failures come back
// apart, because only the caller knows which side is to blame.
//
// Everything here runs in tasks of one worker. A Body aliases its connection's
// receive memory; a buffer of Buffers belongs to whoever took it until it is
// put back.
package relay

import (
	"io"
	"time"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// BufferBytes is how much of a body is in our memory, for each direction. A
// whole default socket buffer of loopback fits; more measured no faster.
const BufferBytes = 64 << 10

// buffersKept bounds what a worker keeps for the next transfers, to 4 MB. With 16, a
// quarter of a worker's time went into garbage while 32 clients were sent 100 KB each.
const buffersKept = 64

// Buffers are a worker's free transfer buffers, last in first out.
type Buffers struct{ free [][]byte }

// Take returns BufferBytes of memory.
func (b *Buffers) Take() []byte {
	if n := len(b.free); n > 0 {
		p := b.free[n-1]
		b.free = b.free[:n-1]
		return p
	}
	return make([]byte, BufferBytes)
}

// Put gives memory back that no operation uses any more.
func (b *Buffers) Put(p []byte) {
	if len(b.free) < buffersKept {
		b.free = append(b.free, p)
	}
}

// Copy moves the rest of a body until its end. Each wait for bytes, and each
// for room, is bounded by its timeout; the deadlines are left as they are then.
// Body.Interrupt and Writer.Interrupt end it from another task.
// At the end the trailer section of from is still to be read: see Body.Trailer;
// and what was written last is still to be flushed.
func Copy(to *Writer, from *Body, buffer []byte, read, write time.Duration) (readErr, writeErr error) {
	l := from.conn.Loop()
	for {
		if from.hurry > 0 {
			read = min(read, from.hurry)
		}
		from.conn.SetReadDeadline(l.Now().After(read))
		n, err := from.Read(buffer)
		to.conn.SetWriteDeadline(l.Now().After(write)) // also of the end that follows
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return nil, err
			}
		}
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
		// What is there goes on at once: a stream of events must not wait
		// until a buffer is full. The last piece leaves with the end.
		if !from.over() {
			if err := to.conn.Flush(); err != nil {
				return nil, err
			}
		}
	}
}

// Writer frames a body that is sent.
type Writer struct {
	Sent    int64 // bytes of the body
	Wire    int64 // the same with their framing
	conn    loop.Conn
	chunked bool
	cut     bool
	scratch []byte
}

// Start prepares for the body of a new message.
func (w *Writer) Start(c loop.Conn, chunked bool) {
	w.conn, w.chunked, w.cut = c, chunked, false
	w.Sent, w.Wire = 0, 0
}

// Interrupt ends a Write that waits in another task, and every later one of this
// body, with loop.ErrDeadline. See Body.Interrupt.
func (w *Writer) Interrupt() {
	w.cut = true
	w.conn.SetWriteDeadline(loop.Past)
}

// Write sends p as it is, or as one chunk.
func (w *Writer) Write(p []byte) (int, error) {
	if w.cut {
		return 0, loop.ErrDeadline
	}
	w.Sent += int64(len(p))
	w.Wire += int64(len(p))
	if !w.chunked || len(p) == 0 {
		return w.conn.Write(p)
	}
	w.scratch = h1.AppendChunkHead(w.scratch[:0], len(p))
	w.Wire += int64(len(w.scratch) + len(h1.ChunkEnd))
	if _, err := w.conn.Write(w.scratch); err != nil {
		return 0, err
	}
	if n, err := w.conn.Write(p); err != nil {
		return n, err
	}
	w.scratch = append(w.scratch[:0], h1.ChunkEnd...)
	_, err := w.conn.Write(w.scratch)
	return len(p), err
}

// End ends the body: with the last chunk and the trailer fields that may be
// forwarded, where it is chunked. trailer may be nil. underscores says whether
// names may have them: those of responses may.
func (w *Writer) End(trailer *h1.Trailer, underscores bool) error {
	if w.cut {
		return loop.ErrDeadline
	}
	if !w.chunked {
		return nil
	}
	w.scratch = append(w.scratch[:0], h1.LastChunk...)
	if trailer != nil {
		for i, f := range trailer.Fields() {
			if !trailer.HopByHop(i) && (underscores || f.Key != h1.KeyUnderscore) {
				w.scratch = h1.AppendField(w.scratch, f.Name, f.Value)
			}
		}
	}
	w.scratch = append(w.scratch, "\r\n"...)
	w.Wire += int64(len(w.scratch))
	_, err := w.conn.Write(w.scratch)
	return err
}
