package h1

// Field names are recognised by their last eight bytes and their length: one load, one multiplication, one table slot,
// and a compare of words. A recognised name needs no check that it is a token, which is why the table also holds
// names that no handler acts upon but most clients send.

const (
	nameBytesMax = 32 // longest name a slot can hold
	slotBits     = 9
	foldCase     = 0x2020202020202020
	lengthSalt   = 0x9e3779b97f4a7c15
	slotFactor   = 0xd0fc0741775015cf // found by search so that no two names share a slot; TestLookup keeps it true
)

// commonNames are recognised as KeyOther.
var commonNames = []string{
	"access-control-allow-origin", "access-control-request-headers", "access-control-request-method",
	"content-disposition", "content-security-policy", "dnt", "link", "p3p", "priority", "referrer-policy",
	"sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site",
	"sec-fetch-user", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol",
	"sec-websocket-version", "strict-transport-security", "upgrade-insecure-requests", "x-content-type-options",
	"x-frame-options", "x-powered-by", "x-requested-with", "x-xss-protection",
}

// slot describes one name. A byte of a word may differ from the name only in bits of its mask: 0x20 for letters, 0
// for all else, so that "content\x0dlength" does not pass for "content-length".
type slot struct {
	length   uint8 // vacant: nobody lives here
	key      Key
	tail     uint64 // last eight bytes, shifted down if the name is shorter
	tailMask uint64
	word     [3]uint64 // bytes 0-7, 8-15, 16-23, as far as tail does not cover them
	wordMask [3]uint64
}

var slots = buildSlots()

const vacant = 0xff // no name has this length

func buildSlots() (t [1 << slotBits]slot) {
	for i := range t {
		t[i].length = vacant
	}
	for k, name := range keyNames {
		if name != "" {
			t[slotOf(nameTail([]byte(name)), len(name))] = newSlot(name, Key(k))
		}
	}
	for _, name := range commonNames {
		t[slotOf(nameTail([]byte(name)), len(name))] = newSlot(name, KeyOther)
	}
	return t
}

func newSlot(name string, key Key) slot {
	b := []byte(name)
	mask := make([]byte, len(b))
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			mask[i] = 0x20
		}
	}
	s := slot{length: uint8(len(b)), key: key, tail: nameTail(b), tailMask: nameTail(mask)}
	for i := 0; i*wordBytes+wordBytes < len(b); i++ {
		s.word[i] = load(b[i*wordBytes:])
		s.wordMask[i] = load(mask[i*wordBytes:])
	}
	return s
}

// slotOf hashes a name by its tail, whose letters may be in either case, and its length.
func slotOf(tail uint64, length int) uint64 {
	return ((tail | foldCase) + uint64(length)*lengthSalt) * slotFactor >> (64 - slotBits)
}

// nameTail is the last eight bytes of name as a little-endian word, shifted down if there are fewer.
func nameTail(name []byte) (tail uint64) {
	if len(name) >= wordBytes {
		return load(name[len(name)-wordBytes:])
	}
	for i, c := range name {
		tail |= uint64(c) << (8 * i)
	}
	return tail
}

// lookup finds the key of a name. It reports known for every name of the table: a known name is a token.
func lookup(name []byte) (key Key, known bool) {
	s := &slots[slotOf(nameTail(name), len(name))]
	if s.holds(name, nameTail(name)) {
		return s.key, true
	}
	return KeyOther, false
}

// findKey finds the colon that ends the name at b[start] and the name's key. colon is -1 unless the name is known and
// enough bytes follow; then readName takes a closer look.
func findKey(b []byte, start int) (colon int, key Key) {
	if start+nameBytesMax+wordBytes > len(b) {
		return -1, KeyOther
	}
	line := b[start : start+nameBytesMax+wordBytes]
	tail := load(line)
	length := 0
	if colons := equalBytes(tail, ':'); colons != 0 {
		length = firstByte(colons)
		tail &= 1<<(8*length) - 1
	} else {
		for colons == 0 {
			length += wordBytes
			if length > nameBytesMax {
				return -1, KeyOther
			}
			colons = equalBytes(load(line[length:]), ':')
		}
		length += firstByte(colons)
		tail = load(line[length-wordBytes:])
	}
	s := &slots[slotOf(tail, length)]
	if !s.holds(line[:length], tail) {
		return -1, KeyOther
	}
	return start + length, s.key
}

// holds reports that the slot's name is this one, whose tail is nameTail(name).
func (s *slot) holds(name []byte, tail uint64) bool {
	if len(name) != int(s.length) || (tail^s.tail)&^s.tailMask != 0 {
		return false
	}
	for i := 0; i*wordBytes+wordBytes < len(name); i++ {
		if (load(name[i*wordBytes:])^s.word[i])&^s.wordMask[i] != 0 {
			return false
		}
	}
	return true
}
