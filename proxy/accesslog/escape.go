package accesslog

import (
	"encoding/binary"
	"unicode/utf8"
)

const hex = "0123456789abcdef"

// ones is a byte of 1 in each place.
const ones = 0x0101010101010101

// plain reports that s is printable ASCII without quotes and backslashes, which is
// the same in every format. It looks at eight bytes at once.
func plain(s []byte) bool {
	for len(s) >= 8 {
		w := binary.LittleEndian.Uint64(s)
		if odd(w) {
			return false
		}
		s = s[8:]
	}
	if len(s) == 0 {
		return true
	}
	w := uint64(ones * 'x')
	for _, c := range s {
		w = w<<8 | uint64(c)
	}
	return !odd(w)
}

// odd reports that one of the eight bytes of w is below a space, above a tilde, a
// quote or a backslash. x - ones borrows into the highest bit of a byte that is 0,
// and x - n*ones into that of a byte below n.
func odd(w uint64) bool {
	quote, backslash := w^ones*'"', w^ones*'\\'
	found := (w-ones*' ')&^w | (quote-ones)&^quote | (backslash-ones)&^backslash | w | (w&(ones*0x7f) + ones)
	return found&(ones*0x80) != 0
}

// appendString appends a string of JSON. Bytes that are not UTF-8 become U+FFFD;
// control characters are escaped, also those that JSON would let pass.
func appendString(b, s []byte) []byte {
	b = append(b, '"')
	if plain(s) {
		b = append(b, s...)
		return append(b, '"')
	}
	for len(s) > 0 {
		c, n := utf8.DecodeRune(s)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ' || 0x7f <= c && c < 0xa0 || c == 0x2028 || c == 0x2029:
			b = append(b, '\\', 'u', hex[c>>12], hex[c>>8&15], hex[c>>4&15], hex[c&15])
		default:
			b = utf8.AppendRune(b, c) // U+FFFD for what is none
		}
		s = s[n:]
	}
	return append(b, '"')
}

// appendEscaped appends a text for the other formats as Apache's httpd does: what
// could end a quoted string or a line, and all that is not ASCII, is escaped.
func appendEscaped(b, s []byte) []byte {
	if plain(s) {
		return append(b, s...)
	}
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c >= 0x7f:
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
