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
	if r.Method == h1.MethodConnect {
		x.Close()
		x.Fail(501, "this server is no tunnel: it does not know CONNECT")
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
		if forwarded(fields[i].Key) && !r.HopByHop(i) {
			b = h1.AppendField(b, fields[i].Name, fields[i].Value)
		}
	}
	b = h1.AppendField(b, "X-Forwarded-For", x.Peer())
	b = h1.AppendField(b, "X-Forwarded-Proto", x.Scheme())
	if cert := x.ClientCert(); cert != nil {
		b = h1.AppendField(b, "Client-Cert", cert)
	}
	b = h1.AppendField(b, "X-Forwarded-Host", r.Host)
	b = append(b, "Via: 1."...)
	b = append(b, '0'+r.Minor)
	b = append(b, " atlas\r\n"...)
	if r.Body.Kind == h1.BodyChunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, "\r\n"...)
	t.trailers = r.Body.Kind == h1.BodyChunked && forwardsTrailers(&r.Head)
	x.ReleaseHead()

	if body, whole := x.Body.Whole(); whole && len(body) <= requestBodyMax {
		b = append(b, body...)
		x.Body.Skip()
	}
	t.request = b
	t.streaming = !x.Body.Done()
	return true
}

// forwarded reports that a field of this name goes on to the upstream, as far
// as its name says. Left out are Host, which was written already; what we say
// ourselves and nobody may say for us; Expect, which the exchange answers; and
// names with an underscore, which applications take for other names.
func forwarded(k h1.Key) bool {
	switch k {
	case h1.KeyHost, h1.KeyExpect, h1.KeyUnderscore,
		h1.KeyXForwardedFor, h1.KeyXForwardedProto, h1.KeyXForwardedHost, h1.KeyForwarded,
		h1.KeyClientCert, h1.KeyClientCertChain:
		return false
	}
	return true
}
