package h1

// Response is one response head. Its slices alias the bytes it was parsed from. Set Limits once, then use the value
// for one response after another; a zero Response is ready.
type Response struct {
	Limits Limits

	Status int
	Reason []byte // reason phrase, may be empty; for people only

	// KeepAliveTimeout is the N of "Keep-Alive: timeout=N", in seconds: the upstream closes the idle connection
	// after it. -1 if it said nothing.
	KeepAliveTimeout int

	// Upgrade says of 101 that it switches as it has to: with Upgrade, listed in Connection, over HTTP/1.1 (RFC 9110
	// section 7.8). What follows the head is then no HTTP.
	Upgrade bool

	Head
}

// ParseResponse reads one response head from the start of b (RFC 9112 sections 4 to 6). Its contract is that of
// ParseRequest; whatever the SyntaxError, a proxy answers 502 and drops the upstream connection.
func ParseResponse(b []byte, resp *Response) (n int, err error) {
	resp.reset()
	headMax := resp.Limits.headBytes()
	if len(b) > headMax {
		b = b[:headMax]
	}
	n, why := resp.parse(b)
	if why == reasonNone {
		return n, nil
	}
	if why == reasonShort && len(b) == headMax {
		why = reasonHeadLong
	}
	resp.Head.reset()
	return 0, why.err()
}

func (r *Response) reset() {
	r.Status, r.Reason, r.KeepAliveTimeout, r.Upgrade = 0, nil, -1, false
	r.Head.reset()
}

func (r *Response) parse(b []byte) (n int, why Reason) {
	line := b
	lineMax := r.Limits.lineBytes()
	if len(line) > lineMax {
		line = line[:lineMax]
	}
	i, why := r.readLine(line)
	if why == reasonShort && len(line) == lineMax {
		why = reasonLineLong
	}
	if why != reasonNone {
		return 0, why
	}
	n, count, present, why := readFields(b, i, r.fields[:r.Limits.fields()])
	if why != reasonNone {
		return 0, why
	}
	r.count, r.present = count, present
	return n, r.settle()
}

// readLine reads the status line, RFC 9112 section 4. The space after the code may be missing together with the
// reason phrase, as some servers have it: nothing else could be meant.
func (r *Response) readLine(b []byte) (next int, why Reason) {
	var i int
	r.Minor, i, why = readVersion(b, 0)
	if why != reasonNone {
		return 0, why
	}
	if i == len(b) {
		return 0, reasonShort
	}
	if b[i] != ' ' {
		return 0, reasonVersion
	}
	i++
	for k := range 3 {
		if i+k >= len(b) {
			return 0, reasonShort
		}
		if !isDigit(b[i+k]) {
			return 0, reasonStatusCode
		}
	}
	r.Status = int(b[i]-'0')*100 + int(b[i+1]-'0')*10 + int(b[i+2]-'0')
	if r.Status < 100 || r.Status > 599 {
		return 0, reasonStatusCode
	}
	i += 3
	if i < len(b) && b[i] != ' ' {
		return readLineEnd(b, i, reasonStatusCode)
	}
	start := min(i+1, len(b))
	for i = start; i < len(b) && class[b[i]]&classValue != 0; i++ {
	}
	r.Reason = b[start:i:i]
	return readLineEnd(b, i, reasonReasonPhrase)
}

// responseKeys change how the response is read.
var responseKeys = keysOf(KeyContentLength, KeyTransferEncoding, KeyConnection, KeyKeepAlive)

// settle judges what only the complete head can tell.
func (r *Response) settle() Reason {
	for i := range r.fields[:r.count] {
		if f := &r.fields[i]; responseKeys.has(f.Key) {
			if why := r.take(f.Key, f.Value); why != reasonNone {
				return why
			}
		}
	}
	r.KeepAlive = r.persistent()
	r.Upgrade = r.Status == 101 && r.Minor > 0 && r.present.has(KeyUpgrade) && r.conn&connUpgrade != 0
	if r.bodiless() && (r.framing.chunked || r.framing.length > 0) {
		// Announces a body that must not be there. If it comes all the same, no later response may be read into it.
		r.KeepAlive = false
	}
	return reasonNone
}

func (r *Response) take(key Key, value []byte) Reason {
	switch key {
	case KeyContentLength:
		return r.framing.readLength(value)
	case KeyTransferEncoding:
		return r.framing.readCoding(value, r.Minor)
	case KeyConnection:
		return r.readConnection(value)
	case KeyKeepAlive:
		if n := keepAliveTimeout(value); n >= 0 {
			r.KeepAliveTimeout = n
		}
	}
	return reasonNone
}

// keepAliveTimeout finds the N of timeout=N, or -1. The field has no standard, so what is not understood is skipped.
func keepAliveTimeout(value []byte) int {
	const name = "timeout="
	for l := Items(value); l.Next(); {
		if len(l.Item) <= len(name) || !EqualFold(l.Item[:len(name)], name) {
			continue
		}
		digits := l.Item[len(name):]
		if len(digits) > 6 {
			continue
		}
		n := 0
		for _, c := range digits {
			if !isDigit(c) {
				return -1
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	return -1
}

// Body is the framing of the response to a request with this method, RFC 9112 section 6.3. After 101, and after 2xx to
// CONNECT, the connection is a tunnel and no body follows either.
func (r *Response) Body(m Method) Body {
	switch {
	case m == MethodHead || r.bodiless() || r.Status == 304 || m == MethodConnect && r.Status/100 == 2:
		return Body{}
	case r.framing.chunked:
		return Body{Kind: BodyChunked}
	case r.framing.hasLength:
		return Body{Kind: BodyLength, Length: r.framing.length}
	}
	return Body{Kind: BodyClose}
}

// Reusable reports that the upstream connection may carry another request after this response to a request with this
// method and its body: both sides keep it alive, the body has an end of its own, and it is no tunnel now.
func (r *Response) Reusable(m Method) bool {
	tunnel := r.Status == 101 || m == MethodConnect && r.Status/100 == 2
	return r.KeepAlive && !tunnel && r.Body(m).Kind != BodyClose
}

// bodiless says that the status itself rules out a body and the fields that would describe one.
func (r *Response) bodiless() bool { return r.Status/100 == 1 || r.Status == 204 }

// HopByHop reports that Fields()[i] must not be forwarded: as in Head, and Content-Length where the status forbids it
// (RFC 9110 section 8.6).
func (r *Response) HopByHop(i int) bool {
	if r.fields[i].Key == KeyContentLength && r.bodiless() {
		return true
	}
	return r.Head.HopByHop(i)
}
