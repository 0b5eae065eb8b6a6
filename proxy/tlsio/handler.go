package tlsio

import (
	"crypto/tls"
	"encoding/base64"
	"sync/atomic"
	"time"

	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

// Config is how a Handler greets its clients.
type Config struct {
	// TLS is what a handshake begins with, whatever it is replaced by later.
	TLS       *atomic.Pointer[tls.Config]
	Handshake time.Duration // from accepting a connection until it may ask for something
	Stats     *stats.Stats  // the worker's
}

// Handler is the loop.Handler that turns connections into TLS connections, and
// hands those to another handler. It belongs to one worker.
type Handler struct {
	config Config
	above  loop.Handler
	memory *Memory
}

// NewHandler makes the handler of one worker in front of another handler.
func NewHandler(cfg Config, above loop.Handler) *Handler {
	return &Handler{config: cfg, above: above, memory: NewMemory()}
}

// Open bounds the handshake. Until its first byte nothing is done for it.
func (h *Handler) Open(raw loop.Conn) {
	raw.SetReadDeadline(raw.Loop().Now().After(h.config.Handshake))
}

// Serve carries a connection through its handshake, and through all exchanges
// whose bytes have arrived. A handler above that may speak first is served as soon
// as the handshake is over. Bytes that are none for the handler above, such as
// half a record, leave the connection idle.
func (h *Handler) Serve(raw loop.Conn) (keep bool) {
	c, known := raw.Attachment().(*Conn)
	greets := false // the one above may speak first
	if !known {
		if c = h.greet(raw); c == nil || c.parting {
			return false
		}
		if greets = loop.Greets(h.above, c); greets && raw.Flush() != nil {
			return false // who is served has to know that the handshake is over
		}
	}
	for greets || !c.quiet() {
		if len(c.in) == 0 && !greets {
			c.finish() // the client has ended in order, or gets an alert
			return false
		}
		greets, c.served = false, true
		if !h.above.Serve(c) || len(c.in) > 0 {
			c.finish()
			return false
		}
	}
	return c.settle()
}

// settle sends what is still to be sent before a connection is idle, as a loop
// does. What the peer is only owed must cost no wait.
func (c *Conn) settle() (keep bool) {
	if len(c.plain) == 0 && (len(c.out) == 0 || len(c.out) > c.raw.Room()) {
		return true
	}
	return c.Flush() == nil
}

// greet shakes hands. nil ends the connection.
func (h *Handler) greet(raw loop.Conn) *Conn {
	c := newConn(raw, h.memory)
	raw.Attach(c)
	raw.SetWriteDeadline(raw.Loop().Now().After(h.config.Handshake))
	c.tls = tls.Server(&c.wire, h.config.TLS.Load())
	began := raw.Loop().Now()
	if err := c.handshake(); err != nil {
		h.refuse(c, err)
		return nil
	}
	c.shook = time.Duration(raw.Loop().Now() - began)
	h.config.Stats.Observe(stats.Handshake, c.shook)
	h.config.Stats.Handshakes.Add(1)
	state := c.tls.ConnectionState()
	if state.DidResume {
		h.config.Stats.Resumed.Add(1)
	}
	if len(state.PeerCertificates) > 0 {
		c.clientCert = appendCert(nil, state.PeerCertificates[0].Raw)
	}
	h.above.Open(c)
	return c
}

// appendCert appends a certificate as RFC 9440 section 2.2 writes it: a byte
// sequence of RFC 8941.
func appendCert(b, der []byte) []byte {
	b = append(b, ':')
	b = base64.StdEncoding.AppendEncode(b, der)
	return append(b, ':')
}

// State is what the handshake has settled.
func (c *Conn) State() tls.ConnectionState { return c.tls.ConnectionState() }

// ClientCert is the certificate that the client has proved to be its own, as the
// value of the field Client-Cert, or nil.
func (c *Conn) ClientCert() []byte { return c.clientCert }

// Leave says close_notify to a client that is idle.
func (h *Handler) Leave(raw loop.Conn) {
	if c, known := raw.Attachment().(*Conn); known && c.established {
		c.farewell()
	}
}

// Fresh reports that the client has not asked for anything yet.
func (h *Handler) Fresh(raw loop.Conn) bool {
	c, known := raw.Attachment().(*Conn)
	return !known || !c.served
}

// refuse counts why a handshake failed. The client was told by an alert, which a
// reset must not overtake: it may still be sending.
func (h *Handler) refuse(c *Conn, err error) {
	why := reasonOf(err)
	h.config.Stats.FailHandshake(why)
	if why == stats.HandshakeGone || why == stats.HandshakeTimeout {
		return
	}
	if why == stats.HandshakePlain && speaksHTTP(err) {
		_, _ = c.raw.Write(plainAnswer) // it fails where nobody is left to read it
	}
	c.linger()
}

const (
	lingerTime  = time.Second
	lingerBytes = 64 << 10
)

// linger ends our direction and reads on for a while.
func (c *Conn) linger() {
	raw := c.raw
	if raw.CloseWrite() != nil {
		return
	}
	raw.SetReadDeadline(raw.Loop().Now().After(lingerTime))
	for read := 0; read < lingerBytes; {
		read += len(raw.Peek())
		raw.Consume(len(raw.Peek()))
		if raw.Fill() != nil {
			return
		}
	}
}

// plainAnswer is for a client that asks without TLS: nothing else could tell it.
var plainAnswer = []byte("HTTP/1.1 400 Bad Request\r\nServer: atlas\r\nContent-Type: text/plain; charset=utf-8\r\n" +
	"Content-Length: 69\r\nConnection: close\r\n\r\n" +
	"400 Bad Request: this port speaks HTTPS, and the request was in HTTP\n")
