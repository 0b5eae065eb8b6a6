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
		next = quickField(b, i, f)
		if next == 0 {
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

// quickField reads the field line at b[i] and returns the index after it, if the line is complete, its name short, and
// nothing about it is unusual. Otherwise it returns 0 and leaves the question to readField, which it must never
// contradict.
//
// It looks for the end of the line from the line's start and not from the colon, so that a processor need not wait
// for the colon of one line to begin with the next.
func quickField(b []byte, i int, f *Field) (next int) {
	if i < 0 || i > len(b) {
		return 0 // never; spares the checks below
	}
	end := i
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
	line := b[i:end:end]
	colon, s := findKey(b[i:])
	if uint(colon) >= uint(len(line)) {
		return 0
	}
	key, isName := KeyOther, true
	if s != nil {
		key = s.key
	} else if key, isName = otherKey(line[:colon]); !isName {
		return 0
	}
	value := line[colon+1:]
	if len(value) > 0 && value[0] == ' ' {
		value = value[1:]
	}
	if len(value) > 0 && (isSpace(value[0]) || isSpace(value[len(value)-1])) {
		return 0
	}
	f.Name, f.Value, f.Key = line[:colon:colon], value, key
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

// readName reads a name byte by byte, and says what is wrong with it.
func readName(b []byte, start int) (colon int, key Key, why Reason) {
	i := start
	for i < len(b) && class[b[i]]&classToken != 0 {
		i++
	}
	if i == len(b) {
		return 0, KeyOther, reasonShort
	}
	if b[i] != ':' || i == start {
		return 0, KeyOther, notAName(b[i], i == start)
	}
	key, known := lookup(b[start:i])
	if !known {
		key, _ = otherKey(b[start:i])
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
	switch {
	case b[i] == '\n':
		return 0, reasonBareLF
	case b[i] != '\r':
		return 0, otherwise
	case i+1 == len(b):
		return 0, reasonShort
	case b[i+1] != '\n':
		return 0, reasonBareCR
	}
	return i + 2, reasonNone
}
