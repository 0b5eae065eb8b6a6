package h1

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const browser = "GET /static/app.js?v=12 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n" +
	"Accept: */*\r\nAccept-Language: en\r\nAccept-Encoding: gzip, br\r\nCookie: a=b; c=d\r\nConnection: keep-alive, X-Foo\r\nX-Foo:  bar \r\n\r\n"

func TestSmoke(t *testing.T) {
	for _, name := range append(append([]string{}, keyNames[2:]...), commonNames...) {
		_, known := lookup([]byte(name))
		require.True(t, known, name)
	}
	var req Request
	n, err := ParseRequest([]byte(browser), &req)
	require.NoError(t, err)
	require.Equal(t, len(browser), n)
	require.Equal(t, MethodGet, req.Method)
	require.Equal(t, "/static/app.js", string(req.Path))
	require.Equal(t, "v=12", string(req.Query))
	require.Equal(t, "www.example.com", string(req.Host))
	require.True(t, req.KeepAlive)
	require.Equal(t, 8, len(req.Fields()))
	require.True(t, req.HopByHop(6))
	require.True(t, req.HopByHop(7))
	require.False(t, req.HopByHop(0))
	var resp Response
	n, err = ParseResponse([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5, max=10\r\n\r\n"), &resp)
	require.NoError(t, err)
	require.Equal(t, Body{BodyLength, 5}, resp.Body(MethodGet))
	require.Equal(t, 5, resp.KeepAliveTimeout)
	for _, u := range []int64{0, 784111777, 951782400, 4102444800, 253402300799} {
		s := AppendDate(nil, u)
		require.Equal(t, time.Unix(u, 0).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), string(s))
		v, ok := ParseDate(s, 0)
		require.True(t, ok)
		require.Equal(t, u, v)
	}
	var c Chunks
	in := []byte("5;a=\"b\"\r\nhello\r\n0\r\n\r\n")
	data, n, err := c.Next(in)
	require.NoError(t, err)
	require.Equal(t, "hello", string(data))
	data, m, err := c.Next(in[n:])
	require.NoError(t, err)
	require.Empty(t, data)
	require.True(t, c.Done())
	var tr Trailer
	n, err = ParseTrailer(in[n+m:], &tr)
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

const typical = "GET /assets/application-5f2c1d.js?v=20240611 HTTP/1.1\r\n" +
	"Host: www.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
	"Accept-Language: en-GB,en;q=0.9\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: https://www.example.com/\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n" +
	"Connection: keep-alive\r\n\r\n"

func BenchmarkParseRequest(b *testing.B) {
	var req Request
	in := []byte(typical)
	b.Log(len(in))
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		ParseRequest(in, &req)
	}
}
