package h1

// Bounds of a trailer section. It is short by nature, and its fields wait in memory for the end of the body.
const (
	TrailerFieldsMax = 32
	trailerBytesMax  = 8 << 10
)

// Trailer is the trailer section of a chunked body. Its fields alias the bytes it was parsed from.
type Trailer struct {
	count  int
	fields [TrailerFieldsMax]Field
}

// ParseTrailer reads the trailer section that follows the last chunk, up to and with its empty line (RFC 9112 section
// 7.1.2). Its contract is that of ParseRequest. Nearly always the section is only the empty line: n is 2.
//
// Content-Length, Transfer-Encoding and Host are refused here: a recipient that merged them into the head would see
// another message.
func ParseTrailer(b []byte, t *Trailer) (n int, err error) {
	t.count = 0
	if len(b) > trailerBytesMax {
		b = b[:trailerBytesMax]
	}
	n, why := t.parse(b)
	if why == reasonNone {
		return n, nil
	}
	t.count = 0
	if why == reasonShort && len(b) == trailerBytesMax {
		why = reasonTrailerLong
	}
	return 0, why.err()
}

// Fields are the trailer fields in their order, empty after a parse that failed.
func (t *Trailer) Fields() []Field { return t.fields[:t.count] }

// trailerNever must not be forwarded as a trailer field: framing, routing, what belongs to one connection, request
// modifiers, authentication, and the format of the content (RFC 9110 section 6.5.1).
var trailerNever = hopByHop | keysOf(KeyAcceptEncoding, KeyAge, KeyAuthorization, KeyCacheControl, KeyContentEncoding,
	KeyContentLength, KeyContentRange, KeyContentType, KeyCookie, KeyDate, KeyExpect, KeyForwarded, KeyHost, KeyIfMatch,
	KeyIfModifiedSince, KeyIfNoneMatch, KeyIfRange, KeyIfUnmodifiedSince, KeyLocation, KeyMaxForwards, KeyPragma,
	KeyRange, KeyRetryAfter, KeySetCookie, KeyTrailer, KeyVary, KeyVia, KeyWWWAuthenticate, KeyXForwardedFor,
	KeyXForwardedHost, KeyXForwardedPort, KeyXForwardedProto, KeyXRealIP)

// HopByHop reports that Fields()[i] must not be forwarded. Ask Head.Lists as well, since Connection in the head may
// list a trailer field.
func (t *Trailer) HopByHop(i int) bool { return trailerNever.has(t.fields[i].Key) }

func (t *Trailer) parse(b []byte) (n int, why Reason) {
	n, count, present, why := readFields(b, 0, t.fields[:])
	switch {
	case why == reasonFieldsMany:
		return 0, reasonTrailerMany
	case why != reasonNone:
		return 0, why
	case present&keysOf(KeyContentLength, KeyTransferEncoding, KeyHost) != 0:
		return 0, reasonTrailerFraming
	}
	t.count = count
	return n, reasonNone
}
