package h1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// benchRequests are heads as clients send them. The number of bytes in a benchmark's name is rounded.
var benchRequests = []struct {
	headers, bytes int
	head           string
}{
	{2, 64, "GET /1k.html HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk\r\n\r\n"},
	{8, 512, "GET /assets/application-5f2c1d.js?v=20240611 HTTP/1.1\r\n" +
		"Host: www.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
		"Accept-Language: en-GB,en;q=0.9\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Referer: https://www.example.com/search\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n" +
		"Connection: keep-alive\r\n\r\n"},
	{20, 1024, "POST /api/v2/orders HTTP/1.1\r\nHost: shop.example.com\r\n" +
		"X-Request-Id: 7f1c9b9e-6f1c-4a8e-9e0a-3c1b5f2f9a10\r\n" +
		"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n" +
		"Content-Type: application/json\r\nContent-Length: 512\r\nAccept: application/json\r\n" +
		strings.Repeat("X-Custom-Field: 0123456789abcdefghijklmnopqrstuvwxyz\r\n", 14) + "\r\n"},
}

func BenchmarkParseRequest(b *testing.B) {
	for _, test := range benchRequests {
		b.Run(fmt.Sprintf("headers=%d/bytes=%d", test.headers, test.bytes), func(b *testing.B) {
			head := []byte(test.head)
			req := new(Request)
			b.SetBytes(int64(len(head)))
			b.ReportAllocs()
			for b.Loop() {
				if n, _ := ParseRequest(head, req); n != len(head) {
					b.Fatal("refused")
				}
			}
			require.Len(b, req.Fields(), test.headers)
		})
	}
}

const benchResponse = "HTTP/1.1 200 OK\r\nServer: nginx/1.27.0\r\nDate: Tue, 11 Jun 2024 10:00:00 GMT\r\n" +
	"Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\nLast-Modified: Mon, 10 Jun 2024 09:00:00 GMT\r\n" +
	"Connection: keep-alive\r\nETag: \"66670f90-400\"\r\nAccept-Ranges: bytes\r\n\r\n"

func BenchmarkParseResponse(b *testing.B) {
	b.Run("headers=8/bytes=256", func(b *testing.B) {
		head := []byte(benchResponse)
		resp := new(Response)
		b.SetBytes(int64(len(head)))
		b.ReportAllocs()
		for b.Loop() {
			if n, _ := ParseResponse(head, resp); n != len(head) {
				b.Fatal("refused")
			}
		}
		require.Len(b, resp.Fields(), 8)
	})
}

func BenchmarkChunks(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("chunk=%d/bytes=65536", size), func(b *testing.B) {
			var body []byte
			for range 65536 / size {
				body = AppendChunk(body, make([]byte, size))
			}
			body = append(body, LastChunk...)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				var chunks Chunks
				for rest := body; !chunks.Done(); {
					_, n, err := chunks.Next(rest)
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
}

func BenchmarkAppendResponseHead(b *testing.B) {
	var cache DateCache
	dst := make([]byte, 0, 1024)
	unix := int64(1718100000)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendStatusLine(dst[:0], 200)
		dst = append(dst, cache.Field(unix)...)
		dst = AppendField(dst, "Content-Type", "text/html; charset=utf-8")
		dst = AppendContentLength(dst, 1024)
		dst = append(dst, "\r\n"...)
	}
}

func BenchmarkDate(b *testing.B) {
	b.Run("op=append", func(b *testing.B) {
		dst := make([]byte, 0, DateBytes)
		for unix := int64(0); b.Loop(); unix++ {
			dst = AppendDate(dst[:0], unix)
		}
	})
	b.Run("op=parse", func(b *testing.B) {
		text := []byte("Sun, 06 Nov 1994 08:49:37 GMT")
		for b.Loop() {
			if _, ok := ParseDate(text, 0); !ok {
				b.Fatal("refused")
			}
		}
	})
}

func skipInvariant(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
}

// TestAllocs: nothing on the hot path allocates, refusing least of all.
func TestAllocs(t *testing.T) {
	skipInvariant(t)
	req, resp, trailer := new(Request), new(Response), new(Trailer)
	dst := make([]byte, 0, 4096)
	var cache DateCache
	var failed error
	inputs := map[string][][]byte{}
	for dir := range logs {
		for _, c := range corpus(t, dir) {
			inputs[dir] = append(inputs[dir], c.input)
		}
	}
	allocs := map[string]func(){
		"request": func() {
			for _, b := range inputs["request"] {
				_, failed = ParseRequest(b, req)
				for i := range req.Fields() {
					_ = req.HopByHop(i)
				}
				dst = req.AppendTarget(dst[:0])
			}
		},
		"response": func() {
			for _, b := range inputs["response"] {
				_, failed = ParseResponse(b, resp)
				_ = resp.Reusable(MethodGet)
			}
		},
		"chunked": func() {
			for _, b := range inputs["chunked"] {
				var chunks Chunks
				n := 1
				for n > 0 && !chunks.Done() && failed == nil {
					_, n, failed = chunks.Next(b)
					b = b[n:]
				}
				_, failed = ParseTrailer(b, trailer)
			}
		},
		"write": func() {
			dst = AppendStatusLine(dst[:0], 200)
			dst = AppendStatusReason(dst, 299, req.MethodName)
			dst = append(dst, cache.Field(int64(len(dst)))...)
			dst = AppendField(dst, "A", req.Host)
			dst = AppendContentLength(dst, 1<<40)
			dst = AppendChunk(dst, req.Host)
			_, _ = ParseDate(dst[:DateBytes], 0)
		},
		"list": func() {
			_ = HasToken(dst, "a")
		},
	}
	for name, run := range allocs {
		run()
		require.Zero(t, testing.AllocsPerRun(10, run), name)
	}
	_ = failed
}
