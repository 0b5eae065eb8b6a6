package static

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseRanges(t *testing.T) {
	whole, none := []span(nil), []span{}
	many := func(n int) string { return "bytes=" + strings.TrimSuffix(strings.Repeat("1-1,", n), ",") }
	ones := func(n int) []span { return bytesToSpans(bytes.Repeat([]byte{1}, n)) }
	for _, row := range []struct {
		name, value string
		size        int64
		want        []span
	}{
		{"the beginning", "bytes=0-4", 10, []span{{0, 5}}},
		{"one byte", "bytes=3-3", 10, []span{{3, 1}}},
		{"to the end", "bytes=7-", 10, []span{{7, 3}}},
		{"the last byte", "bytes=9-9", 10, []span{{9, 1}}},
		{"the whole", "bytes=0-", 10, []span{{0, 10}}},
		{"past the end", "bytes=7-100", 10, []span{{7, 3}}},
		{"the last few", "bytes=-3", 10, []span{{7, 3}}},
		{"more than there are", "bytes=-30", 10, []span{{0, 10}}},
		{"leading zeros", "bytes=0000-0004", 10, []span{{0, 5}}},
		{"a unit in capitals", "Bytes=0-1", 10, []span{{0, 2}}},
		{"far past the end", "bytes=0-99999999999999999999999999", 10, []span{{0, 10}}},
		{"far more than there are", "bytes=-99999999999999999999999999", 10, []span{{0, 10}}},

		{"several", "bytes=0-1,4-5,-1", 10, []span{{0, 2}, {4, 2}, {9, 1}}},
		{"in the order asked", "bytes=4-5,0-1", 10, []span{{4, 2}, {0, 2}}},
		{"white space and empty items", "bytes= 0-1 ,, \t4-5 ,", 10, []span{{0, 2}, {4, 2}}},
		{"some that are not there", "bytes=20-30,4-5,-0", 10, []span{{4, 2}}},
		{"overlapping", "bytes=0-3,2-5", 10, []span{{0, 4}, {2, 4}}},
		{"twice the same", "bytes=0-3,0-3", 10, []span{{0, 4}, {0, 4}}},
		{"as much as there is", "bytes=0-4,0-4", 10, []span{{0, 5}, {0, 5}}},
		{"more than there is", "bytes=0-4,0-5", 10, whole},
		{"the whole and a part", "bytes=0-,5-5", 10, whole},
		{"many", many(rangesMax), 1000, ones(rangesMax)},
		{"too many", many(rangesMax + 1), 1000, whole},
		{"too many of which none is there", many(rangesMax + 1), 1, whole},

		{"behind the end", "bytes=10-", 10, none},
		{"behind the end, with a last", "bytes=10-20", 10, none},
		{"far behind the end", "bytes=99999999999999999999999999-", 10, none},
		{"the last none", "bytes=-0", 10, none},
		{"all behind the end", "bytes=10-,20-30,-0", 10, none},

		{"of nothing", "bytes=0-", 0, whole},
		{"the last of nothing", "bytes=-5", 0, whole},
		{"behind nothing", "bytes=5-", 0, whole},

		{"another unit", "lines=0-4", 10, whole},
		{"no unit", "0-4", 10, whole},
		{"no set", "bytes", 10, whole},
		{"empty", "", 10, whole},
		{"white space before the sign", "bytes =0-4", 10, whole},
		{"no ranges", "bytes=", 10, none},
		{"only commas", "bytes=,,", 10, none},
		{"backwards", "bytes=4-3", 10, none},
		{"backwards beside one that is there", "bytes=0-1,4-3", 10, none},
		{"no number", "bytes=a-b", 10, none},
		{"no dash", "bytes=4", 10, none},
		{"only a dash", "bytes=-", 10, none},
		{"two dashes", "bytes=1-2-3", 10, none},
		{"a negative number", "bytes=--3", 10, none},
		{"a sign", "bytes=+1-2", 10, none},
		{"white space inside", "bytes=0 - 4", 10, none},
		{"hexadecimal", "bytes=0x1-2", 10, none},
		{"another field's value", "bytes 0-4/10", 10, whole},
		{"two fields", "bytes=0-1, bytes=4-5", 10, none},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, answer := parseRanges(nil, []byte(row.value), row.size)
			switch {
			case row.want == nil:
				assert.Equal(t, rangeWhole, answer)
			case len(row.want) == 0:
				assert.Equal(t, rangeNone, answer)
			default:
				assert.Equal(t, rangeParts, answer)
				assert.Equal(t, row.want, got)
			}
			if answer != rangeParts {
				assert.Empty(t, got)
			}
		})
	}
}

func bytesToSpans(firsts []byte) (spans []span) {
	for _, first := range firsts {
		spans = append(spans, span{int64(first), 1})
	}
	return spans
}

// FuzzRanges: whatever is asked for, what is sent is there, and is no more than
// the whole.
func FuzzRanges(f *testing.F) {
	for _, seed := range []string{
		"bytes=0-4", "bytes=-3", "bytes=7-", "bytes=0-1,4-5,-1", "bytes=9223372036854775807-9223372036854775808", "bytes=-0",
		"bytes=,", "bytes=1-0", "lines=1", "bytes= 0-0 , 1-1", `bytes="0-1,2-3"`,
	} {
		f.Add([]byte(seed), int64(10))
	}
	f.Add([]byte("bytes=0-"), int64(0))
	f.Add([]byte("bytes=-1,0-0"), int64(1)<<62)
	f.Fuzz(func(t *testing.T, value []byte, size int64) {
		if size < 0 {
			size = -(size + 1)
		}
		before := bytes.Clone(value)
		spans, answer := parseRanges(nil, value, size)
		require.Equal(t, before, value)
		if answer != rangeParts {
			require.Empty(t, spans)
			return
		}
		require.NotEmpty(t, spans)
		require.LessOrEqual(t, len(spans), rangesMax)
		left := size
		for _, s := range spans {
			require.GreaterOrEqual(t, s.first, int64(0))
			require.Positive(t, s.length)
			require.LessOrEqual(t, s.length, size-s.first)
			require.LessOrEqual(t, s.length, left, "more than the whole")
			left -= s.length
		}
		// Asked for in the plainest way it is the same.
		var plainest []string
		for _, s := range spans {
			plainest = append(plainest, fmt.Sprintf("%d-%d", s.first, s.first+s.length-1))
		}
		again, answer := parseRanges(nil, []byte("bytes="+strings.Join(plainest, ",")), size)
		require.Equal(t, rangeParts, answer)
		require.Equal(t, spans, again)
	})
}

// What is said about the body's length and parts is what mime/multipart reads.
func TestMultipart(t *testing.T) {
	body := []byte("0123456789")
	spans := []span{{0, 2}, {9, 1}, {3, 4}}
	m := newFrame(spans, "text/plain", 10)
	var all bytes.Buffer
	for i, s := range spans {
		all.Write(m.heads[i])
		all.Write(body[s.first : s.first+s.length])
	}
	all.Write(m.end)
	assert.EqualValues(t, all.Len(), m.bytes)
	kind, parameters, err := mime.ParseMediaType(m.kind)
	require.NoError(t, err)
	assert.Equal(t, "multipart/byteranges", kind)
	r := multipart.NewReader(&all, parameters["boundary"])
	for _, want := range []string{"bytes 0-1/10 01", "bytes 9-9/10 9", "bytes 3-6/10 3456"} {
		part, err := r.NextPart()
		require.NoError(t, err)
		assert.Equal(t, "text/plain", part.Header.Get("Content-Type"))
		text, err := io.ReadAll(part)
		require.NoError(t, err)
		assert.Equal(t, want, part.Header.Get("Content-Range")+" "+string(text))
	}
	_, err = r.NextPart()
	assert.Equal(t, io.EOF, err)
	assert.NotEqual(t, m.kind, newFrame(spans, "text/plain", 10).kind, "no two boundaries are the same")
}
