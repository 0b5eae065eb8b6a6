package h1

// Head is what requests and responses have in common. It is embedded, never used alone.
type Head struct {
	Minor     uint8 // HTTP/1.Minor: 0, or 1 for every higher minor version
	KeepAlive bool  // the sender lets the connection go on after this message, RFC 9112 section 9.3; see Reusable

	count   int    // fields[:count] is set; the rest is left over from earlier heads
	present keySet // keys of fields[:count]

	conn      connOption
	connBytes int    // sum of the Connection values
	listed    keySet // keys that Connection lists, as far as they may be removed
	framing   framing

	fields [FieldsMax]Field
}

// connOption is a set of Connection options we act upon.
type connOption uint8

const (
	connClose connOption = 1 << iota
	connKeepAlive
	connUpgrade
	connOther // lists a name that has no key
)

// Fields are the field lines in their order. The slice is valid until the value is used for another parse; it is
// empty after a parse that failed.
func (h *Head) Fields() []Field { return h.fields[:h.count] }

// Has reports that a field with this key is there.
func (h *Head) Has(k Key) bool { return h.present.has(k) }

// Value is the value of the first field with this key, or nil.
func (h *Head) Value(k Key) []byte {
	if h.present.has(k) {
		for i := range h.fields[:h.count] {
			if h.fields[i].Key == k {
				return h.fields[i].Value
			}
		}
	}
	return nil
}

// hopByHop is never forwarded, whether Connection lists it or not (RFC 9110 sections 7.6.1, 11.7). Trailer is not
// among them: we forward trailers, so the announcement stays true.
var hopByHop = keysOf(KeyConnection, KeyHTTP2Settings, KeyKeepAlive, KeyProxyAuthenticate, KeyProxyAuthenticationInfo,
	KeyProxyAuthorization, KeyProxyConnection, KeyTE, KeyTransferEncoding, KeyUpgrade)

// endToEnd is never removed because Connection lists it: a client could otherwise change the framing, the routing or
// the provenance of a request between us and the upstream (RFC 9110 section 7.6.1 forbids listing them).
var endToEnd = keysOf(KeyContentEncoding, KeyContentLength, KeyContentRange, KeyContentType, KeyDate, KeyExpect,
	KeyForwarded, KeyHost, KeyTrailer, KeyVia, KeyXForwardedFor, KeyXForwardedHost, KeyXForwardedPort,
	KeyXForwardedProto, KeyXRealIP, KeyXRequestID)

// HopByHop reports that Fields()[i] must not be forwarded: it belongs to this connection by its name or because
// Connection lists it (RFC 9110 section 7.6.1).
func (h *Head) HopByHop(i int) bool {
	f := &h.fields[i]
	if (hopByHop | h.listed).has(f.Key) {
		return true
	}
	return h.conn&connOther != 0 && h.Lists(f)
}

// Lists reports that Connection lists the name of f, which may be a trailer field of the same message.
func (h *Head) Lists(f *Field) bool {
	if f.Key > KeyUnderscore {
		return h.listed.has(f.Key)
	}
	if h.conn&connOther == 0 {
		return false
	}
	for i := range h.fields[:h.count] {
		if h.fields[i].Key != KeyConnection {
			continue
		}
		for l := Items(h.fields[i].Value); l.Next(); {
			if sameFold(l.Item, f.Name) {
				return true
			}
		}
	}
	return false
}

// reset forgets the last head. The fields stay as they are: clearing a hundred of them costs more than parsing eight.
func (h *Head) reset() {
	h.Minor, h.KeepAlive = 0, false
	h.count, h.present = 0, 0
	h.conn, h.connBytes, h.listed = 0, 0, 0
	h.framing = framing{}
}

// readConnection takes one Connection value: its options, and the names of the fields it lists.
func (h *Head) readConnection(value []byte) Reason {
	h.connBytes += len(value)
	if h.connBytes > connBytesMax {
		return reasonConnectionLong
	}
	if key, _ := lookup(value); key == KeyKeepAlive { // alone, as nearly always
		h.conn |= connKeepAlive
		return reasonNone
	}
	for l := Items(value); l.Next(); {
		key, known := lookup(l.Item)
		if !known && !isToken(l.Item) {
			return reasonConnectionInvalid
		}
		switch {
		case key == KeyKeepAlive:
			h.conn |= connKeepAlive
		case key == KeyUpgrade:
			h.conn |= connUpgrade
		case key > KeyUnderscore:
			h.listed |= keysOf(key) &^ endToEnd
		case EqualFold(l.Item, "close"):
			h.conn |= connClose
		default:
			h.conn |= connOther
		}
	}
	return reasonNone
}

// persistent says whether the connection outlives the message, RFC 9112 section 9.3.
func (h *Head) persistent() bool {
	if h.conn&connClose != 0 {
		return false
	}
	return h.Minor > 0 || h.conn&connKeepAlive != 0
}
