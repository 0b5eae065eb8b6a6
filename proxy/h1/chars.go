package h1

// Classes of bytes, as bits of class[c].
const (
	classToken      uint8 = 1 << iota // tchar, RFC 9110 section 5.6.2
	classValue                        // HTAB, SP, VCHAR, obs-text: values, reason phrases, RFC 9110 section 5.5
	classTarget                       // VCHAR without #: request targets
	classHost                         // unreserved, sub-delims: reg-name without %, RFC 3986 section 3.2.2
	classHex                          // HEXDIG in either case
	classQuoted                       // qdtext: inside a quoted-string, RFC 9110 section 5.6.4
	classUnderscore                   // the underscore
)

var class = func() (t [256]uint8) {
	for c := range 256 {
		t[c] = classesOf(byte(c))
	}
	return t
}()

func classesOf(c byte) (bits uint8) {
	alnum := isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z'
	if alnum || among(c, "!#$%&'*+-.^_`|~") {
		bits |= classToken
	}
	if c == '\t' || c >= ' ' && c != 0x7f {
		bits |= classValue
	}
	if c > ' ' && c < 0x7f && c != '#' {
		bits |= classTarget
	}
	if alnum || among(c, "-._~!$&'()*+,;=") {
		bits |= classHost
	}
	if isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' {
		bits |= classHex
	}
	if bits&classValue != 0 && c != '"' && c != '\\' {
		bits |= classQuoted
	}
	if c == '_' {
		bits |= classUnderscore
	}
	return bits
}

func among(c byte, set string) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// isToken reports that b is a token: one or more tchar.
func isToken(b []byte) bool {
	for _, c := range b {
		if class[c]&classToken == 0 {
			return false
		}
	}
	return len(b) > 0
}

// trim drops optional white space (SP and HTAB) from both ends, RFC 9110 section 5.6.3.
func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}
