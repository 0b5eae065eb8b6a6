package h1

// readField reads the field line that starts at b[i], which is there and is not CR, and returns the index after it.
//
// Bytes are judged in their order and a line is complete or short, so cutting the head elsewhere cannot change the
// verdict. On reasonNone f is set; otherwise it is left as it was.
func readField(b []byte, i int, f *Field) (next int, why Reason) {
	start := i
	for i < len(b) && class[b[i]]&classToken != 0 {
		i++
	}
	if i == len(b) {
		return 0, reasonShort
	}
	if b[i] != ':' || i == start {
		return 0, notAName(b[i], i == start)
	}
	name := b[start:i]

	i++
	for i < len(b) && isSpace(b[i]) {
		i++
	}
	first := i
	for i < len(b) && class[b[i]]&classValue != 0 {
		i++
	}
	last := i
	i, why = readLineEnd(b, i, reasonFieldValue)
	if why != reasonNone {
		return 0, why
	}
	for last > first && isSpace(b[last-1]) {
		last--
	}
	key, known := lookup(name)
	if !known && hasUnderscore(name) {
		key = KeyUnderscore
	}
	f.Name, f.Value, f.Key = name, b[first:last], key
	return i, reasonNone
}

// notAName says why a name that stops at c instead of a colon is no field name.
func notAName(c byte, empty bool) Reason {
	switch {
	case c == '\n':
		return reasonBareLF
	case isSpace(c) && empty:
		return reasonObsFold // the first field's caller has asked for leading space before
	case isSpace(c):
		return reasonFieldNameSpace
	case c == '\r':
		return reasonFieldNoColon
	case c == ':':
		return reasonFieldNameEmpty
	}
	return reasonFieldName
}

// readLineEnd expects CRLF at b[i] and returns the index after it; otherwise is the verdict on any other byte there.
func readLineEnd(b []byte, i int, otherwise Reason) (next int, why Reason) {
	if i >= len(b) {
		return 0, reasonShort
	}
	switch b[i] {
	case '\n':
		return 0, reasonBareLF
	default:
		return 0, otherwise
	case '\r':
	}
	if i+1 >= len(b) {
		return 0, reasonShort
	}
	if b[i+1] != '\n' {
		return 0, reasonBareCR
	}
	return i + 2, reasonNone
}

func hasUnderscore(name []byte) bool {
	for _, c := range name {
		if c == '_' {
			return true
		}
	}
	return false
}
