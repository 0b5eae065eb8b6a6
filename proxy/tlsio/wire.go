package tlsio

import (
	"net"
	"time"
)

// waitError tells crypto/tls that nothing is here yet. It is temporary, so that a
// part of a record is kept and the next Read goes on behind it.
type waitError struct{}

func (waitError) Error() string   { return "tlsio: no byte is here yet" }
func (waitError) Timeout() bool   { return true }
func (waitError) Temporary() bool { return true }

var errWait net.Error = waitError{}

// headerBytes is the size of a record's header (RFC 8446 section 5.1).
const headerBytes = 5

// wire is the net.Conn that crypto/tls reads and writes.
//
// It gives out one record at a time: then crypto/tls never holds a record that it
// has not been asked for, so that it shows here whether there is more to read,
// and its memory grows no longer than one record.
type wire struct {
	conn   *Conn
	stage  []byte // encrypted bytes in the memory of a Read, before those of raw
	header [headerBytes]byte
	given  int // bytes of the current record that crypto/tls has
}

// here reports that there are bytes to read.
func (w *wire) here() bool { return len(w.stage) > 0 || len(w.conn.raw.Peek()) > 0 }

// Read copies what is here of the current record. Only during the handshake it
// waits.
func (w *wire) Read(p []byte) (int, error) {
	c := w.conn
	if len(w.stage) > 0 {
		n := w.give(p, w.stage)
		w.stage = w.stage[n:]
		return n, nil
	}
	if len(c.raw.Peek()) == 0 {
		if c.established {
			return 0, errWait
		}
		if err := c.reply(); err != nil {
			return 0, err
		}
		if err := c.raw.Fill(); err != nil {
			return 0, err
		}
	}
	n := w.give(p, c.raw.Peek())
	c.raw.Consume(n)
	return n, nil
}

// give copies from the start of in, up to the end of the record.
func (w *wire) give(p, in []byte) int {
	n := min(len(p), len(in))
	if w.given < headerBytes {
		missing := copy(w.header[w.given:], in[:n])
		if w.given+missing < headerBytes {
			w.given += n
			return copy(p, in[:n])
		}
	}
	size := headerBytes + int(w.header[3])<<8 + int(w.header[4])
	n = min(n, size-w.given)
	if w.given += n; w.given == size {
		w.given = 0
	}
	return copy(p, in[:n])
}

// Write copies. The wait for room is the business of those who have something to
// send, outside of crypto/tls. So are errors: one here, in an answer to new keys,
// would have crypto/tls go on with the old ones, and find what follows malformed.
func (w *wire) Write(p []byte) (int, error) {
	if w.conn.outErr == nil {
		w.conn.out = append(w.conn.out, p...)
	}
	return len(p), nil
}

// Close does nothing: the connection is closed by its owner.
func (w *wire) Close() error { return nil }

// Deadlines are set on the connection below, by those who wait.

func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func (w *wire) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(w.conn.raw.Local()) }
func (w *wire) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(w.conn.raw.Remote()) }
