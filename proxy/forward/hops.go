package forward

import (
	"bytes"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/stats"
)

// allowed are methods, where a client has to be told some. We forward any but
// CONNECT.
const allowed = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE"

// passes reports that the request goes on to an upstream. It answers those that
// end here.
func (t *transfer) passes(r *h1.Request) bool {
	t.hops = 0
	switch r.Method {
	case h1.MethodConnect:
		t.x.Close() // what follows may be meant for a tunnel
		t.refuse(405, "method", "this server is no tunnel: it does not know CONNECT", "Allow", allowed)
		return false
	case h1.MethodTrace, h1.MethodOptions:
		if !t.passesHops(r) {
			return false
		}
	}
	if r.Has(h1.KeyVia) && t.loops(r) {
		t.x.Fault(exchange.Fault{
			Status: 508, Why: "this request has been here before", Error: exchange.LoopDetected,
			Side: exchange.ProxySide, Step: "read request head",
		})
		return false
	}
	return true
}

// refuse answers a request that is valid, but not for us.
func (t *transfer) refuse(status int, reason, why string, extra ...string) {
	t.x.Stats.FailClient(stats.BadRequest)
	t.x.Fault(exchange.Fault{
		Status: status, Why: why, Details: reason, Side: exchange.ClientSide, Step: "read request head",
	}, extra...)
}

// passesHops counts Max-Forwards of TRACE and OPTIONS, and answers as the last
// recipient where it says so (RFC 9110 section 7.6.2).
func (t *transfer) passesHops(r *h1.Request) bool {
	if r.Method == h1.MethodTrace && !r.Body.Empty() {
		t.refuse(400, "trace-body", "TRACE has no content, RFC 9110 section 9.3.8")
		return false
	}
	if !r.Has(h1.KeyMaxForwards) {
		return true
	}
	hops, ok := maxForwards(r)
	switch {
	case !ok:
		t.refuse(400, "max-forwards", "Max-Forwards is not one decimal number, RFC 9110 section 7.6.2")
		return false
	case hops > 0:
		t.hops = hops
		return true
	case r.Method == h1.MethodTrace:
		t.reflect(r)
	default:
		t.x.Answer(200, "", nil, "Allow", allowed)
	}
	return false
}

// hopsMax is the largest number that we count; a larger one becomes it.
const hopsMax = 1 << 31

// maxForwards is the number of hops that the request may still make.
func maxForwards(r *h1.Request) (hops int64, ok bool) {
	for _, f := range r.Fields() {
		if f.Key != h1.KeyMaxForwards {
			continue
		}
		if ok || len(f.Value) == 0 {
			return 0, false
		}
		for _, c := range f.Value {
			if c < '0' || c > '9' {
				return 0, false
			}
			hops = min(hops*10+int64(c-'0'), hopsMax)
		}
		ok = true
	}
	return hops, ok
}

// reflect answers TRACE with the head that came, but for what only the client
// should know (RFC 9110 section 9.3.8).
func (t *transfer) reflect(r *h1.Request) {
	b := append(t.request[:0], r.MethodName...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1."...)
	b = append(b, '0'+r.Minor, '\r', '\n')
	for _, f := range r.Fields() {
		switch f.Key {
		case h1.KeyAuthorization, h1.KeyProxyAuthorization, h1.KeyCookie, h1.KeySetCookie:
		default:
			b = h1.AppendField(b, f.Name, f.Value)
		}
	}
	t.request = append(b, "\r\n"...)
	t.x.Answer(200, "message/http", t.request)
}

// loops reports that Via names us. A member is the protocol that was spoken, who
// received it, and perhaps a comment (RFC 9110 section 7.6.3).
func (t *transfer) loops(r *h1.Request) bool {
	for _, f := range r.Fields() {
		if f.Key != h1.KeyVia {
			continue
		}
		for l := h1.Items(f.Value); l.Next(); {
			space := bytes.IndexAny(l.Item, " \t")
			if space < 0 {
				continue // only a protocol
			}
			by := bytes.TrimLeft(l.Item[space:], " \t")
			if end := bytes.IndexAny(by, " \t"); end >= 0 {
				by = by[:end]
			}
			if string(by) == t.handler.config.Via {
				return true
			}
		}
	}
	return false
}
