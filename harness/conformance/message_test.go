package conformance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadMessage(t *testing.T) {
	for _, row := range []struct {
		name, raw string
		from      side
		body      string
		state     string // begun, complete, close
		rest      int    // bytes after the message
	}{
		{"nothing", "", fromClient, "", "", 0},
		{"half a head", "GET / HTTP/1.1\r\nHost: a\r\n", fromClient, "", "", 0},
		{"a head", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", fromClient, "", "begun complete", 0},
		{"the next", "GET / HTTP/1.1\r\n\r\nGET", fromClient, "", "begun complete", 3},
		{"a length", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcd", fromClient, "abc", "begun complete", 1},
		{"half a length", "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", fromClient, "ab", "begun", 0},
		{"chunks", "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n1;a=\"b\"\r\na\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\nZ",
			fromClient, "a0123456789", "begun complete", 1},
		{"half a chunk", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", fromClient, "ab", "begun", 0},
		{"half an end", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", fromClient, "", "begun", 0},
		{"to the end", "HTTP/1.1 200 OK\r\n\r\nabc", fromServer, "abc", "begun close", 0},
		{"none with 304", "HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\nabc", fromServer, "", "begun complete", 3},
		{"none to HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", fromServerToHead, "", "begun complete", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := readMessage([]byte(row.raw), row.from)
			require.Empty(t, m.doubts)
			require.Equal(t, row.body, string(m.body))
			var state []string
			for name, is := range map[string]bool{"begun": m.begun, "complete": m.complete, "close": m.toClose} {
				if is {
					state = append(state, name)
				}
			}
			require.ElementsMatch(t, strings.Fields(row.state), state)
			if m.complete {
				require.Equal(t, row.rest, len(row.raw)-m.size)
			}
		})
	}
}

// What another recipient could read as another message is in doubt, and
// nothing else is.
func TestDoubts(t *testing.T) {
	const line = "POST / HTTP/1.1\r\nHost: a\r\n"
	const chunked = line + "Transfer-Encoding: chunked\r\n\r\n"
	for _, row := range []struct{ raw, want string }{
		{line + "\r\n", ""},
		{line + "X: a\x00b\r\nX(): y\r\nno colon\r\n\r\n", ""},
		{line + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", ""},
		{line + "Content_Length: 5\r\n\r\n", ""},
		{line + "X: y\n\r\n", "bare LF"},
		{line + "\n", "bare LF"},
		{line + "X: y\rz\r\n\r\n", "bare CR"},
		{line + "X: y\r\n z\r\n\r\n", "line that begins with white space"},
		{line + "X : y\r\n\r\n", "white space before a colon"},
		{line + "Transfer-Encoding\x0b: chunked\r\n\r\n", `field name "Transfer-Encoding\v"`},
		{line + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "both Content-Length and Transfer-Encoding"},
		{line + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", "2 Content-Length"},
		{line + "Content-Length: +0\r\n\r\n", `Content-Length "+0"`},
		{line + "Content-Length: 0, 0\r\n\r\n", `Content-Length "0, 0"`},
		{line + "Content-Length: 9223372036854775808\r\n\r\n", `Content-Length "9223372036854775808"`},
		{line + "Transfer-Encoding: identity\r\n\r\n", `Transfer-Encoding "identity"`},
		{line + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", `Transfer-Encoding "chunked,"`},
		{line + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", `Transfer-Encoding "chunked, chunked"`},
		{line + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", `Transfer-Encoding "\vchunked"`},
		{line + "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			`2 Transfer-Encoding; Transfer-Encoding "gzip"`},
		{"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding in HTTP/1.0"},
		{"GET /\r\nHost: a\r\n\r\n", `start line without HTTP/1.0 or HTTP/1.1: "GET /"`},
		{"GET / HTTP/2.0\r\n\r\n", `start line without HTTP/1.0 or HTTP/1.1: "GET / HTTP/2.0"`},
		{chunked + "+5\r\nhello\r\n", `chunk size "+5\r"`},
		{chunked + "5\nhello\r\n", `chunk size "5"`},
		{chunked + "5 \r\nhello\r\n", `chunk size "5 \r"`},
		{chunked + "5;a\rb\r\nhello\r\n", `chunk size "5;a\rb\r"`},
		{chunked + "8000000000000000\r\n", `chunk size "8000000000000000\r"`},
		{chunked + "5\r\nhello!\r\n", `chunk that ends in "!\r\n"`},
		{chunked + "0\r\n A: b\r\n\r\n", "line that begins with white space"},
	} {
		m := readMessage([]byte(row.raw), fromClient)
		require.Equal(t, row.want, strings.Join(m.doubts, "; "), "%q", row.raw)
		require.True(t, m.complete, "%q", row.raw)
	}
	m := readMessage([]byte("ICY 200 OK\r\n\r\n"), fromServer)
	require.Equal(t, []string{`start line without HTTP/1.0 or HTTP/1.1: "ICY 200 OK"`}, m.doubts)
}

func TestReadResponse(t *testing.T) {
	final, early := readResponse([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n"+
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"), fromServer)
	require.Len(t, early, 2)
	require.Equal(t, []string{"a"}, early[1].values("link"))
	require.Equal(t, 200, final.status())
	require.True(t, final.complete)

	final, early = readResponse([]byte("HTTP/1.1 101 Switching\r\n\r\nbytes"), fromServer)
	require.Empty(t, early)
	require.Equal(t, 101, final.status(), "what follows is no HTTP")
}
