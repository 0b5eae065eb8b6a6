package forward

import "atlas/proxy/h1"

// requestBodyMax is up to which size a request body that has arrived with its
// head is sent with it, in one piece, and needs no task of its own.
const requestBodyMax = 16 << 10

// prepare writes the request for the upstream, while the client's head is still
// at hand, and gives that memory back. false means that the client was answered.
func (t *transfer) prepare() bool {
	x := t.x
	r := x.Request
	if !t.passes(r) {
		return false
	}
	t.route()
	b := append(t.request[:0], r.MethodName...)
	b = append(b, ' ')
	b = r.AppendTarget(b)
	b = append(b, " HTTP/1.1\r\n"...)
	// First, as RFC 9110 section 7.2 asks; and the one that the target names,
	// if it does.
	b = h1.AppendField(b, "Host", r.Host)
	fields := r.Fields()
	for i := range fields {
		if special(fields[i].Key) {
			b = t.appendSpecial(b, r, i)
		} else if !r.HopByHop(i) {
			b = h1.AppendField(b, fields[i].Name, fields[i].Value)
		}
	}
	b = t.appendProvenance(b, r)
	if r.Upgrade {
		b = t.appendUpgrade(b, r)
	}
	if r.Body.Kind == h1.BodyChunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, "\r\n"...)
	t.trailers = r.Body.Kind == h1.BodyChunked && forwardsTrailers(&r.Head)
	x.ClientAddr() // for later, when the head is gone
	x.ReleaseHead()

	if body, whole := x.Body.Whole(); whole && len(body) <= requestBodyMax {
		b = append(b, body...)
		x.Body.Skip()
	}
	t.request = b
	t.streaming = !x.Body.Done()
	return true
}

// special reports that a field of this name does not simply go on.
func special(k h1.Key) bool {
	switch k {
	case h1.KeyHost, h1.KeyContentLength, h1.KeyExpect, h1.KeyUnderscore, h1.KeyMaxForwards,
		h1.KeyXForwardedFor, h1.KeyXForwardedProto, h1.KeyXForwardedHost, h1.KeyXForwardedPort,
		h1.KeyForwarded, h1.KeyXRealIP:
		return true
	}
	return false
}

// appendSpecial appends what goes on of field i, whose name is special.
func (t *transfer) appendSpecial(b []byte, r *h1.Request, i int) []byte {
	f := &r.Fields()[i]
	switch f.Key {
	case h1.KeyHost, h1.KeyXForwardedFor: // are written elsewhere
		return b
	case h1.KeyExpect: // the exchange answers it
		return b
	case h1.KeyContentLength:
		return h1.AppendField(b, f.Name, h1.PlainLength(f.Value))
	case h1.KeyUnderscore: // applications take it for another name
		t.x.Stats.Underscores.Add(1)
		return b
	case h1.KeyMaxForwards:
		if t.hops > 0 {
			b = append(b, f.Name...)
			b = append(b, ": "...)
			b = h1.AppendDecimal(b, t.hops-1)
			return append(b, "\r\n"...)
		}
		if r.HopByHop(i) {
			return b
		}
	default: // who asked, whom, and how: not everybody may say so
		if !t.x.Trusted() {
			return b
		}
	}
	return h1.AppendField(b, f.Name, f.Value)
}

// appendProvenance says who asked, whom, how, and that we are in between.
func (t *transfer) appendProvenance(b []byte, r *h1.Request) []byte {
	x := t.x
	trusted := x.Trusted()
	b = append(b, "X-Forwarded-For: "...)
	if trusted && r.Has(h1.KeyXForwardedFor) {
		b = appendValues(b, r, h1.KeyXForwardedFor)
	}
	b = append(b, x.Peer()...)
	b = append(b, "\r\n"...)
	if !trusted || !r.Has(h1.KeyXForwardedProto) {
		b = append(b, "X-Forwarded-Proto: http\r\n"...)
	}
	if !trusted || !r.Has(h1.KeyXForwardedHost) {
		b = h1.AppendField(b, "X-Forwarded-Host", r.Host)
	}
	return append(b, t.handler.via[r.Minor]...)
}

// appendValues appends all values of a list field, each with a comma behind it.
func appendValues(b []byte, r *h1.Request, key h1.Key) []byte {
	for _, f := range r.Fields() {
		if f.Key == key && len(f.Value) > 0 {
			b = append(b, f.Value...)
			b = append(b, ", "...)
		}
	}
	return b
}
