package static

import "bytes"

// appendName turns the path of a request into the name of a file below the
// root: percent-decoded, without empty, "." and ".." segments, without leading
// slash. A trailing slash stays, as it asks for a directory. It appends to
// dst, which is empty, and says what is wrong with a path that names no file anywhere.
func appendName(dst, path []byte) (name []byte, problem string) {
	if len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	dst, problem = appendDecoded(dst, path)
	if problem != "" || plain(dst) {
		return dst, problem
	}
	return resolve(dst)
}

// plain reports that a decoded path needs no resolving: the common case.
func plain(p []byte) bool {
	for len(p) > 0 && p[0] != '/' && p[0] != '.' {
		slash := bytes.IndexByte(p, '/')
		if slash < 0 {
			return true
		}
		p = p[slash+1:]
	}
	return len(p) == 0
}

// appendDecoded decodes percent-encodings (RFC 3986 section 2.1).
func appendDecoded(dst, path []byte) (decoded []byte, problem string) {
	for i := 0; i < len(path); i++ {
		b := path[i]
		if b == '%' {
			if i+2 >= len(path) {
				return dst, "the path ends inside a percent-encoding"
			}
			high, low := hexValue(path[i+1]), hexValue(path[i+2])
			if high < 0 || low < 0 {
				return dst, "a percent-encoding in the path is not two hex digits"
			}
			b = byte(high<<4 | low)
			i += 2
		}
		switch b {
		case 0:
			return dst, "the path has a NUL byte"
		case '\\':
			// A separator on some systems and not on others.
			return dst, "the path has a backslash"
		}
		dst = append(dst, b)
	}
	return dst, ""
}

func hexValue(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'f':
		return int(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int(b-'A') + 10
	}
	return -1
}

// resolve removes empty and dot segments in place (RFC 3986 section 5.2.4). It
// refuses to climb above the root instead of staying there: who asks for that
// is not lost but looking.
func resolve(p []byte) (name []byte, problem string) {
	out := p[:0]
	for len(p) > 0 {
		segment, rest, slash := bytes.Cut(p, []byte("/"))
		p = rest
		switch string(segment) {
		case "", ".":
		case "..":
			if len(out) == 0 {
				return out, "the path leads out of the root"
			}
			out = out[:bytes.LastIndexByte(out[:len(out)-1], '/')+1]
		default:
			out = append(out, segment...)
			if slash {
				out = append(out, '/')
			}
		}
	}
	return out, ""
}

// hidden reports that a segment of name begins with a dot, but for .well-known
// (RFC 8615), which exists to be found.
func hidden(name []byte) bool {
	if bytes.IndexByte(name, '.') < 0 {
		return false
	}
	for len(name) > 0 {
		segment, rest, _ := bytes.Cut(name, []byte("/"))
		if len(segment) > 0 && segment[0] == '.' && string(segment) != ".well-known" {
			return true
		}
		name = rest
	}
	return false
}

// appendEscaped percent-encodes a name for a Location field.
func appendEscaped(dst []byte, name string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(name) {
		b := name[i]
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9',
			b == '-', b == '.', b == '_', b == '~', b == '/':
			dst = append(dst, b)
		default:
			dst = append(dst, '%', digits[b>>4], digits[b&15])
		}
	}
	return dst
}
