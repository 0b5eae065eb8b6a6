package h1

import "bytes"

// Form is the form of a request target (RFC 9112 section 3.2).
type Form uint8

const (
	FormOrigin    Form = iota // /path?query
	FormAbsolute              // http://host/path?query
	FormAuthority             // host:port, for CONNECT
	FormAsterisk              // *, for OPTIONS
)

// AppendTarget appends the target to forward to an origin server: the origin form, without scheme and authority
// (RFC 9112 section 3.2.1), or "*" where the client asked OPTIONS about the whole server (section 3.2.4).
func (r *Request) AppendTarget(dst []byte) []byte {
	if r.Form != FormAbsolute {
		return append(dst, r.Target...)
	}
	if len(r.Path) == 0 {
		if r.Method == MethodOptions && r.Query == nil {
			return append(dst, '*')
		}
		dst = append(dst, '/')
	}
	dst = append(dst, r.Path...)
	if r.Query != nil {
		dst = append(dst, '?')
		dst = append(dst, r.Query...)
	}
	return dst
}

// readTarget reads up to the space that ends the target and returns the index after it.
//
// Bytes that browsers send though RFC 3986 wants them encoded ("|", "{", "[") pass; controls, space, DEL, non-ASCII
// and fragments do not. A fragment is refused because recipients disagree whether it is part of the path.
func (r *Request) readTarget(b []byte, i int) (next int, why Reason) {
	start := i
	i += scanTarget(b[i:])
	if i == len(b) {
		return 0, reasonShort
	}
	switch c := b[i]; {
	case c == '#':
		return 0, reasonTargetFragment
	case (c == '\r' || c == '\n') && i > start:
		return 0, reasonVersion // HTTP/0.9, or a target alone
	case c != ' ' || i == start:
		return 0, reasonTarget
	}
	r.Target = b[start:i:i]
	return i + 1, reasonNone
}

// splitTarget finds the form of the target and its parts.
func (r *Request) splitTarget() Reason {
	t := r.Target
	switch {
	case r.Method == MethodConnect:
		if _, port := splitPort(t); len(port) == 0 || !isAuthority(t) {
			return reasonTargetForm // RFC 9110 section 9.3.6: the port is required
		}
		r.Form, r.Authority = FormAuthority, t
	case t[0] == '/':
		r.Form = FormOrigin
		r.splitQuery(t)
	case len(t) == 1 && t[0] == '*':
		if r.Method != MethodOptions {
			return reasonTargetForm
		}
		r.Form = FormAsterisk
	default:
		return r.splitAbsolute(t)
	}
	return reasonNone
}

// splitAbsolute reads scheme "://" authority path-abempty [ "?" query ]. Userinfo is refused (RFC 9110 section 4.2.4).
func (r *Request) splitAbsolute(t []byte) Reason {
	sep := bytes.Index(t, []byte("://"))
	if sep <= 0 {
		return reasonTargetForm
	}
	r.Form = FormAbsolute
	r.Scheme = t[:sep:sep]
	if !EqualFold(r.Scheme, "http") && !EqualFold(r.Scheme, "https") {
		return reasonTargetScheme
	}
	rest := t[sep+len("://"):]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	r.Authority = rest[:end:end]
	if !isAuthority(r.Authority) {
		return reasonTargetAuthority
	}
	r.splitQuery(rest[end:])
	return reasonNone
}

func (r *Request) splitQuery(t []byte) {
	r.Path = t
	if q := bytes.IndexByte(t, '?'); q >= 0 {
		r.Path, r.Query = t[:q:q], t[q+1:]
	}
}

// sameAuthority compares the target's authority with a Host value: host without case, port with the scheme's default
// filled in.
func (r *Request) sameAuthority(host []byte) bool {
	defaultPort := "80"
	if len(r.Scheme) == len("https") {
		defaultPort = "443"
	}
	nameA, portA := splitPort(r.Authority)
	nameB, portB := splitPort(host)
	return sameFold(nameA, nameB) && portOr(portA, defaultPort) == portOr(portB, defaultPort)
}

func portOr(port []byte, otherwise string) int {
	if len(port) == 0 {
		port = []byte(otherwise)
	}
	n := 0
	for _, c := range port {
		n = n*10 + int(c-'0')
	}
	return n
}

// splitPort cuts host[:port] at the last colon outside brackets.
func splitPort(authority []byte) (host, port []byte) {
	for i := len(authority) - 1; i >= 0; i-- {
		switch authority[i] {
		case ':':
			return authority[:i], authority[i+1:]
		case ']':
			return authority, nil
		}
	}
	return authority, nil
}

// isAuthority reports that b is uri-host [ ":" port ] with a host that is not empty (RFC 9110 section 4.2, RFC 3986
// section 3.2.2).
func isAuthority(b []byte) bool {
	i := 0
	for i < len(b) && class[b[i]]&classHost != 0 {
		i++
	}
	if i == len(b) {
		return i > 0
	}
	host, port := splitPort(b)
	if len(host) == 0 || !isPort(port) {
		return false
	}
	if host[0] == '[' {
		return isLiteral(host)
	}
	for ; i < len(host); i++ {
		switch {
		case class[host[i]]&classHost != 0:
		case host[i] == '%' && i+2 < len(host) && class[host[i+1]]&class[host[i+2]]&classHex != 0:
			i += 2
		default:
			return false
		}
	}
	return true
}

// isPort reports that b is empty or a decimal number of at most five digits and 65535.
func isPort(b []byte) bool {
	if len(b) > len("65535") {
		return false
	}
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return portOr(b, "0") <= 65535
}

// isLiteral reports that b is an address in brackets. It checks the alphabet, not the address: whoever dials it does.
func isLiteral(b []byte) bool {
	if len(b) < len("[::]") || b[len(b)-1] != ']' {
		return false
	}
	colons := 0
	for _, c := range b[1 : len(b)-1] {
		if c == ':' {
			colons++
		} else if c != '.' && class[c]&classHex == 0 {
			return false
		}
	}
	return colons >= 2
}
