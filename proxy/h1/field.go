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
		next = i + quickField(b[i:], f)
		if next == i {
			next, why = readField(b, i, f)
			if why == reasonObsFold && count == 0 {
				why = reasonLeadingSpace
			}
			if why != reasonNone {
				return 0, 0, 0, why
			}
		}
		present |= 1 << (f.Key & 63)
		i = next
	}
	next, why = readLineEnd(b, i, reasonBareCR)
	return next, count, present, why
}

// quickField reads the field line at the start of b and returns its length, if it is complete, its name is known, and
// nothing about it is unusual. Otherwise it returns 0 and leaves the question to readField, which it must never
// contradict.
//
// It looks for the end of the line from the line's start and not from the colon, so that a processor need not wait
// for the colon of one line to begin with the next.
func quickField(b []byte, f *Field) (next int) {
	colon, key := findKey(b)
	if colon < 0 {
		return 0
	}
	end := 0
	for end <= len(b)-2*wordBytes && !anyControl(load(b[end:]), load(b[end+wordBytes:])) {
		end += 2 * wordBytes
	}
	for end <= len(b)-wordBytes {
		if controls := controlBytes(load(b[end:])); controls != 0 {
			end += firstByte(controls)
			break
		}
		end += wordBytes
	}
	for end < len(b) && class[b[end]]&classValue != 0 {
		end++
	}
	if end > len(b)-2 || b[end] != '\r' || b[end+1] != '\n' {
		return 0
	}
	first := colon + 1
	if b[first] == ' ' {
		first++
	}
	if isSpace(b[first]) || isSpace(b[end-1]) && end > first {
		return 0
	}
	f.Name, f.Value, f.Key = b[:colon:colon], b[first:end:end], key
	return end + 2
}

// readField reads the field line that starts at b[i], which is there and is not CR, and returns the index after it.
func readField(b []byte, i int, f *Field) (next int, why Reason) {
	colon, key, why := readName(b, i)
	if why != reasonNone {
		return 0, why
	}
	first := colon + 1
	for first < len(b) && isSpace(b[first]) {
		first++
	}
	end := first + scanValue(b[first:])
	next, why = readLineEnd(b, end, reasonFieldValue)
	if why != reasonNone {
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
