package h1

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// cuts are the lengths at which an input is cut. All of them, except in the middle of the few inputs that fill a
// limit, where nothing happens for thousands of bytes.
func cuts(length int) (at []int) {
	const dense, stride = 100, 509
	for k := 0; k <= length; k++ {
		if k < dense || length-k < dense || k%stride == 0 {
			at = append(at, k)
		}
	}
	return at
}

// requireStable demands that read gives the same verdict however the input arrives: a proper prefix is ErrShort or
// already the error that the whole is; once complete, more bytes change nothing. The prefixes keep the capacity of
// the whole, so that reading past the end would show.
func requireStable(t *testing.T, input []byte, read func(b []byte) (n int, err error)) {
	t.Helper()
	whole, wholeErr := read(input)
	if wholeErr != nil {
		require.Zero(t, whole)
	}
	var refused *SyntaxError
	for _, k := range cuts(len(input)) {
		n, err := read(input[:k])
		switch {
		case err == nil:
			require.NoError(t, wholeErr, "complete at %d of %d", k, len(input))
			require.Equal(t, whole, n, "at %d", k)
			require.GreaterOrEqual(t, k, n)
			require.Positive(t, n)
		case errors.Is(err, ErrShort):
			require.Zero(t, n)
			require.Nil(t, refused, "refused, then short at %d", k)
			require.False(t, wholeErr == nil && k >= whole, "short at %d, complete at %d", k, whole)
		default:
			require.Zero(t, n)
			require.ErrorAs(t, err, &refused)
			require.Same(t, wholeErr, err, "at %d of %d", k, len(input))
		}
	}
}

func TestParseRequestSplits(t *testing.T) {
	for _, c := range corpus(t, "request") {
		t.Run(c.name, func(t *testing.T) {
			req := new(Request)
			requireStable(t, c.input, func(b []byte) (int, error) { return ParseRequest(b, req) })
		})
	}
}

func TestParseResponseSplits(t *testing.T) {
	for _, c := range corpus(t, "response") {
		t.Run(c.name, func(t *testing.T) {
			resp := new(Response)
			requireStable(t, c.input, func(b []byte) (int, error) { return ParseResponse(b, resp) })
		})
	}
}

func TestParseTrailerSplits(t *testing.T) {
	for _, c := range corpus(t, "chunked") {
		_, section, err := readChunks(c.input, len(c.input))
		if err != nil {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			trailer := new(Trailer)
			requireStable(t, section, func(b []byte) (int, error) { return ParseTrailer(b, trailer) })
		})
	}
}

// TestChunksSplits cuts each body in two at every byte, and into slices of every small size.
func TestChunksSplits(t *testing.T) {
	for _, c := range corpus(t, "chunked") {
		t.Run(c.name, func(t *testing.T) {
			data, rest, err := readChunks(c.input, len(c.input))
			for _, k := range cuts(len(c.input)) {
				requireSplit(t, c.input, k, data, rest, err)
			}
			for size := 1; size <= 17; size++ {
				gotData, gotRest, gotErr := readChunks(c.input, size)
				require.Equal(t, string(data), string(gotData), "slices of %d", size)
				require.Equal(t, string(rest), string(gotRest), "slices of %d", size)
				require.Equal(t, err, gotErr, "slices of %d", size)
			}
		})
	}
}

// requireSplit reads input[:k], then the rest, and demands the same outcome.
func requireSplit(t *testing.T, input []byte, k int, data, rest []byte, err error) {
	t.Helper()
	var chunks Chunks
	var got []byte
	consumed := 0
	for _, end := range []int{k, len(input)} {
		for consumed < end && !chunks.Done() {
			piece, n, gotErr := chunks.Next(input[consumed:end])
			if gotErr != nil {
				require.Same(t, err, gotErr, "cut at %d", k)
				require.Equal(t, string(data), string(got), "cut at %d", k)
				_, _, again := chunks.Next(input)
				require.Same(t, err, again, "an error stays")
				return
			}
			require.Positive(t, n)
			require.LessOrEqual(t, len(piece), n)
			got = append(got, piece...)
			consumed += n
		}
	}
	require.Equal(t, string(data), string(got), "cut at %d", k)
	require.Equal(t, err == nil, chunks.Done(), "cut at %d", k)
	if chunks.Done() {
		require.Equal(t, len(input)-len(rest), consumed, "cut at %d", k)
	}
}

// requireQuickAgrees reads the line at every place where one could start, and demands that quickField is right
// whenever it answers.
func requireQuickAgrees(t *testing.T, b []byte) {
	t.Helper()
	for i := range b {
		if i > 0 && b[i-1] != '\n' {
			continue
		}
		var quick, careful Field
		next := quickField(b, i, &quick)
		if next == 0 {
			require.Zero(t, quick)
			continue
		}
		want, why := readField(b, i, &careful)
		require.Equal(t, reasonNone, why, "%q", b[i:])
		require.Equal(t, want, next, "%q", b[i:])
		require.Equal(t, careful, quick)
	}
}

// TestQuickField puts every byte into every place of a line, with as many bytes behind it as it takes to be read by
// the word, and with fewer.
func TestQuickField(t *testing.T) {
	lines := []string{"Host: a\r\n", "Content-Length: 5\r\n", "X-Odd_Name:  some longer value, quoted \"so\" \r\n", "A:\r\n"}
	for _, line := range lines {
		for _, tail := range []string{"", "\r\n", "Next: line\r\nand more bytes than a pair of words\r\n"} {
			for at := range line {
				for c := range 256 {
					b := []byte(line + tail)
					b[at] = byte(c)
					requireQuickAgrees(t, b)
				}
			}
		}
	}
	for dir := range logs {
		for _, c := range corpus(t, dir) {
			requireQuickAgrees(t, c.input)
		}
	}
}
