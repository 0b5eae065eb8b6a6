package server

import (
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// breaking panics where the path says so.
type breaking struct{ exchange.Handler }

func (b breaking) Handle(x *exchange.Exchange) {
	switch string(x.Request.Path) {
	case "/panic":
		panicForTest()
	case "/panic-late":
		b.Handler.Handle(x) // there is no such file: a response has begun
		panicForTest()
	case "/silent":
		return // answers nothing
	}
	b.Handler.Handle(x)
}

func panicForTest() { panic("a fault of the test") }

func breakHandler(h exchange.Handler) exchange.Handler { return breaking{h} }

// A hundred panics: each resets its connection and is counted, each is logged
// with its stack unless there are too many at once, the others of the worker go
// on, and nothing is left of any.
func TestPanics(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		const panics = 100
		s := launch(t, looptest.StaticConfig(t, engine), breakHandler)
		var others []*client
		for range 8 {
			c := s.dial()
			c.get("/a")
			others = append(others, c)
		}
		once := func(path string) {
			c := s.dial()
			c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
			rest, err := io.ReadAll(c)
			assert.ErrorContains(t, err, "reset", "%q", rest)
			require.NoError(t, c.Close())
		}
		for range 10 { // until every worker has what it keeps
			once("/panic")
		}
		open := func() (n int64) {
			for _, w := range s.workers {
				n += w.Counters().Open.Load()
			}
			return n
		}
		eventually(t, "connections to end", func() bool { return open() == 8 })
		fds := descriptors()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range panics - 10 {
			once([]string{"/panic", "/panic-late"}[i%2])
		}
		eventually(t, "connections to end", func() bool { return open() == 8 })
		runtime.GC()
		runtime.ReadMemStats(&after)
		assert.LessOrEqual(t, descriptors(), fds)
		assert.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(4<<20))
		assert.EqualValues(t, panics, s.Panics())
		for _, c := range others {
			assert.Equal(t, "hello", c.get("/a"))
		}
		assert.True(t, s.shutdown(patience))
		lines := s.log.lines("a fault of the test")
		assert.NotEmpty(t, lines)
		assert.LessOrEqual(t, len(lines), panics)
		for _, line := range lines {
			assert.Contains(t, line, "level=ERROR")
			assert.Contains(t, line, "worker=")
			assert.Contains(t, line, "panicForTest", "the stack shows where")
		}
	})
}

// A handler that answers nothing is broken: its client must not wait for ever.
func TestSilentHandler(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), breakHandler)
		c := s.dial()
		c.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err := io.ReadAll(c)
		assert.ErrorContains(t, err, "reset")
	})
}

// What is not a request gets an answer that the client can read, also one that
// goes on sending, and costs nobody else anything.
func TestGarbage(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		other := s.dial()
		for _, row := range []struct {
			name, bytes string
			status      int
			why         string
		}{
			{"a TLS client", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\xab", 500), 400, "method"},
			{"NUL bytes", strings.Repeat("\x00", 10_000), 400, "method"},
			{"a terminal", "hello?\n", 400, "method"},
			{"no version", "GET /\r\n\r\n", 400, "version"},
			{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "major version"},
			{"no host", "GET / HTTP/1.1\r\n\r\n", 400, "Host"},
			{"two lengths", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Content-Length"},
			{"a long target", "GET /" + strings.Repeat("x", 20_000) + " HTTP/1.1\r\n", 414, "start line"},
			{"a field of 1 MB", "GET /a HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1_000_000) + "\r\n\r\n", 431, "head"},
			{"1 MB of fields", "GET /a HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 170_000), 431, "field"},
			{"many fields", "GET /a HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 101) + "\r\n", 431, "field"},
		} {
			t.Run(row.name, func(t *testing.T) {
				c := dial(t, s.Addr())
				c.send(row.bytes)
				resp, body := c.receive()
				assert.Equal(t, row.status, resp.StatusCode)
				assert.Contains(t, body, row.why)
				assert.True(t, resp.Close)
				c.ends()
			})
			assert.Equal(t, "hello", other.get("/a"))
		}
		assert.Empty(t, s.log.lines("level=ERROR"))
		assert.Zero(t, s.Panics())
	})
}

// Garbage behind a request that was fine does not cost its answer.
func TestGarbageBehindRequest(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		c := s.dial()
		c.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n\x00\x01\x02" + strings.Repeat("x", 500_000))
		_, body := c.receive()
		assert.Equal(t, "hello", body)
		resp, _ := c.receive()
		assert.Equal(t, 400, resp.StatusCode)
		c.ends()
	})
}

// Connections come and go while requests run on others.
func TestChurn(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		var failed atomic.Int64
		done := make(chan struct{})
		const clients, each = 8, 50
		for n := range clients {
			go func() {
				defer func() { done <- struct{}{} }()
				for i := range each {
					c, err := net.Dial("tcp", s.Addr())
					if err != nil {
						failed.Add(1)
						return
					}
					_ = c.SetDeadline(time.Now().Add(patience))
					_, _ = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
					if (n+i)%3 != 0 { // every third leaves without reading
						p := make([]byte, 300)
						if m, err := c.Read(p); err != nil || !strings.HasSuffix(string(p[:m]), "hello") {
							failed.Add(1)
						}
					}
					_ = c.Close()
				}
			}()
		}
		for range clients {
			<-done
		}
		assert.Zero(t, failed.Load())
		eventually(t, "all to close", func() bool {
			return s.workers[0].Counters().Open.Load()+s.workers[1].Counters().Open.Load() == 0
		})
	})
}
