package h1

// framing is what Content-Length and Transfer-Encoding said.
type framing struct {
	length    int64
	hasLength bool
	hasCoding bool
	chunked   bool
}

// readLength takes one Content-Length value: exactly 1*DIGIT within 63 bits. A list of equal values is refused like
// any other list: RFC 9112 section 6.3 lets us, and two recipients might pick different members.
func (f *framing) readLength(value []byte) Reason {
	switch {
	case f.hasLength:
		return reasonLengthRepeated
	case f.hasCoding:
		return reasonLengthAndCoding
	case len(value) == 0:
		return reasonLengthInvalid
	}
	const tenth = (1<<63 - 1) / 10
	overflow := false
	var n int64
	for _, c := range value {
		if !isDigit(c) {
			return reasonLengthInvalid
		}
		digit := int64(c - '0')
		if n > tenth || n == tenth && digit > 7 {
			overflow = true // go on: a byte that is no digit is the better reason
			n = 0
		}
		n = n*10 + digit
	}
	if overflow {
		return reasonLengthOverflow
	}
	f.length, f.hasLength = n, true
	return reasonNone
}

// PlainLength is a valid Content-Length without the zeros in front, which a
// recipient that takes them for octal reads as another number.
func PlainLength(value []byte) []byte {
	for len(value) > 1 && value[0] == '0' {
		value = value[1:]
	}
	return value
}

// readCoding takes one Transfer-Encoding value. Only chunked, once and last, is understood: nobody sends us another
// coding, because we never forward TE (RFC 9112 sections 6.1 and 7).
func (f *framing) readCoding(value []byte, minor uint8) Reason {
	switch {
	case minor == 0:
		return reasonCodingHTTP10
	case f.hasLength:
		return reasonLengthAndCoding
	}
	f.hasCoding = true
	for {
		end := itemEnd(value)
		if why := f.addCoding(trim(value[:end])); why != reasonNone {
			return why
		}
		if end == len(value) {
			return reasonNone
		}
		value = value[end+1:]
	}
}

// addCoding appends one member of the list of transfer codings. Empty members, which other lists may have, are
// refused: ", chunked" reads differently to different recipients.
func (f *framing) addCoding(coding []byte) Reason {
	isChunked := EqualFold(coding, "chunked")
	switch {
	case !isToken(coding):
		return reasonCodingInvalid
	case f.chunked && isChunked:
		return reasonCodingRepeated
	case f.chunked:
		return reasonCodingOrder
	case !isChunked:
		return reasonCodingUnknown
	}
	f.chunked = true
	return reasonNone
}
