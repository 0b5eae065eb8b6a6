package exchange_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// A head that waits for room is its client's own: other exchanges of the worker
// build theirs meanwhile.
func TestHeadsDoNotMix(t *testing.T) {
	const size, count = 3000, 3000 // more than the kernel takes without a reader
	letters := func(x *exchange.Exchange) {
		letter := x.Request.Path[1:2]
		size := size
		if string(x.Request.Query) == "large" {
			size *= 7
		}
		x.Begin(204, nil)
		x.Field([]byte("X-Letters"), bytes.Repeat(letter, size))
		_ = x.SendHead(h1.BodyNone, nil)
	}
	for name, query := range map[string]string{"copied": "", "sent from where it is": "?large"} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := serve(t, engine, exchange.Config{}, letters)
				var clients []*looptest.Peer
				for _, letter := range []string{"a", "b", "c", "d"} {
					c := r.Client(r.address)
					clients = append(clients, c)
					// In one piece, so that their answers are gathered.
					go c.Send(strings.Repeat("GET /"+letter+query+" HTTP/1.1\r\nHost: x\r\n\r\n", count/(1+len(query))))
				}
				r.Eventually("the clients to be stuck", func() bool { return r.stats.Requests.Load() > 4*50 })
				r.Loop.Post(func() {}) // a turn
				for i, c := range clients {
					letter := string(rune('a' + i))
					for n := range count / (1 + len(query)) {
						got := c.Answer("GET").Header.Get("X-Letters")
						if !assert.Equal(t, len(got), strings.Count(got, letter), "answer %d has other letters", n) {
							return
						}
					}
				}
			})
		})
	}
}

// What a body without a length becomes for each version.
func TestUnknownLength(t *testing.T) {
	for _, row := range []struct{ path, version, want string }{
		{"/chunks", "1.1", "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n4\r\nmore\r\n0\r\n\r\n"},
		{"/until-close", "1.1", "HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n4\r\nmore\r\n0\r\n\r\n"},
		{"/chunks", "1.0", "HTTP/1.1 200 Fine\r\nConnection: close\r\n\r\nsomemore"},
		{"/until-close", "1.0", "HTTP/1.1 200 Fine\r\nConnection: close\r\n\r\nsomemore"},
		{"/nothing", "1.1", "HTTP/1.1 204 No Content\r\n\r\n"},
	} {
		t.Run(row.path[1:]+" "+row.version, func(t *testing.T) {
			engines(t, exchange.Config{}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send("GET " + row.path + " HTTP/" + row.version + "\r\nHost: a\r\n\r\n")
				c.Expect(row.want)
				if row.version == "1.0" {
					c.End()
				} else {
					c.Quiet()
				}
			})
		})
	}
}

func TestTrailers(t *testing.T) {
	for version, want := range map[string]string{
		"1.1": "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n",
		"1.0": "Connection: close\r\n\r\nhi",
	} {
		looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
			r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
				var trailer h1.Trailer
				_, err := h1.ParseTrailer([]byte("X-Sum: 1\r\nContent-Type: text/plain\r\n\r\n"), &trailer)
				assert.NoError(t, err)
				x.Begin(200, nil)
				assert.NoError(t, x.SendHead(h1.BodyChunked, nil))
				_, err = x.Write([]byte("hi"))
				assert.NoError(t, err)
				assert.NoError(t, x.End(&trailer))
			})
			c := r.Client(r.address)
			c.Send("GET / HTTP/" + version + "\r\nHost: a\r\n\r\n")
			c.Expect("HTTP/1.1 200 OK\r\n" + want)
		})
	}
}

func TestPrepared(t *testing.T) {
	head := []byte("HTTP/1.1 200 OK\r\nServer: atlas\r\n")
	for name, body := range map[string]string{"small": "hello", "large": strings.Repeat("large", 20_000)} {
		tail := []byte("\r\n" + body)
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
					assert.NoError(t, x.SendPrepared(200, head, tail))
				})
				c := r.Client(r.address)
				for version, connection := range map[string]string{
					"1.1\r\nHost: a": "", "1.0\r\nConnection: keep-alive": "Connection: keep-alive\r\n",
				} {
					c.Send("GET / HTTP/" + version + "\r\n\r\n")
					got := c.Head()
					assert.Regexp(t, `^HTTP/1.1 200 OK\r\nServer: atlas\r\nDate: .{29}\r\n`+connection+"\r\n$", got)
					c.Expect(body)
				}
				c.Send("GET / HTTP/1.0\r\n\r\n")
				assert.Contains(t, c.Head(), "\r\nConnection: close\r\n")
				c.Expect(body)
				c.End()
				assert.EqualValues(t, 3, r.stats.Responses[1].Load())
			})
		})
	}
}

// Interim responses reach clients that know them, in front of the final one.
func TestInformational(t *testing.T) {
	var hints h1.Response
	_, err := h1.ParseResponse([]byte("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nConnection: X-Own\r\nX-Own: 1\r\n"+
		"Content-Length: 5\r\n\r\n"), &hints)
	assert.NoError(t, err)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
			assert.NoError(t, x.Informational(&hints))
			assert.False(t, x.Begun())
			x.Loop.Sleep(time.Millisecond)
			x.Begin(204, nil)
			assert.NoError(t, x.SendHead(h1.BodyNone, nil))
		})
		c := r.Client(r.address)
		c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Expect("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
		c.Send("GET / HTTP/1.0\r\n\r\n")
		c.Expect("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		c.End()
	})
}

func TestFail(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
			x.Fail(503, "nobody is there", "Retry-After", "1")
			assert.True(t, x.Begun())
		})
		c := r.Client(r.address)
		for _, method := range []string{"GET", "HEAD"} {
			c.Send(method + " / HTTP/1.1\r\nHost: a\r\n\r\n")
			assert.Regexp(t, `^HTTP/1.1 503 Service Unavailable\r\nServer: atlas\r\nDate: .{29}\r\nRetry-After: 1\r\n`+
				`Content-Type: text/plain; charset=utf-8\r\nContent-Length: 41\r\n\r\n$`, c.Head())
			if method == "GET" {
				c.Expect("503 Service Unavailable: nobody is there\n")
			}
		}
		c.Quiet() // it goes on
		assert.EqualValues(t, 2, r.stats.Responses[4].Load())
	})
}

func TestPeer(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) { text(x, string(x.Peer())) })
		c := r.Client(r.address)
		for range 2 {
			c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			assert.Equal(t, "127.0.0.1", c.Answer("GET").Text)
		}
	})
}
