package h1

// Field names are recognised by their last eight bytes and their length: one load, one multiplication, one table slot,
// and a compare of words. A recognised name needs no check that it is a token, which is why the table also holds
// names that no handler acts upon but most clients send.

const (
	nameBytesMax = 32 // longest name a slot can hold
	slotBits     = 9
	foldCase     = 0x2020202020202020
	slotFactor   = 0xbb9a182e8736a09b // found by search so that no two names share a slot; TestLookup keeps it true
)

// commonNames are recognised as KeyOther.
var commonNames = []string{
	"accept-language", "access-control-allow-origin", "access-control-request-headers",
	"access-control-request-method", "content-disposition", "content-language", "content-security-policy", "dnt",
	"link", "p3p", "priority", "referrer-policy",
	"sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site",
	"sec-fetch-user", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol",
	"sec-websocket-version", "strict-transport-security", "upgrade-insecure-requests", "x-content-type-options",
	"x-frame-options", "x-powered-by", "x-requested-with", "x-xss-protection",
}

// slot describes one name by words of eight bytes, the last of which overlaps the one before.
type slot struct {
	tail   uint64    // last eight bytes, shifted down if the name is shorter
	word   [3]uint64 // bytes 0-7, 8-15, 16-23, as far as tail does not cover them
	length uint8     // vacant: nobody lives here
	key    Key
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
	s := slot{tail: nameTail(b), length: uint8(len(b)), key: key}
	for i := 0; i*wordBytes+wordBytes < len(b); i++ {
		s.word[i] = load(b[i*wordBytes:])
	}
	return s
}

// slotOf hashes a name by its tail, whose letters may be in either case, and its length.
func slotOf(tail uint64, length int) uint64 {
	return (tail|foldCase)*slotFactor>>(64-slotBits) ^ uint64(length)&63
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
	tail, first := nameTail(name), uint64(0)
	if len(name) > wordBytes {
		first = load(name)
	}
	s := &slots[slotOf(tail, len(name))]
	if s.holds(name, len(name), first, tail) {
		return s.key, true
	}
	return KeyOther, false
}

// findKey finds the first colon of b, which ends a name, and the name's slot. colon is -1 if it is not among the first
// few words; the slot is nil if the name is not known, and then need not be a token.
func findKey(b []byte) (colon int, s *slot) {
	if len(b) < wordBytes {
		return -1, nil
	}
	first := load(b)
	tail := first
	if colons := equalBytes(first, ':'); colons != 0 {
		colon = firstByte(colons)
		tail &= 1<<(8*colon&63) - 1
	} else {
		for colons == 0 {
			colon += wordBytes
			if colon > len(b)-wordBytes || colon > nameBytesMax {
				return -1, nil
			}
			colons = equalBytes(load(b[colon:]), ':')
		}
		colon += firstByte(colons)
		tail = load(b[colon-wordBytes:])
	}
	s = &slots[slotOf(tail, colon)]
	if !s.holds(b, colon, first, tail) {
		return colon, nil
	}
	return colon, s
}

// otherKey is the key of a name that no slot holds. It is not ok for what is no token.
func otherKey(name []byte) (key Key, ok bool) {
	all, any := ^uint8(0), uint8(0)
	for _, c := range name {
		all &= class[c]
		any |= class[c]
	}
	if any&classUnderscore != 0 {
		key = KeyUnderscore
	}
	return key, all&classToken != 0 && len(name) > 0
}

// holds reports that the slot's name is b[:length], of which first and tail are the words at its ends.
func (s *slot) holds(b []byte, length int, first, tail uint64) bool {
	switch {
	case length != int(s.length) || !sameLetters(tail, s.tail):
		return false
	case length > wordBytes && !sameLetters(first, s.word[0]):
		return false
	case length > 2*wordBytes && !sameLetters(load(b[wordBytes:]), s.word[1]):
		return false
	case length > 3*wordBytes && !sameLetters(load(b[2*wordBytes:]), s.word[2]):
		return false
	}
	return true
}

// sameLetters compares eight bytes of a name with eight in lower case, of which the letters, and only they, have the
// bit 0x40: only in them may the case bit 0x20 differ. So "content\rlength" does not pass for "content-length".
func sameLetters(w, lower uint64) bool { return (w^lower)&^(lower>>1&foldCase) == 0 }
