package static

import (
	"bytes"
	"math"
	"math/rand/v2"

	"atlas/proxy/h1"
)

// rangesMax is how many parts a response may have. More are no client's that we
// know of (a PDF viewer asks for a few dozen), and each costs a head of its own.
const rangesMax = 64

// span is a part of a representation, of at least a byte.
type span struct{ first, length int64 }

// rangeAnswer is what a Range field leads to.
type rangeAnswer uint8

const (
	rangeWhole rangeAnswer = iota // 200: it is not for us, or not worth it
	rangeParts                    // 206
	rangeNone                     // 416: it is no Range field, or nothing of it is there
)

// parseRanges reads a Range field for a representation of size bytes (RFC 9110
// section 14.2), and appends to dst, which is empty, those of its ranges that are
// there, in the order of the field.
//
// Ranges that overlap are sent as asked, unless they come to more than the whole:
// then the whole is sent, as it is with more than rangesMax, and from an empty
// file, which has no parts: some clients put a Range into every request.
func parseRanges(dst []span, value []byte, size int64) ([]span, rangeAnswer) {
	unit, set, found := bytes.Cut(value, []byte("="))
	if !found || !h1.EqualFold(unit, "bytes") {
		return nil, rangeWhole // a unit that we do not know
	}
	asked, left := 0, size
	for l := h1.Items(set); l.Next(); {
		s, valid := parseRange(l.Item, size)
		if !valid {
			return nil, rangeNone
		}
		if asked++; asked > rangesMax {
			return nil, rangeWhole
		}
		if s.length > 0 {
			dst = append(dst, s)
			left = max(-1, left-s.length)
		}
	}
	switch {
	case asked > 0 && size == 0, left < 0:
		return nil, rangeWhole
	case len(dst) == 0:
		return nil, rangeNone
	}
	return dst, rangeParts
}

// parseRange reads "first-last", "first-" or "-last bytes" (RFC 9110 section
// 14.1.2). A range of which nothing is there has no length.
func parseRange(item []byte, size int64) (s span, valid bool) {
	before, after, found := bytes.Cut(item, []byte("-"))
	if !found {
		return s, false
	}
	if len(before) == 0 {
		last, ok := parsePosition(after)
		length := min(last, size)
		return span{size - length, length}, ok
	}
	first, ok := parsePosition(before)
	last := int64(math.MaxInt64)
	if ok && len(after) > 0 {
		last, ok = parsePosition(after)
	}
	if !ok || last < first {
		return s, false
	}
	if first >= size {
		return s, true
	}
	return span{first, min(last, size-1) - first + 1}, true
}

// parsePosition reads digits. A number too large for any file is a large number.
func parsePosition(digits []byte) (n int64, ok bool) {
	for _, b := range digits {
		if b < '0' || b > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64/10 - 1 // stays as large with all further digits
		}
		n = n*10 + int64(b-'0')
	}
	return n, len(digits) > 0
}

// appendContentRange appends the field line of a part.
func appendContentRange(b []byte, s span, size int64) []byte {
	b = append(b, "Content-Range: bytes "...)
	b = append(h1.AppendDecimal(b, s.first), '-')
	b = append(h1.AppendDecimal(b, s.first+s.length-1), '/')
	return append(h1.AppendDecimal(b, size), "\r\n"...)
}

// frame is what stands around the parts of a multipart/byteranges body (RFC
// 9110 section 14.6).
type frame struct {
	kind  string   // its Content-Type
	heads [][]byte // in front of each part
	end   []byte   // behind the last one
	bytes int64    // of the whole body
}

func newFrame(spans []span, kind string, size int64) *frame {
	// A boundary must not occur in a part. Who writes the files cannot know a
	// random one.
	boundary := h1.AppendDecimal(nil, rand.Int64())
	boundary = h1.AppendDecimal(append(boundary, '-'), rand.Int64())
	m := &frame{kind: "multipart/byteranges; boundary=" + string(boundary)}
	for _, s := range spans {
		head := append(append([]byte("\r\n--"), boundary...), "\r\n"...)
		head = h1.AppendField(head, "Content-Type", kind)
		head = append(appendContentRange(head, s, size), "\r\n"...)
		m.heads = append(m.heads, head)
		m.bytes += int64(len(head)) + s.length
	}
	m.end = append(append([]byte("\r\n--"), boundary...), "--\r\n"...)
	m.bytes += int64(len(m.end))
	return m
}
