package exchange

import (
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
)

// serverName is what we call ourselves in Server, on responses of our own.
const serverName = "atlas"

// Begin starts the response with its status line. reason may be nil.
func (x *Exchange) Begin(status int, reason []byte) {
	x.begun, x.status, x.account.answered = true, status, status
	x.Stats.Respond(status)
	if reason != nil {
		x.out = h1.AppendStatusReason(x.server.takeHead(), status, reason)
	} else {
		x.out = h1.AppendStatusLine(x.server.takeHead(), status)
	}
}

// Field adds a field to the head.
func (x *Exchange) Field(name, value []byte) { x.out = h1.AppendField(x.out, name, value) }

// Lines adds field lines that were prepared, each with its CRLF.
func (x *Exchange) Lines(lines []byte) { x.out = append(x.out, lines...) }

// Date adds the Date field, for a response that has none yet.
func (x *Exchange) Date() {
	x.out = append(x.out, x.server.date.Field(x.Loop.Clock().Unix())...)
}

// SendHead ends the head and says how the body is framed: BodyNone for no body,
// BodyLength where the head already says Content-Length, and BodyClose or
// BodyChunked for an unknown length, which is sent in chunks where the client
// understands them, else until the connection ends. body is nil, or all of a
// body of BodyLength, which then leaves in one piece with the head: it is copied
// before anything is waited for.
func (x *Exchange) SendHead(kind h1.BodyKind, body []byte) error {
	chunked := false
	if kind == h1.BodyChunked || kind == h1.BodyClose {
		if chunked = x.Minor >= 1; chunked {
			x.out = append(x.out, "Transfer-Encoding: chunked\r\n"...)
		} else {
			x.keep = false
		}
	}
	x.settleKeep()
	x.out = x.appendConnection(x.out)
	x.out = append(x.out, "\r\n"...)
	x.out = append(x.out, body...)
	x.account.bytes += int64(len(body))
	x.writer.Start(x.Client, chunked)
	return x.writeHead()
}

// writeHead sends what was built, which may have to wait for room, and gives its
// memory back.
func (x *Exchange) writeHead() error {
	x.account.headed = x.Loop.Now() // that of the last head, which is the final one
	x.account.sent += int64(len(x.out))
	x.Client.SetWriteDeadline(x.account.headed.After(x.server.config.Write))
	_, err := x.Client.Write(x.out)
	x.server.putHead(x.out)
	x.out = nil
	return err
}

// settleKeep gives the connection up when the worker drains, and if a body that
// nobody has read stands between this exchange and the next: reading it could
// take for ever.
func (x *Exchange) settleKeep() {
	x.keep = x.keep && !x.Loop.Draining()
	if x.keep && !x.Body.Done() {
		x.ReleaseHead()
		_, whole := x.Body.Whole()
		x.keep = whole
	}
}

// appendConnection says what becomes of the connection, where that is not what
// the version implies (RFC 9112 section 9.3).
func (x *Exchange) appendConnection(b []byte) []byte {
	switch {
	case !x.keep:
		return append(b, "Connection: close\r\n"...)
	case x.Minor == 0:
		return append(b, "Connection: keep-alive\r\n"...)
	}
	return b
}

// SendPrepared sends a whole response, or its head, from prepared bytes: head
// is the status line and all fields but Date and Connection; tail is the empty
// line and the body. Both are immutable. A large tail is sent from where it is.
func (x *Exchange) SendPrepared(status int, head, tail []byte) error {
	x.begun, x.status, x.account.answered = true, status, status
	x.account.sent += int64(len(head))
	x.Stats.Respond(status)
	x.settleKeep()
	c := x.Client
	c.SetWriteDeadline(x.Loop.Now().After(x.server.config.Write))
	if _, err := c.Write(head); err != nil {
		return err
	}
	x.out = x.server.takeHead()
	x.Date()
	x.out = x.appendConnection(x.out)
	if err := x.writeHead(); err != nil {
		return err
	}
	x.account.bytes -= headEnd
	return x.SendBytes(tail)
}

// headEnd is the length of the empty line that a prepared tail begins with.
const headEnd = 2

// preparedCopyMax is up to which size copying a tail behind its head, for one
// segment, is cheaper than a second segment.
const preparedCopyMax = 2048

// SendBytes sends a piece of a body of BodyLength that never changes: a large one
// from where it is, without waiting for it.
func (x *Exchange) SendBytes(p []byte) error {
	x.account.sent += int64(len(p))
	x.account.bytes += int64(len(p))
	if len(p) > preparedCopyMax {
		return x.Client.Queue(p)
	}
	_, err := x.Client.Write(p)
	return err
}

// Write sends a piece of the body.
func (x *Exchange) Write(p []byte) (int, error) { return x.writer.Write(p) }

// Writer is where the body is written to, for relay.Copy.
func (x *Exchange) Writer() *relay.Writer { return &x.writer }

// End ends the response.
func (x *Exchange) End(trailer *h1.Trailer) error { return x.writer.End(trailer, true) }

// sendFilePiece is how much of a file may take one write time-out.
const sendFilePiece = 1 << 20

// SendFile sends n bytes of a file as body. Fewer with a nil error means that
// the file has become shorter: Abort then.
func (x *Exchange) SendFile(f *loop.File, off, n int64) (int64, error) {
	var done int64
	for done < n {
		x.Client.SetWriteDeadline(x.Loop.Now().After(x.server.config.Write))
		piece := min(n-done, sendFilePiece)
		m, err := x.Client.SendFile(f, off+done, piece)
		done += m
		x.account.sent += m
		x.account.bytes += m
		if err != nil || m < piece {
			return done, err
		}
	}
	return done, nil
}

// Informational relays an interim response (1xx) to a client that knows them.
func (x *Exchange) Informational(resp *h1.Response) error {
	if x.Minor == 0 {
		return nil
	}
	x.startHead(resp)
	x.out = append(x.out, "\r\n"...)
	if err := x.writeHead(); err != nil {
		return err
	}
	return x.Client.Flush()
}

// Switch relays 101 (Switching Protocols), which is the last that this exchange
// has of HTTP: what the client sends is from now on for the handler to read from
// Client, and what it gets for the handler to write. The connection ends with
// the exchange.
func (x *Exchange) Switch(resp *h1.Response) error {
	x.begun, x.status, x.keep = true, resp.Status, false
	x.account.answered, x.account.tunnel = resp.Status, true
	x.Stats.Respond(resp.Status)
	x.startHead(resp)
	x.out = append(x.out, "Connection: upgrade\r\n"...)
	for _, f := range resp.Fields() {
		if f.Key == h1.KeyUpgrade {
			x.out = h1.AppendField(x.out, f.Name, f.Value)
		}
	}
	x.out = append(x.out, "\r\n"...)
	return x.writeHead()
}

// startHead starts a head with all of resp that may be forwarded.
func (x *Exchange) startHead(resp *h1.Response) {
	x.out = h1.AppendStatusReason(x.server.takeHead(), resp.Status, resp.Reason)
	fields := resp.Fields()
	for i := range fields {
		if !resp.HopByHop(i) {
			x.out = h1.AppendField(x.out, fields[i].Name, fields[i].Value)
		}
	}
}

// Answer sends a whole response of our own, with a body of this type that is
// known; nil is none. extra are pairs of field names and values.
func (x *Exchange) Answer(status int, kind string, body []byte, extra ...string) {
	x.Begin(status, nil)
	x.out = h1.AppendField(x.out, "Server", serverName)
	x.Date()
	for i := 0; i+1 < len(extra); i += 2 {
		x.out = h1.AppendField(x.out, extra[i], extra[i+1])
	}
	if kind != "" {
		x.out = h1.AppendField(x.out, "Content-Type", kind)
	}
	x.out = h1.AppendContentLength(x.out, int64(len(body)))
	if x.Method == h1.MethodHead {
		body = nil
	}
	_ = x.SendHead(h1.BodyLength, body) // an error leaves nobody to tell: finish closes
}

// Abort ends the connection so that the client cannot take what it has for a
// whole response.
func (x *Exchange) Abort() {
	x.begun, x.keep, x.status = true, false, 0
	x.Client.Reset()
}

// Flush starts sending what was written.
func (x *Exchange) Flush() error { return x.Client.Flush() }

// Begun reports that the head was sent: too late for Fail.
func (x *Exchange) Begun() bool { return x.begun }

// Close ends the connection after this exchange.
func (x *Exchange) Close() { x.keep = false }
