package h1

import (
	"bytes"
	"io"
	"math"
	"net/http"
	"net/http/httputil"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAppendStatusLine(t *testing.T) {
	tests := []struct {
		code int
		want string
	}{
		{200, "HTTP/1.1 200 OK\r\n"},
		{404, "HTTP/1.1 404 Not Found\r\n"},
		{431, "HTTP/1.1 431 Request Header Fields Too Large\r\n"},
		{299, "HTTP/1.1 299 \r\n"},
		{599, "HTTP/1.1 599 \r\n"},
	}
	for _, test := range tests {
		assert.Equal(t, "x"+test.want, string(AppendStatusLine([]byte("x"), test.code)))
	}
	assert.Equal(t, "HTTP/1.1 200 Fine\r\n", string(AppendStatusReason(nil, 200, []byte("Fine"))))
	assert.Equal(t, "Bad Gateway", StatusText(502))
	assert.Empty(t, StatusText(299))
	for code := range statusTexts {
		resp := new(Response)
		_, err := ParseResponse(append(AppendStatusLine(nil, code), "\r\n"...), resp)
		require.NoError(t, err)
		assert.Equal(t, code, resp.Status)
		assert.Equal(t, StatusText(code), string(resp.Reason))
	}
	for _, refused := range Refusals() {
		assert.NotEmpty(t, StatusText(refused.Status))
	}
}

func TestAppendLines(t *testing.T) {
	assert.Equal(t, "GET /a HTTP/1.1\r\n", string(AppendRequestLine(nil, []byte("GET"), []byte("/a"))))
	assert.Equal(t, "Via: 1.1 a\r\n", string(AppendField(nil, "Via", "1.1 a")))
	assert.Equal(t, "Via: 1.1 a\r\n", string(AppendField(nil, []byte("Via"), []byte("1.1 a"))))
	assert.Equal(t, "Content-Length: 9223372036854775807\r\n", string(AppendContentLength(nil, math.MaxInt64)))
	assert.Equal(t, "-12", string(AppendDecimal(nil, -12)))
}

func TestValidNameAndValue(t *testing.T) {
	for _, name := range []string{"a", "X-Odd!#$%&'*+.^_`|~9"} {
		assert.True(t, ValidName([]byte(name)), name)
	}
	for _, name := range []string{"", "a b", "a:", "\x00", "ä", "a\n"} {
		assert.False(t, ValidName([]byte(name)), name)
	}
	for _, value := range []string{"", "a b", "a\tb", "ä"} {
		assert.True(t, ValidValue([]byte(value)), value)
	}
	for _, value := range []string{" a", "a ", "a\r\nb", "a\nb", "\x00", "\x7f"} {
		assert.False(t, ValidValue([]byte(value)), value)
	}
}

// TestAppendChunk: what we write, we and httputil read.
func TestAppendChunk(t *testing.T) {
	for _, n := range []int{1, 9, 15, 16, 255, 256, 65535, 65536, math.MaxInt32, math.MaxInt64} {
		head := AppendChunkHead(nil, n)
		assert.Equal(t, strconv.FormatInt(int64(n), 16)+"\r\n", string(head))
		assert.LessOrEqual(t, len(head), ChunkHeadBytesMax)
		var chunks Chunks
		_, _, err := chunks.Next(head)
		require.NoError(t, err)
		assert.Equal(t, int64(n), chunks.Left())
	}
	assert.Len(t, AppendChunkHead(nil, math.MaxInt64), ChunkHeadBytesMax)

	var body []byte
	var want bytes.Buffer
	for n := range 300 {
		data := bytes.Repeat([]byte{byte(n)}, n)
		body = AppendChunk(body, data)
		want.Write(data)
	}
	body = append(body, LastChunkEnd...)
	data, rest, err := readChunks(body, len(body))
	require.NoError(t, err)
	assert.Equal(t, want.Bytes(), data)
	assert.Equal(t, "\r\n", string(rest))
	std, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(body)))
	require.NoError(t, err)
	assert.Equal(t, want.Bytes(), std)
}

func TestChunksLeft(t *testing.T) {
	var chunks Chunks
	assert.Zero(t, chunks.Left())
	data, n, err := chunks.Next([]byte("a\r\n012"))
	require.NoError(t, err)
	assert.Equal(t, "012", string(data))
	assert.Equal(t, 6, n)
	assert.Equal(t, int64(7), chunks.Left())
	assert.False(t, chunks.Done())
	_, n, err = chunks.Next(nil)
	require.NoError(t, err)
	assert.Zero(t, n)
	_, _, err = chunks.Next([]byte("3456789"))
	require.NoError(t, err)
	assert.Zero(t, chunks.Left())
	_, n, err = chunks.Next([]byte("\r\n0\r\n\r\n"))
	require.NoError(t, err)
	assert.Equal(t, 5, n, "the trailer section is not ours")
	assert.True(t, chunks.Done())
	_, n, err = chunks.Next([]byte("\r\n"))
	require.NoError(t, err)
	assert.Zero(t, n)
}

// TestAppendDate compares with time.Format over all years, leap days and ends of months included.
func TestAppendDate(t *testing.T) {
	for unix := int64(0); unix <= dateUnixMax; unix += 197*daySeconds + 12345 {
		requireDate(t, unix)
	}
	for _, text := range []string{"2000-02-29", "2100-02-28", "2100-03-01", "2024-02-29", "2024-12-31", "1970-01-01"} {
		day, err := time.Parse(time.DateOnly, text)
		require.NoError(t, err)
		requireDate(t, day.Unix())
		requireDate(t, day.Unix()+daySeconds-1)
	}
	assert.Equal(t, "Thu, 01 Jan 1970 00:00:00 GMT", string(AppendDate(nil, -5)))
	assert.Equal(t, "Fri, 31 Dec 9999 23:59:59 GMT", string(AppendDate(nil, math.MaxInt64)))
}

func requireDate(t *testing.T, unix int64) {
	t.Helper()
	text := AppendDate(nil, unix)
	require.Equal(t, time.Unix(unix, 0).UTC().Format(http.TimeFormat), string(text))
	require.Len(t, text, DateBytes)
	got, ok := ParseDate(text, 0)
	require.True(t, ok, "%s", text)
	require.Equal(t, unix, got)
}

func TestDateCache(t *testing.T) {
	var cache DateCache
	assert.Equal(t, "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", string(cache.Field(0)))
	assert.Equal(t, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", string(cache.Field(784111777)))
	assert.Equal(t, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", string(cache.Field(784111777)))
	assert.Equal(t, "Date: Sun, 06 Nov 1994 08:49:36 GMT\r\n", string(cache.Field(784111776)))
}

func TestParseDate(t *testing.T) {
	const example, in2026 = 784111777, 1767225600 // 1994-11-06 08:49:37, 2026-01-01
	tests := []struct {
		name string
		text string
		want int64 // 0: refused
	}{
		{"IMF-fixdate", "Sun, 06 Nov 1994 08:49:37 GMT", example},
		{"RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", example},
		{"asctime", "Sun Nov  6 08:49:37 1994", example},
		{"asctime two digits", "Wed Nov 16 08:49:37 1994", example + 10*daySeconds},
		{"longest weekday", "Wednesday, 16-Nov-94 08:49:37 GMT", example + 10*daySeconds},
		{"wrong weekday is not checked", "Mon, 06 Nov 1994 08:49:37 GMT", example},
		{"leap second", "Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
		{"leap day", "Tue, 29 Feb 2000 00:00:00 GMT", 951782400},
		{"fifty years ahead", "Wednesday, 01-Jan-76 00:00:00 GMT", 3345062400},
		{"over fifty years ahead", "Thursday, 02-Jan-76 00:00:00 GMT", 189388800},
		{"far ahead is past", "Friday, 01-Jan-99 00:00:00 GMT", 915148800},
		{"leap day of a past year", "Friday, 29-Feb-96 00:00:00 GMT", 825552000},

		{"empty", "", 0},
		{"no leap day", "Wed, 29 Feb 2023 00:00:00 GMT", 0},
		{"no leap day in 2100", "Mon, 29 Feb 2100 00:00:00 GMT", 0},
		{"no leap day in the year meant", "Monday, 29-Feb-27 00:00:00 GMT", 0},
		{"day 0", "Sun, 00 Nov 1994 08:49:37 GMT", 0},
		{"day 31", "Sun, 31 Nov 1994 08:49:37 GMT", 0},
		{"hour 24", "Sun, 06 Nov 1994 24:00:00 GMT", 0},
		{"minute 60", "Sun, 06 Nov 1994 08:60:00 GMT", 0},
		{"second 61", "Sun, 06 Nov 1994 08:49:61 GMT", 0},
		{"lower case", "sun, 06 nov 1994 08:49:37 gmt", 0},
		{"other zone", "Sun, 06 Nov 1994 08:49:37 UTC", 0},
		{"offset", "Sun, 06 Nov 1994 08:49:37 +0000", 0},
		{"one digit", "Sun, 6 Nov 1994 08:49:37 GMT", 0},
		{"sign", "Sun, +6 Nov 1994 08:49:37 GMT", 0},
		{"space in year", "Sun, 06 Nov  994 08:49:37 GMT", 0},
		{"month", "Sun, 06 Nop 1994 08:49:37 GMT", 0},
		{"weekday", "Xyz, 06 Nov 1994 08:49:37 GMT", 0},
		{"RFC 850 weekday", "Xunday, 06-Nov-94 08:49:37 GMT", 0},
		{"RFC 850 short weekday", "Sun, 06-Nov-94 08:49:37 GMT", 0},
		{"RFC 850 letters", "Sunday, 06-Nov-x4 08:49:37 GMT", 0},
		{"asctime weekday", "Xun Nov  6 08:49:37 1994", 0},
		{"asctime no space", "Sun Nov  6 08:49:37-1994", 0},
		{"separator", "Sun, 06 Nov 1994 08-49-37 GMT", 0},
		{"ISO 8601", "1994-11-06T08:49:37Z", 0},
		{"trailing", "Sun, 06 Nov 1994 08:49:37 GMT ", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			unix, ok := ParseDate([]byte(test.text), in2026)
			assert.Equal(t, test.want != 0, ok)
			assert.Equal(t, test.want, unix)
		})
	}
}
