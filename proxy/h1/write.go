package h1

import "strconv"

// The writers append to dst and return it, like append. They trust their arguments: bytes from the parsers of this
// package are safe, anything else (a configuration, an application) passes ValidName and ValidValue first.

// statusTexts are the reason phrases of the codes registered with IANA.
var statusTexts = map[int]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency", 425: "Too Early",
	426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 511: "Network Authentication Required",
}

// statusLines holds the whole line for each known code, so that writing one is one copy.
var statusLines = func() (lines [600]string) {
	for code, text := range statusTexts {
		lines[code] = "HTTP/1.1 " + strconv.Itoa(code) + " " + text + "\r\n"
	}
	return lines
}()

// StatusText is the registered reason phrase of code, or "".
func StatusText(code int) string { return statusTexts[code] }

// AppendStatusLine appends "HTTP/1.1 code text CRLF" for a code from 100 to 599, RFC 9112 section 4.
func AppendStatusLine(dst []byte, code int) []byte {
	if code >= 0 && code < len(statusLines) && statusLines[code] != "" {
		return append(dst, statusLines[code]...)
	}
	return AppendStatusReason(dst, code, nil)
}

// AppendStatusReason appends a status line with the reason phrase of somebody else.
func AppendStatusReason(dst []byte, code int, reason []byte) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = AppendDecimal(dst, int64(code))
	dst = append(dst, ' ')
	dst = append(dst, reason...)
	return append(dst, "\r\n"...)
}

// AppendRequestLine appends "method target HTTP/1.1 CRLF", RFC 9112 section 3. See Request.AppendTarget.
func AppendRequestLine(dst, method, target []byte) []byte {
	dst = append(dst, method...)
	dst = append(dst, ' ')
	dst = append(dst, target...)
	return append(dst, " HTTP/1.1\r\n"...)
}

// AppendField appends "name: value CRLF", RFC 9112 section 5.
func AppendField[N, V string | []byte](dst []byte, name N, value V) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// AppendContentLength appends the field "Content-Length: n".
func AppendContentLength(dst []byte, n int64) []byte {
	dst = append(dst, "Content-Length: "...)
	dst = AppendDecimal(dst, n)
	return append(dst, "\r\n"...)
}

// AppendDecimal appends n in decimal.
func AppendDecimal(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// ValidName reports that name may stand before the colon of a field line.
func ValidName(name []byte) bool { return isToken(name) }

// ValidValue reports that value may stand behind the colon: no control byte, hence no line end, and no white space
// at its ends.
func ValidValue(value []byte) bool {
	for _, c := range value {
		if class[c]&classValue == 0 {
			return false
		}
	}
	return len(trim(value)) == len(value)
}
