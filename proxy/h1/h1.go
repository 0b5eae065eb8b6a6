// Package h1 reads and writes HTTP/1 heads, chunked bodies and trailer sections as bytes.
//
// It does no I/O, keeps no buffer, starts no goroutine, logs nothing and has no lenient switch: whatever RFC 9110 and
// RFC 9112 let a recipient reject because two recipients could read it differently is rejected, with a reason from
// errors.go. It decides no policy either: which fields to add, which methods to serve and what an error page says is
// the handler's business.
//
// Memory belongs to the caller. Everything a parser hands out aliases the slice it was given and is valid as long as
// those bytes are; nothing is copied and nothing is allocated, also not when a message is refused. Values of this
// package carry no locks: one thread at a time per value, any thread per package.
package h1

import "errors"

// FieldsMax is how many field lines a head may have at most: the size of the array inside Request and Response, so
// Limits.Fields can lower it and not raise it.
const FieldsMax = 100

// Defaults of Limits. A request line and its fields that do not fit are answered 414 and 431, never truncated.
const (
	headBytesDefault = 16 << 10
	lineBytesDefault = 8 << 10
	methodBytesMax   = 32  // the longest registered method, UPDATEREDIRECTREF, has 17
	connBytesMax     = 512 // all Connection values of a head together; keeps HopByHop cheap
)

// ErrShort says that b is valid so far and ends too early: call again with the same bytes plus more.
var ErrShort = errors.New("h1: short head")

// Limits bounds a head. A zero field means the default.
type Limits struct {
	HeadBytes int // start line, fields and the empty line; default 16 KiB, else 431
	LineBytes int // start line with its CRLF; default 8 KiB, else 414
	Fields    int // field lines; default and most FieldsMax, else 431
}

func (l *Limits) headBytes() int {
	if l.HeadBytes <= 0 {
		return headBytesDefault
	}
	return l.HeadBytes
}

func (l *Limits) lineBytes() int {
	if l.LineBytes <= 0 {
		return lineBytesDefault
	}
	return l.LineBytes
}

func (l *Limits) fields() int {
	if l.Fields <= 0 || l.Fields > FieldsMax {
		return FieldsMax
	}
	return l.Fields
}

// BodyKind says how a message body is delimited (RFC 9112 section 6.3).
type BodyKind uint8

const (
	BodyNone    BodyKind = iota // no body, nothing to read
	BodyLength                  // exactly Body.Length bytes, which may be 0
	BodyChunked                 // chunked coding: read it with Chunks, then ParseTrailer
	BodyClose                   // responses only: until the upstream closes
)

// Body is the framing of a message body.
type Body struct {
	Kind   BodyKind
	Length int64 // bytes, for BodyLength; else 0
}

// Empty reports that no byte of body follows the head.
func (b Body) Empty() bool {
	return b.Kind == BodyNone || b.Kind == BodyLength && b.Length == 0
}
