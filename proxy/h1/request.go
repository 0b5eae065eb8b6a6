package h1

// Method is a request method that the proxy knows; the rest is MethodOther.
type Method uint8

const (
	MethodOther Method = iota
	MethodConnect
	MethodDelete
	MethodGet
	MethodHead
	MethodOptions
	MethodPatch
	MethodPost
	MethodPut
	MethodTrace
)

var methodNames = [...]string{"", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}

// String is the method's name, "" for MethodOther.
func (m Method) String() string {
	if int(m) >= len(methodNames) {
		return ""
	}
	return methodNames[m]
}

// Safe reports that the method only reads (RFC 9110 section 9.2.1).
func (m Method) Safe() bool {
	return m == MethodGet || m == MethodHead || m == MethodOptions || m == MethodTrace
}

// Idempotent reports that sending the request twice has the effect of sending it once (RFC 9110 section 9.2.2).
func (m Method) Idempotent() bool { return m.Safe() || m == MethodPut || m == MethodDelete }

// Request is one request head. Its slices alias the bytes it was parsed from, with no capacity beyond their end. Set
// Limits once, then use the value for one request after another; a zero Request is ready. It is large (5.7 kB): keep
// one for a worker, not on a stack.
type Request struct {
	Limits Limits
	// Begun says that the empty line that may stand before a request was here already: another is one too many.
	Begun bool

	Method     Method
	MethodName []byte // as sent; methods are case-sensitive

	// Target is the request target as sent. Path and Query are its parts, still percent-encoded: Query is what
	// follows the first "?", nil without one. Path is empty for "*", for CONNECT, and for an absolute form without
	// path; AppendTarget writes what to forward.
	Target, Path, Query []byte
	Form                Form

	// Scheme and Authority are set for the absolute form, Authority also for CONNECT.
	Scheme, Authority []byte

	// Host is the host[:port] that the request is for: the authority of the target if it has one, else the Host
	// field. It is valid, and empty only in HTTP/1.0.
	Host []byte

	Body Body

	Expect100   bool // the client waits for 100 (Continue) before it sends the body, RFC 9110 section 10.1.1
	ExpectOther bool // the client expects something else: a server may answer 417
	Upgrade     bool // Upgrade is present, listed in Connection, and allowed (HTTP/1.1): RFC 9110 section 7.8
	TETrailers  bool // the client takes trailer fields, RFC 9110 section 10.1.4

	Head
}

// ParseRequest reads one request head from the start of b (RFC 9112 sections 2 to 6).
//
//	n > 0, nil       complete; the head is b[:n] and req points into it
//	0, ErrShort      valid so far; call again with the same bytes plus more
//	0, *SyntaxError  can never become valid; answer its Status and close
//
// It allocates nothing and remembers nothing between calls. Re-reading a slow head costs less than a resumable state
// machine costs every fast one. It judges bytes strictly in their order and reads none beyond the limits, so where
// the network cut the head has no influence on the verdict: once an error, always the same error. After an error
// Fields is empty; MethodName and Target are there as far as they were read, for a log line.
func ParseRequest(b []byte, req *Request) (n int, err error) {
	req.reset()
	headMax := req.Limits.headBytes()
	if len(b) > headMax {
		b = b[:headMax]
	}
	n, why := req.parse(b)
	if why == reasonNone {
		return n, nil
	}
	if why == reasonShort && len(b) == headMax {
		why = reasonHeadLong
	}
	req.Head.reset()
	return 0, why.err()
}

// reset forgets the last request, field by field: *r = Request{} would clear the array as well.
func (r *Request) reset() {
	r.Method, r.MethodName, r.Target, r.Form = MethodOther, nil, nil, FormOrigin
	r.Scheme, r.Authority, r.Host, r.Path, r.Query = nil, nil, nil, nil, nil
	r.Body = Body{}
	r.Expect100, r.ExpectOther, r.Upgrade, r.TETrailers = false, false, false, false
	r.Head.reset()
}

func (r *Request) parse(b []byte) (n int, why Reason) {
	i, why := leadingLine(b, r.Begun)
	if why != reasonNone {
		return 0, why
	}
	line := b
	lineMax := i + r.Limits.lineBytes()
	if len(line) > lineMax {
		line = line[:lineMax]
	}
	i, why = r.readLine(line, i)
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

// leadingLine skips the one empty line that a client may have left after its previous body (RFC 9112 section 2.2).
func leadingLine(b []byte, skipped bool) (i int, why Reason) {
	if len(b) == 0 {
		return 0, reasonShort
	}
	if b[0] == '\r' && !skipped {
		i, why = readLineEnd(b, 0, reasonBareCR)
		if why != reasonNone {
			return 0, why
		}
		if i == len(b) {
			return 0, reasonShort
		}
	}
	switch b[i] {
	case '\r':
		return 0, reasonEmptyLine
	case '\n':
		return 0, reasonBareLF
	case ' ', '\t':
		return 0, reasonLeadingSpace
	}
	return i, reasonNone
}

// readLine reads the request line that starts at b[i], RFC 9112 section 3.
func (r *Request) readLine(b []byte, i int) (next int, why Reason) {
	start := i
	for i < len(b) && class[b[i]]&classToken != 0 {
		i++
		if i-start > methodBytesMax {
			return 0, reasonMethodLong
		}
	}
	if i == len(b) {
		return 0, reasonShort
	}
	if b[i] != ' ' {
		return 0, reasonMethod
	}
	r.MethodName = b[start:i:i]
	r.Method = methodOf(r.MethodName)

	i++
	i, why = r.readTarget(b, i)
	if why != reasonNone {
		return 0, why
	}
	r.Minor, i, why = readVersion(b, i)
	if why != reasonNone {
		return 0, why
	}
	next, why = readLineEnd(b, i, reasonVersion)
	if why != reasonNone {
		return 0, why
	}
	return next, r.splitTarget()
}

func methodOf(name []byte) Method {
	switch string(name) {
	case "GET":
		return MethodGet
	case "POST":
		return MethodPost
	case "HEAD":
		return MethodHead
	case "PUT":
		return MethodPut
	case "DELETE":
		return MethodDelete
	case "OPTIONS":
		return MethodOptions
	case "PATCH":
		return MethodPatch
	case "CONNECT":
		return MethodConnect
	case "TRACE":
		return MethodTrace
	}
	return MethodOther
}

// readVersion reads HTTP/1.x at b[i], RFC 9112 section 2.3. A minor version above 1 is read as 1 (RFC 9110 section
// 6.2); another major version is refused.
func readVersion(b []byte, i int) (minor uint8, next int, why Reason) {
	const form = "HTTP/d.d"
	const http11 = 0x312e312f50545448 // "HTTP/1.1"
	if i <= len(b)-wordBytes && load(b[i:]) == http11 {
		return 1, i + len(form), reasonNone
	}
	for k := range len(form) {
		if i+k >= len(b) {
			return 0, 0, reasonShort
		}
		c := b[i+k]
		if form[k] == 'd' && !isDigit(c) || form[k] != 'd' && form[k] != c {
			return 0, 0, reasonVersion
		}
	}
	if b[i+5] != '1' {
		return 0, 0, reasonVersionUnsupported
	}
	return min(b[i+7]-'0', 1), i + len(form), reasonNone
}

// requestKeys change how the request is read.
var requestKeys = keysOf(KeyHost, KeyContentLength, KeyTransferEncoding, KeyConnection, KeyExpect, KeyTE)

// settle judges what only the complete head can tell, fields first in their order.
func (r *Request) settle() Reason {
	for i := range r.fields[:r.count] {
		if f := &r.fields[i]; requestKeys.has(f.Key) {
			if why := r.take(f.Key, f.Value); why != reasonNone {
				return why
			}
		}
	}
	if why := r.settleHost(); why != reasonNone {
		return why
	}
	switch {
	case r.framing.chunked:
		r.Body = Body{Kind: BodyChunked}
	case r.framing.hasLength:
		r.Body = Body{Kind: BodyLength, Length: r.framing.length}
	}
	if r.Minor == 0 {
		// A client that speaks HTTP/1.0 knows neither: RFC 9110 sections 7.8 and 10.1.1.
		r.Expect100, r.ExpectOther = false, false
	} else {
		r.Upgrade = r.present.has(KeyUpgrade) && r.conn&connUpgrade != 0
	}
	r.KeepAlive = r.persistent()
	return reasonNone
}

func (r *Request) take(key Key, value []byte) Reason {
	switch key {
	case KeyHost:
		if r.Host != nil {
			return reasonHostRepeated
		}
		if !isAuthority(value) {
			return reasonHostInvalid
		}
		r.Host = value
	case KeyContentLength:
		return r.framing.readLength(value)
	case KeyTransferEncoding:
		return r.framing.readCoding(value, r.Minor)
	case KeyConnection:
		return r.readConnection(value)
	case KeyExpect:
		isContinue := EqualFold(value, "100-continue")
		r.Expect100 = r.Expect100 || isContinue
		r.ExpectOther = r.ExpectOther || !isContinue
	case KeyTE:
		r.TETrailers = r.TETrailers || HasToken(value, "trailers")
	}
	return reasonNone
}

// settleHost decides which authority the request is for, RFC 9112 section 3.3.
func (r *Request) settleHost() Reason {
	switch {
	case r.Host == nil && r.Minor > 0:
		return reasonHostMissing
	case r.Form == FormAbsolute && r.Host != nil && !r.sameAuthority(r.Host):
		return reasonHostMismatch
	case r.Authority != nil:
		r.Host = r.Authority
	}
	return reasonNone
}
