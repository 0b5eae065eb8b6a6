package relay

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/h1"
)

var (
	sized   = func(n int64) h1.Body { return h1.Body{Kind: h1.BodyLength, Length: n} }
	chunked = h1.Body{Kind: h1.BodyChunked}
	closing = h1.Body{Kind: h1.BodyClose}
)

// bodies are what arrives for a framing, and what is read from it.
var bodies = []struct {
	name    string
	framing h1.Body
	wire    string
	body    string
	trailer string // "name: value|" for each field
	rest    string // stays behind the body
	err     string // at the end instead of io.EOF
}{
	{"none", h1.Body{}, "next", "", "", "next", ""},
	{"length 0", sized(0), "next", "", "", "next", ""},
	{"length", sized(5), "hello", "hello", "", "", ""},
	{"length, and the next message", sized(5), "hellonext", "hello", "", "next", ""},
	{"length, cut off", sized(6), "hello", "hello", "", "", "unexpected EOF"},
	{"length, nothing came", sized(1), "", "", "", "", "unexpected EOF"},
	{"until the end", closing, "hello\r\n0\r\n\r\n", "hello\r\n0\r\n\r\n", "", "", ""},
	{"until an end at once", closing, "", "", "", "", ""},
	{"chunks", chunked, "5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", "hello, world", "", "", ""},
	{"no chunks", chunked, "0\r\n\r\nnext", "", "", "next", ""},
	{"chunks of one", chunked, "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n", "abc", "", "", ""},
	{"a chunk that looks like the end", chunked, "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n", "", "", ""},
	{"extensions", chunked, "5;a=b;c=\"d;e\"\r\nhello\r\n0;f\r\n\r\nnext", "hello", "", "next", ""},
	{"zeros in front", chunked, "0005\r\nhello\r\n000\r\n\r\n", "hello", "", "", ""},
	{"trailer", chunked, "5\r\nhello\r\n0\r\nExpires: 0\r\nX-Sum: 1\r\n\r\nnext", "hello", "Expires: 0|X-Sum: 1|", "next", ""},
	{"chunks, cut in the data", chunked, "5\r\nhel", "hel", "", "", "unexpected EOF"},
	{"chunks, cut in a size", chunked, "5\r\nhello\r\n7", "hello", "", "", "unexpected EOF"},
	{"chunks, cut before the last", chunked, "5\r\nhello\r\n", "hello", "", "", "unexpected EOF"},
	{"chunks, cut before the trailer", chunked, "5\r\nhello\r\n0\r\n", "hello", "", "", "unexpected EOF"},
	{"chunks, cut in the trailer", chunked, "5\r\nhello\r\n0\r\nX-Sum: 1\r\n", "hello", "", "X-Sum: 1\r\n", "unexpected EOF"},
	{"chunks, a bad size", chunked, "5\r\nhello\r\nzz\r\n", "hello", "", "zz\r\n", "chunk size is not hexadecimal"},
	{"chunks, data longer than its size", chunked, "4\r\nhello\r\n0\r\n\r\n", "hell", "", "", "does not end where its size said"},
	{"chunks, a bare line feed", chunked, "5\nhello", "", "", "\nhello", "LF without CR"},
	{"chunks, a huge size", chunked, "fffffffffffffffff\r\n", "", "", "", "over 16 digits"},
	{"trailer that frames", chunked, "0\r\nContent-Length: 5\r\n\r\nhello", "", "", "", "trailer section"},
	{"trailer that is none", chunked, "0\r\nnonsense\r\n\r\n", "", "", "", "without a colon"},
}

// TestBody reads every body whole, in every two pieces and byte by byte, into
// buffers of several sizes.
func TestBody(t *testing.T) {
	for _, row := range bodies {
		t.Run(row.name, func(t *testing.T) {
			all := [][]string{strings.Split(row.wire, "")}
			for cut := range len(row.wire) + 1 {
				all = append(all, nonEmpty(row.wire[:cut], row.wire[cut:]))
			}
			for _, pieces := range all {
				for _, size := range []int{1, 2, 3, 7, 1000, BufferBytes} {
					c := &fakeConn{pieces: slices.Clone(pieces), end: io.EOF}
					body, trailer, err := readAll(c, row.framing, size)
					at := fmt.Sprintf("pieces %.60q, buffer %d", pieces, size)
					require.Equal(t, row.body, body, at)
					require.Equal(t, row.trailer, trailer, at)
					if row.err != "" {
						require.ErrorContains(t, err, row.err, at)
						continue
					}
					require.Equal(t, io.EOF, err, at)
					require.Equal(t, row.rest, string(c.in)+strings.Join(c.pieces, ""), at)
				}
			}
		})
	}
}

func nonEmpty(texts ...string) (kept []string) {
	for _, text := range texts {
		if text != "" {
			kept = append(kept, text)
		}
	}
	return kept
}

// readAll reads a body as the contract of Read says: bytes, or an error.
func readAll(c *fakeConn, framing h1.Body, size int) (body, trailer string, err error) {
	var b Body
	b.Start(c, framing)
	p := make([]byte, size)
	for err == nil {
		var n int
		if n, err = b.Read(p); n > 0 && err != nil {
			return body, "", fmt.Errorf("%d bytes and an error: %w", n, err)
		}
		body += string(p[:n])
		spoil(p)
	}
	if again, twice := b.Read(p); again != 0 || !errors.Is(twice, err) {
		return body, "", fmt.Errorf("%w at first, then %d, %w", err, again, twice)
	}
	if b.Done() != (err == io.EOF) {
		return body, "", fmt.Errorf("done is %v after %w", b.Done(), err)
	}
	if section := b.Trailer(); section != nil {
		for _, f := range section.Fields() {
			trailer += string(f.Name) + ": " + string(f.Value) + "|"
		}
	}
	b.End()
	return body, trailer, err
}

// A body that is interrupted where it waits says so and stays where it is; one
// that lost its connection says what the connection said.
func TestBodyConnectionErrors(t *testing.T) {
	for _, framing := range []h1.Body{sized(5), chunked, closing} {
		c := &fakeConn{end: io.ErrClosedPipe}
		_, _, err := readAll(c, framing, 10)
		assert.Equal(t, io.ErrClosedPipe, err)
	}
}

func TestBodyHere(t *testing.T) {
	for _, row := range []struct {
		framing h1.Body
		in      string
		here    bool
	}{
		{sized(5), "", false}, {sized(5), "h", true}, {closing, "", false}, {closing, "h", true},
		{chunked, "", false}, {chunked, "5", false}, {chunked, "5\r\n", false}, {chunked, "5\r\nh", true},
		{chunked, "x", true}, // Read says what is wrong
		{chunked, "0\r\n", false},
	} {
		c := &fakeConn{in: []byte(row.in), end: io.EOF}
		var b Body
		b.Start(c, row.framing)
		for range 2 {
			assert.Equal(t, row.here, b.Here(), "%v %q", row.framing, row.in)
		}
		assert.Equal(t, row.in, string(c.in))
	}
}

func TestBodyWhole(t *testing.T) {
	for _, row := range []struct {
		name    string
		framing h1.Body
		in      string
		want    string
		whole   bool
	}{
		{"none", h1.Body{}, "next", "", true},
		{"length 0", sized(0), "", "", true},
		{"length", sized(5), "hello", "hello", true},
		{"length, and the next message", sized(5), "hellonext", "hello", true},
		{"length, a byte is missing", sized(5), "hell", "", false},
		{"nothing here", sized(5), "", "", false},
		{"chunks say it too late", chunked, "0\r\n\r\n", "", false},
		{"so does the end", closing, "hello", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := &fakeConn{in: []byte(row.in), end: io.EOF}
			var b Body
			b.Start(c, row.framing)
			p, whole := b.Whole()
			assert.Equal(t, row.whole, whole)
			assert.Equal(t, row.want, string(p))
			assert.Equal(t, row.framing.Empty(), b.Done())
			if !whole {
				return
			}
			consume := (*Body).Skip // by another name: a test that skips is another thing
			consume(&b)
			assert.True(t, b.Done())
			assert.Equal(t, row.in[len(row.want):], string(c.in))
			consume(&b) // nothing more
			assert.Equal(t, row.in[len(row.want):], string(c.in))
			n, err := b.Read(make([]byte, 10))
			assert.Zero(t, n)
			assert.Equal(t, io.EOF, err)
		})
	}
}

// A value serves one message after another, also after one that broke off.
func TestBodyStartsAnew(t *testing.T) {
	var b Body
	for i := range 3 {
		for _, row := range bodies {
			c := &fakeConn{pieces: nonEmpty(row.wire), end: io.EOF}
			b.Start(c, row.framing)
			assert.Nil(t, b.Trailer(), "%d %s", i, row.name)
			var body strings.Builder
			var err error
			for p := make([]byte, 4); err == nil; {
				var n int
				n, err = b.Read(p)
				body.Write(p[:n])
			}
			assert.Equal(t, row.body, body.String(), "%d %s", i, row.name)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	const wire = "5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
	for most, want := range map[int64]error{0: ErrTooLong, 5: ErrTooLong, 7: ErrTooLong, 8: io.EOF, 9: io.EOF} {
		for _, size := range []int{1, 3, 100} {
			var b Body
			b.Start(&fakeConn{pieces: strings.Split(wire, ""), end: io.EOF}, chunked)
			b.Limit(most)
			got, err := 0, error(nil)
			for p := make([]byte, size); err == nil; {
				var n int
				n, err = b.Read(p)
				got += n
			}
			assert.Equal(t, want, err, "limit %d", most)
			assert.LessOrEqual(t, got, int(most), "limit %d", most)
			_, again := b.Read(make([]byte, size))
			assert.Equal(t, want, again)
		}
	}
}
