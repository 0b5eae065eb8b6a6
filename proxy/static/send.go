package static

import (
	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
)

// send answers from memory with the request's head still at hand.
func send(x *exchange.Exchange, e *entry) {
	if !whole(x.Request) {
		asked := takeAsked(x.Request)
		sendAsked(x, e, nil, &asked)
		return
	}
	tail := e.tail
	if x.Method == h1.MethodHead {
		tail = tail[:2]
	}
	// A failed send shows at the next one, or closes the connection.
	_ = x.SendPrepared(200, e.head, tail)
}

// sendAsked answers a request with what it asked for. f is nil where the entry has
// its body in memory.
func sendAsked(x *exchange.Exchange, e *entry, f *loop.File, a *asked) {
	now := x.Loop.Clock().Unix()
	switch a.preconditions(e, now) {
	case failed:
		x.Fail(412, "the file is not the version that the request is about")
		return
	case unchanged:
		_ = x.SendPrepared(304, e.headUnchanged, e.tail[:2])
		return
	}
	// Ranges are defined for GET alone (RFC 9110 section 14.2).
	if x.Method == h1.MethodGet && a.wantsRanges(e, now) {
		var few [2]span
		switch spans, answer := parseRanges(few[:0], a.ranges, e.stat.Size); {
		case answer == rangeNone:
			x.Fail(416, "nothing of this range is in the file", "Content-Range", unsatisfied(e.stat.Size))
			return
		case answer == rangeParts && len(spans) == 1:
			sendSpan(x, e, f, spans[0])
			return
		case answer == rangeParts:
			sendSpans(x, e, f, spans)
			return
		}
	}
	sendWhole(x, e, f)
}

func sendWhole(x *exchange.Exchange, e *entry, f *loop.File) {
	switch {
	case x.Method == h1.MethodHead:
		_ = x.SendPrepared(200, e.head, e.tail[:2])
	case f == nil:
		_ = x.SendPrepared(200, e.head, e.tail)
	case x.SendPrepared(200, e.head, e.tail) == nil:
		sendBody(x, e, f, span{0, e.stat.Size})
	}
}

// sendSpan answers with one part.
func sendSpan(x *exchange.Exchange, e *entry, f *loop.File, s span) {
	var line [96]byte // two words and three numbers of up to 19 digits
	x.Begin(206, nil)
	x.Lines(e.common)
	x.Lines(h1.AppendField(line[:0], "Content-Type", e.kind))
	x.Lines(appendContentRange(line[:0], s, e.stat.Size))
	x.Lines(h1.AppendContentLength(line[:0], s.length))
	x.Date()
	if x.SendHead(h1.BodyLength, nil) == nil {
		sendBody(x, e, f, s)
	}
}

// sendSpans answers with several parts, each with a head of its own.
func sendSpans(x *exchange.Exchange, e *entry, f *loop.File, spans []span) {
	m := newFrame(spans, e.kind, e.stat.Size)
	x.Begin(206, nil)
	x.Lines(e.common)
	x.Lines(h1.AppendField(nil, "Content-Type", m.kind))
	x.Lines(h1.AppendContentLength(nil, m.bytes))
	x.Date()
	if x.SendHead(h1.BodyLength, nil) != nil {
		return
	}
	for i, s := range spans {
		if x.SendBytes(m.heads[i]) != nil || !sendBody(x, e, f, s) {
			return
		}
	}
	_ = x.SendBytes(m.end)
}

// sendBody sends a part of the body. It reports false if that was not possible.
func sendBody(x *exchange.Exchange, e *entry, f *loop.File, s span) bool {
	if f == nil {
		return x.SendBytes(e.tail[2+s.first:][:s.length]) == nil
	}
	// Who does not get all must not take this for all, nor the next response for
	// the rest.
	switch n, err := x.SendFile(f, s.first, s.length); {
	case err != nil:
		x.Fault(exchange.Fault{Status: exchange.StatusGone, Why: "the client takes no more", Cause: err,
			Side: exchange.ClientSide, Step: "send response"})
		return false
	case n < s.length:
		x.Fault(exchange.Fault{Status: 500, Why: "the file has become shorter",
			Side: exchange.ProxySide, Step: "send response"})
		return false
	}
	return true
}

// unsatisfied is the Content-Range of a 416.
func unsatisfied(size int64) string { return string(h1.AppendDecimal([]byte("bytes */"), size)) }
