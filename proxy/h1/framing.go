package h1

// readLength takes one Content-Length value: exactly 1*DIGIT within 63 bits. A list of equal values is refused like
// any other list: RFC 9112 section 6.3 lets us, and two recipients might pick different members.
func (h *Head) readLength(value []byte) Reason {
	switch {
	case h.present.has(KeyContentLength):
		return reasonLengthRepeated
	case h.present.has(KeyTransferEncoding):
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
	h.length = n
	return reasonNone
}

// readCoding takes one Transfer-Encoding value. Only chunked, once and last, is understood: nobody sends us another
// coding, because we never forward TE (RFC 9112 sections 6.1 and 7).
func (h *Head) readCoding(value []byte) Reason {
	switch {
	case h.Minor == 0:
		return reasonCodingHTTP10
	case h.present.has(KeyContentLength):
		return reasonLengthAndCoding
	}
	for {
		end := itemEnd(value)
		if why := h.addCoding(trim(value[:end])); why != reasonNone {
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
func (h *Head) addCoding(coding []byte) Reason {
	isChunked := EqualFold(coding, "chunked")
	switch {
	case !isToken(coding):
		return reasonCodingInvalid
	case h.chunked && isChunked:
		return reasonCodingRepeated
	case h.chunked:
		return reasonCodingOrder
	case !isChunked:
		return reasonCodingUnknown
	}
	h.chunked = true
	return reasonNone
}
