package balance

// ID is what an upstream is known by outside of this process and this
// configuration: in tables and in cookies. 0 is none.
type ID uint64

// IDOf is the ID of the upstream of a name. It stays when the upstream changes
// its address, its weight or its place in the configuration.
func IDOf(name string) ID { return ID(max(xxh64([]byte(name)), 1)) }

// idText is the length of an ID's text.
const idText = 16

const hexDigits = "0123456789abcdef"

// Append appends the ID as text for a cookie's value: sixteen digits that need
// no quotes and show neither name nor address. It is no secret: who guesses a
// name can tell that it is the right one, and who sends another ID gets another
// upstream, as he would without a cookie.
func (id ID) Append(b []byte) []byte {
	for shift := 4 * (idText - 1); shift >= 0; shift -= 4 {
		b = append(b, hexDigits[id>>shift&0xf])
	}
	return b
}

// ParseID reads what Append has written, or returns 0 for anything else: a
// cookie is the client's to change. Whether there is such an upstream it cannot
// tell.
func ParseID(text []byte) ID {
	if len(text) != idText {
		return 0
	}
	id := ID(0)
	for _, c := range text {
		var digit byte
		switch {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c && c <= 'f':
			digit = c - 'a' + 10
		default:
			return 0
		}
		id = id<<4 | ID(digit)
	}
	return id
}

// stuck is the upstream of an ID if it may get the request, or None. It counts
// in no strategy's turns: these share out the requests that are free to go
// anywhere.
func stuck(id ID, ups []Upstream, tried []int) int {
	for i := range ups {
		if ups[i].ID == id && eligible(ups, tried, i) {
			return i
		}
	}
	return None
}
