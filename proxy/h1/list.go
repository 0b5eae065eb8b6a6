package h1

// List walks the items of a comma-separated field value (RFC 9110 section 5.6.1), left to right:
//
//	for l := h1.Items(value); l.Next(); {
//		use(l.Item)
//	}
type List struct {
	Item []byte // without surrounding white space, never empty; aliases the value
	rest []byte
}

// Items starts a walk over value, which the walk aliases. Commas inside quoted strings do not separate; empty items
// are skipped.
func Items(value []byte) List { return List{rest: value} }

// Next moves to the next item and reports whether there is one.
func (l *List) Next() bool {
	for len(l.rest) > 0 {
		end := itemEnd(l.rest)
		l.Item = trim(l.rest[:end])
		l.rest = l.rest[min(end+1, len(l.rest)):]
		if len(l.Item) > 0 {
			return true
		}
	}
	l.Item = nil
	return false
}

// itemEnd is the index of the first comma of b outside quotes, or len(b). An unclosed quote takes the rest.
func itemEnd(b []byte) int {
	for i := 0; i < len(b); i++ {
		if b[i] == ',' {
			return i
		}
		if b[i] == '"' {
			i = quoteEnd(b, i)
		}
	}
	return len(b)
}

// quoteEnd is the index of the quote that closes the one at b[i], or len(b).
func quoteEnd(b []byte, i int) int {
	for i++; i < len(b) && b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i
}

// HasToken reports that value lists token, which must be in lower case.
func HasToken(value []byte, token string) bool {
	for l := Items(value); l.Next(); {
		if EqualFold(l.Item, token) {
			return true
		}
	}
	return false
}

// HasItem reports that value lists item, ignoring the case of ASCII letters.
func HasItem(value, item []byte) bool {
	for l := Items(value); l.Next(); {
		if sameFold(l.Item, item) {
			return true
		}
	}
	return false
}

// EqualFold compares b with a constant in lower case, ignoring the case of ASCII letters in b.
func EqualFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if toLower(c) != lower[i] {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if c-'A' <= 'Z'-'A' {
		return c | 0x20
	}
	return c
}

// sameFold compares two byte strings, ignoring the case of ASCII letters.
func sameFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if toLower(c) != toLower(b[i]) {
			return false
		}
	}
	return true
}
