package h1

// chunkExtMax bounds the bytes of chunk extensions beyond the data they came with. Without it a sender could keep a
// connection busy for ever with a body of nothing (the shape of CVE-2023-39326).
const chunkExtMax = 16 << 10

const chunkDigitsMax = 16

// Chunks reads a body in chunked coding (RFC 9112 section 7.1) from slices as they arrive. The zero value stands at
// the start of a body; assign Chunks{} to start the next one.
//
// It holds a few integers and no bytes: sizes and extensions may be cut anywhere, and what Next consumed need not be
// kept. Extensions are checked and dropped, since the sender of the next hop frames the data anew.
type Chunks struct {
	left   uint64 // size so far while reading digits; bytes of data to come while reading data
	ext    int    // bytes of extensions not paid for by data
	digits uint8  // of the size so far
	state  chunkState
	why    Reason // in chunkFailed
}

type chunkState uint8

const (
	chunkSize     chunkState = iota // before or among the digits
	chunkSpace                      // white space after the size or an extension: only ";" may follow
	chunkSemi                       // after ";", before the name
	chunkName                       // among the name
	chunkNameEnd                    // white space after the name
	chunkEqual                      // after "=", before the value
	chunkToken                      // among a token value
	chunkQuoted                     // among a quoted value
	chunkEscaped                    // after a backslash in it
	chunkQuoteEnd                   // after the closing quote
	chunkSizeLF                     // after the CR of the size line
	chunkBody                       // data
	chunkBodyCR                     // after the data, before its CR
	chunkBodyLF                     // after that CR
	chunkTrailer                    // after the line of size 0: the trailer section follows
	chunkFailed
)

// Next reads the next piece of the body.
//
//	data, n, nil          b[:n] is consumed; data is body and aliases b[:n]
//	nil, n, nil           b[:n] is consumed and held no data: bring more bytes, or go on with ParseTrailer if Done
//	nil, 0, *SyntaxError  the body can never become valid, now and at every later call
//
// After the last chunk b[n:] starts the trailer section and Next consumes no more. A body may come in any number of
// slices without any difference to the data, taken together, or to the error.
func (d *Chunks) Next(b []byte) (data []byte, n int, err error) {
	if d.state == chunkFailed {
		return nil, 0, d.why.err()
	}
	for n < len(b) && d.state != chunkTrailer {
		if d.state == chunkBody {
			size := int(min(uint64(len(b)-n), d.left))
			data = b[n : n+size : n+size]
			n += size
			d.left -= uint64(size)
			d.ext -= min(d.ext, size)
			if d.left == 0 {
				d.state = chunkBodyCR
			}
			return data, n, nil
		}
		if why := d.step(b[n]); why != reasonNone {
			d.why, d.state = why, chunkFailed
			return nil, 0, why.err()
		}
		n++
	}
	return nil, n, nil
}

// Done reports that the last chunk was read: the trailer section follows.
func (d *Chunks) Done() bool { return d.state == chunkTrailer }

// Left is how many bytes of data the current chunk still has: a hint how much to receive.
func (d *Chunks) Left() int64 {
	if d.state != chunkBody {
		return 0
	}
	return int64(d.left)
}

// Least is how many bytes there are at least until the line of the last chunk ends, 0 if Next wants no more. Who reads
// no more than that takes nothing that belongs to the trailer section or the next message.
func (d *Chunks) Least() int64 {
	const last = int64(len(LastChunk))
	const end = int64(len(ChunkEnd))
	left := int64(min(d.left, 1<<62))
	line := end // what the size line still has
	switch d.state {
	case chunkTrailer, chunkFailed:
		return 0
	case chunkBody:
		return left + end + last
	case chunkBodyCR:
		return end + last
	case chunkBodyLF:
		return 1 + last
	case chunkSize:
		if d.digits == 0 {
			return last
		}
	case chunkSizeLF:
		line = 1
	}
	if left > 0 {
		line += left + end + last
	}
	return line
}

// step takes one byte of anything that is not data.
func (d *Chunks) step(c byte) Reason {
	switch d.state {
	case chunkSize:
		return d.stepSize(c)
	case chunkSizeLF:
		return d.endSize(c)
	case chunkBodyCR:
		if c != '\r' {
			return reasonChunkEnd
		}
		d.state = chunkBodyLF
		return reasonNone
	case chunkBodyLF:
		if c != '\n' {
			return reasonChunkEnd
		}
		d.state = chunkSize
		return reasonNone
	}
	return d.stepExt(c)
}

func (d *Chunks) stepSize(c byte) Reason {
	if class[c]&classHex != 0 {
		if d.digits == chunkDigitsMax || d.left>>59 != 0 {
			return reasonChunkOverflow
		}
		d.digits++
		d.left = d.left<<4 | uint64(hexValue(c))
		return reasonNone
	}
	if d.digits == 0 {
		return reasonChunkSize
	}
	switch {
	case isSpace(c):
		d.state = chunkSpace
	case c == ';':
		d.state = chunkSemi
	case c == '\r':
		d.state = chunkSizeLF
		return reasonNone
	case c == '\n':
		return reasonBareLF
	default:
		return reasonChunkSize
	}
	return d.countExt()
}

func (d *Chunks) endSize(c byte) Reason {
	if c != '\n' {
		return reasonBareCR
	}
	d.digits = 0
	d.state = chunkBody
	if d.left == 0 {
		d.state = chunkTrailer
	}
	return reasonNone
}

// stepExt reads *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), RFC 9112 section 7.1.1. White space
// must lead to one of its bytes: behind the size or an extension and before CR it is an error.
func (d *Chunks) stepExt(c byte) Reason {
	if c == '\n' {
		return reasonBareLF
	}
	next, ok := extAfter(d.state, c)
	if !ok {
		return reasonChunkExt
	}
	d.state = next
	if next == chunkSizeLF {
		return reasonNone
	}
	return d.countExt()
}

// extAfter is the state after byte c of an extension.
func extAfter(state chunkState, c byte) (next chunkState, ok bool) {
	token := class[c]&classToken != 0
	switch state {
	case chunkSemi: // BWS name
		if isSpace(c) {
			return chunkSemi, true
		}
		return chunkName, token
	case chunkEqual: // BWS value
		if isSpace(c) {
			return chunkEqual, true
		}
		if c == '"' {
			return chunkQuoted, true
		}
		return chunkToken, token
	case chunkQuoted:
		switch c {
		case '"':
			return chunkQuoteEnd, true
		case '\\':
			return chunkEscaped, true
		}
		return chunkQuoted, class[c]&classQuoted != 0
	case chunkEscaped:
		return chunkQuoted, class[c]&classValue != 0
	}
	// What is left may be followed by ";" or, except after white space, by CR.
	named := state == chunkName || state == chunkNameEnd
	switch {
	case token && (state == chunkName || state == chunkToken):
		return state, true
	case c == ';':
		return chunkSemi, true
	case c == '=' && named:
		return chunkEqual, true
	case isSpace(c) && named:
		return chunkNameEnd, true
	case isSpace(c):
		return chunkSpace, true
	}
	return chunkSizeLF, c == '\r' && state != chunkSpace && state != chunkNameEnd
}

func (d *Chunks) countExt() Reason {
	d.ext++
	if d.ext > chunkExtMax {
		return reasonChunkExtLong
	}
	return reasonNone
}

func hexValue(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// AppendChunkHead appends the line that announces a chunk of n bytes; n is above 0. The data and ChunkEnd follow.
func AppendChunkHead(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, digits[n>>shift&15])
	}
	return append(dst, '\r', '\n')
}

// AppendChunk appends a whole chunk. Empty data appends nothing: a chunk of size 0 would end the body.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkHead(dst, len(data))
	dst = append(dst, data...)
	return append(dst, ChunkEnd...)
}

const (
	ChunkHeadBytesMax = 18          // longest line of AppendChunkHead
	ChunkEnd          = "\r\n"      // follows the data of each chunk
	LastChunk         = "0\r\n"     // ends the data; trailer fields and an empty line follow
	LastChunkEnd      = "0\r\n\r\n" // ends the body without trailer fields
)
