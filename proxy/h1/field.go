package h1

// Field is one field line. Name and Value alias the head; their capacity ends with them, so that an append copies
// instead of writing over the bytes that follow. Value has no surrounding white space and may be empty.
type Field struct {
	Name  []byte // as the peer wrote it: compare by Key or with EqualFold
	Value []byte
	Key   Key
}

// readFields reads field lines from b[i] to the empty line (RFC 9112 section 5) into fields and returns the index
// after it, how many there are, and the set of their keys.
//
// It judges lines one after another and bytes in their order, and what a line means only when the section is
// complete is the caller's. So cutting the section elsewhere cannot change the verdict.
func readFields(b []byte, i int, fields []Field) (next, count int, present keySet, why Reason) {
	for ; i < len(b) && b[i] != '\r'; count++ {
		if count == len(fields) {
			return 0, 0, 0, reasonFieldsMany
		}
		f := &fields[count]
		i, why = readField(b, i, f)
		if why == reasonObsFold && count == 0 {
			why = reasonLeadingSpace
		}
		if why != reasonNone {
			return 0, 0, 0, why
		}
		present |= 1 << (f.Key & 63)
	}
	next, why = readLineEnd(b, i, reasonBareCR)
	return next, count, present, why
}

// readField reads the field line that starts at b[i], which is there and is not CR, and returns the index after it.
func readField(b []byte, i int, f *Field) (next int, why Reason) {
	colon, key := findKey(b, i)
	if colon < 0 {
		colon, key, why = readName(b, i)
		if why != reasonNone {
			return 0, why
		}
	}
	first := colon + 1
	for first < len(b) && isSpace(b[first]) {
		first++
	}
	end := scanValue(b, first)
	next = end + len("\r\n")
	if next > len(b) || b[end] != '\r' || b[end+1] != '\n' {
		_, why = readLineEnd(b, end, reasonFieldValue)
		return 0, why
	}
	for end > first && isSpace(b[end-1]) {
		end--
	}
	f.Name, f.Value, f.Key = b[i:colon:colon], b[first:end:end], key
	return next, reasonNone
}

// readName reads a name that findKey does not know, byte by byte.
func readName(b []byte, start int) (colon int, key Key, why Reason) {
	i := start
	var seen uint8
	for i < len(b) && class[b[i]]&classToken != 0 {
		seen |= class[b[i]]
		i++
	}
	if i == len(b) {
		return 0, KeyOther, reasonShort
	}
	if b[i] != ':' || i == start {
		return 0, KeyOther, notAName(b[i], i == start)
	}
	key, _ = lookup(b[start:i])
	if key == KeyOther && seen&classUnderscore != 0 {
		key = KeyUnderscore
	}
	return i, key, reasonNone
}

// notAName says why a name that stops at c instead of a colon is no field name.
func notAName(c byte, empty bool) Reason {
	switch {
	case c == '\n':
		return reasonBareLF
	case isSpace(c) && empty:
		return reasonObsFold
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
