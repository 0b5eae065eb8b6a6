// Package tlsio is TLS between a connection of package loop and whoever serves
// it: a Conn is a loop.Conn over another one, with crypto/tls in the middle. So
// the handlers of plain connections serve encrypted ones unchanged.
//
// It implements no cryptography and no handshake, reads no file, watches none and
// logs nothing: keys and certificates come in a tls.Config from above.
//
// # Tasks
//
// crypto/tls holds mutexes while it reads and writes. A task that waited inside
// of it would hold them, and the next task at the same connection would block its
// worker for good: a Write that waits for room, and a peer that reads nothing and
// asks for new keys, whose answer has to be written by the one who reads, are
// enough. So once the handshake is over no call of a tls.Conn ever waits. What it
// writes is copied; what it wants to read and is not here yet is a temporary
// error, after which crypto/tls goes on where it was. All waiting is done outside,
// on the connection below. During the handshake, which only one task knows of,
// reading may wait.
//
// # Memory
//
// Buffers belong to a worker and are lent for as long as something is in them: an
// idle connection has none. crypto/tls's own memory stays with it, some 7 KB.
package tlsio

import (
	"context"
	"crypto/tls"
	"io"
	"net/netip"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/loop"
)

// Conn is a TLS connection. It is a loop.Conn in every respect; its peer's end is
// io.EOF only where the peer said so (close_notify), else io.ErrUnexpectedEOF.
type Conn struct {
	raw    loop.Conn
	tls    *tls.Conn
	memory *Memory
	wire   wire // what tls takes for its connection

	established bool // the handshake is over: no call of tls waits
	served      bool // the handler above has been called
	parting     bool // close_notify was sent, or never will be

	// Receiving (recv.go).
	in           []byte // decrypted and not consumed: part of inMemory
	inMemory     []byte // lent, or grown out of what was
	inErr        error  // how receiving ended, told when in is consumed
	failed       bool   // it was the TLS that did
	more         bool   // tls may hold decrypted bytes
	readDeadline loop.Instant
	holding      bool // a task waits in hold
	answered     int  // bytes of answers that reading has caused since the last pause for others

	// Sending (send.go).
	plain   []byte // written and not encrypted
	out     []byte // encrypted and not given to raw
	outErr  error  // why sending failed; sticky
	sending bool   // a task gives out to raw, and may wait
	owed    loop.Task

	lost       loop.Parked    // not nil while parked
	clientCert []byte         // see ClientCert
	shook      time.Duration  // what the handshake took
	session    *accesslog.TLS // see Session
	attachment any
}

var (
	_ loop.Conn   = (*Conn)(nil)
	_ loop.Layer  = (*Conn)(nil)
	_ loop.Parked = (*Conn)(nil)
)

func newConn(raw loop.Conn, memory *Memory) *Conn {
	c := &Conn{raw: raw, memory: memory}
	c.wire.conn = c
	return c
}

// handshake waits, within raw's deadlines. What it wrote last is not flushed yet.
func (c *Conn) handshake() error {
	// Any other context would start a goroutine.
	err := c.tls.HandshakeContext(context.Background())
	if err != nil {
		c.parting = true // it has said why, or cannot
		_ = c.push()     // that, or nothing
		return err
	}
	c.established = true
	return c.push()
}

// finish sends everything, then close_notify, and may wait for room. The loop, or
// who dialled, closes raw then.
func (c *Conn) finish() {
	if c.turn() == nil && c.seal() == nil {
		c.part()
		_ = c.push() // where it fails, the peer sees an end without close_notify
	}
}

// farewell is finish as far as it needs no wait. A peer that has not taken what
// it was sent before sees an end without close_notify: it is none in order.
func (c *Conn) farewell() {
	if c.sending || c.outErr != nil {
		return
	}
	if c.seal() == nil {
		c.part()
	}
	if len(c.out) <= c.raw.Room() {
		_, _ = c.raw.Write(c.out)
	}
	c.out = nil
}

// part puts close_notify behind what was encrypted, once, unless an alert has
// ended the connection.
func (c *Conn) part() {
	if c.established && !c.parting && !c.failed {
		_ = c.tls.CloseWrite() // it fails where sending has, and shows there
	}
	c.parting = true
}

// Close ends in order, as far as that needs no wait. Where a task is just sending,
// it is a Reset: some peers take TCP's end between two records for one in order.
func (c *Conn) Close() {
	if c.sending {
		c.Reset()
		return
	}
	c.farewell()
	c.raw.Close()
	c.lost = nil
}

// Reset ends at once, so that nobody takes it for an end in order.
func (c *Conn) Reset() {
	c.parting = true
	c.raw.Reset()
	c.lost = nil
}

// CloseWrite sends everything, then close_notify, then TCP's end: a peer that
// only looks for one of the two sees it.
func (c *Conn) CloseWrite() error {
	if err := c.turn(); err != nil {
		return err
	}
	if err := c.seal(); err != nil {
		return err
	}
	c.part()
	if err := c.push(); err != nil {
		return err
	}
	return c.raw.CloseWrite()
}

// SetReadDeadline also ends a wait until the peer has taken what it is owed.
func (c *Conn) SetReadDeadline(at loop.Instant) {
	c.readDeadline = at
	c.raw.SetReadDeadline(at)
	if c.holding {
		c.raw.Notify()
	}
}

// SetWriteDeadline is raw's.
func (c *Conn) SetWriteDeadline(at loop.Instant) { c.raw.SetWriteDeadline(at) }

// SetAddrs is raw's.
func (c *Conn) SetAddrs(local, remote netip.AddrPort) { c.raw.SetAddrs(local, remote) }

// Guard watches the TCP connections: a close_notify alone ends no wait.
func (c *Conn) Guard(client loop.Conn) { c.raw.Guard(client) }

// Await is raw's.
func (c *Conn) Await(at loop.Instant) error { return c.raw.Await(at) }

// Notify is raw's.
func (c *Conn) Notify() { c.raw.Notify() }

// Park leaves the connection to raw, which tells Lost of what happens.
func (c *Conn) Park(lost loop.Parked) {
	c.lost = lost
	if !c.quiet() {
		// Already lost, but the caller is not done with parking it: tell it from
		// the loop.
		c.raw.Loop().Post(c.lose)
		return
	}
	c.raw.Park(c)
}

// Lost is told what happened to raw. A session ticket, or new keys, is not for
// the one who parked the connection: it goes on.
func (c *Conn) Lost(loop.Conn) {
	if len(c.raw.Peek()) > 0 && c.quiet() && c.raw.Unpark() {
		c.raw.Park(c)
		return
	}
	c.lose()
}

func (c *Conn) lose() {
	if lost := c.lost; lost != nil {
		c.lost = nil
		lost.Lost(c)
	}
}

// Unpark takes the connection back.
func (c *Conn) Unpark() bool {
	c.lost = nil
	usable := c.raw.Unpark()
	if !usable && len(c.raw.Peek()) > 0 {
		usable = c.quiet() && c.raw.Unpark()
	}
	return usable && c.quiet() && c.outErr == nil
}

// quiet takes in what is here and reports that it is neither bytes for the one
// above, nor an end. It does not wait.
func (c *Conn) quiet() bool {
	for c.inErr == nil && len(c.in) == 0 {
		if err := c.take(); err == errWait {
			c.dropMemory()
			return true
		}
	}
	return false
}

// Under is the connection below, for Guard.
func (c *Conn) Under() loop.Conn { return c.raw }

// Local is the address of our end.
func (c *Conn) Local() netip.AddrPort { return c.raw.Local() }

// Remote is the address of the peer.
func (c *Conn) Remote() netip.AddrPort { return c.raw.Remote() }

// Attachment is whatever the one above attached. What is attached to raw is c.
func (c *Conn) Attachment() any { return c.attachment }

// Attach is for the one above.
func (c *Conn) Attach(v any) { c.attachment = v }

// Loop is the worker that owns the connection.
func (c *Conn) Loop() loop.Loop { return c.raw.Loop() }

// truncated is how an end without close_notify is told: as what a body that
// breaks off is told everywhere.
var truncated = io.ErrUnexpectedEOF
