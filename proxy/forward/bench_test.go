package forward_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/accesslog"
	"atlas/proxy/exchange"
	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// plain is an upstream and its clients that allocate nothing while they work.
type plain struct {
	request, response []byte
	clients           []net.Conn
	in                []byte
}

// behindProxy are fields that another proxy adds.
const behindProxy = "X-Forwarded-For: 192.0.2.1, [2001:db8::1]:80, 127.0.0.2\r\nX-Forwarded-For: 127.0.0.3\r\n" +
	"X-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nVia: 1.1 edge, HTTP/2 core (x)\r\n"

func newPlain(t testing.TB, engine loop.Engine, clients, size int, more string, log *accesslog.Ring) *plain {
	e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
	b := &plain{
		request: []byte("GET /index.html HTTP/1.1\r\nHost: example.org\r\nUser-Agent: bench\r\nAccept: */*\r\n" + more + "\r\n"),
		response: fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\n"+
			"Content-Length: %d\r\n\r\n%s", size, make([]byte, size)),
		in: make([]byte, 64<<10),
	}
	trusts := setup{client: exchange.Config{
		Trusted: loopback, Name: "atlas", Failed: func(f exchange.Failure) { t.Error(f) }, Log: log, Timed: log != nil,
	}}
	r := proxyOn(e, trusts, e.Script(func(p *looptest.Peer, _ int) {
		require.NoError(t, p.SetDeadline(time.Time{}))
		in := make([]byte, 64<<10)
		for n := 0; ; {
			m, err := p.TCPConn.Read(in[n:])
			if n += m; err != nil {
				return
			}
			if bytes.HasSuffix(in[:n], []byte("\r\n\r\n")) {
				n = 0
				if _, err := p.Write(b.response); err != nil {
					return
				}
			}
		}
	}).Address)
	for range clients {
		c := r.Dial(r.address)
		require.NoError(t, c.SetDeadline(time.Time{}))
		b.clients = append(b.clients, c)
	}
	b.round(t, len(b.clients))
	return b
}

// round has each of the first clients ask once. What they get is as long as the
// upstream's response, for there is nothing to add to that.
func (b *plain) round(t testing.TB, clients int) {
	for _, c := range b.clients[:clients] {
		if _, err := c.Write(b.request); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range b.clients[:clients] {
		if _, err := io.ReadFull(c, b.in[:len(b.response)]); err != nil {
			t.Fatal(err)
		}
	}
}

// A proxied GET allocates nothing here, nor does its line in the access log. On netpoll, loop's look at an idle
// upstream connection (quiet) takes a closure and its result: 2.
func TestAllocsForward(t *testing.T) {
	skipInvariant(t)
	most := map[loop.Engine]float64{loop.IOUring: 0.05, loop.Netpoll: 2.05}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		t.Run("a client", func(t *testing.T) { allocs(t, engine, "", most[engine]) })
		t.Run("behind a proxy", func(t *testing.T) { allocs(t, engine, behindProxy, most[engine]) })
	})
}

func allocs(t *testing.T, engine loop.Engine, more string, most float64) {
	const rounds, clients = 1000, 4
	b := newPlain(t, engine, clients, 1024, more, accessLog(t))
	for range rounds / 5 {
		b.round(t, clients)
	}
	assert.True(t, bytes.Equal(b.response, b.in[:len(b.response)]))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range rounds {
		b.round(t, clients)
	}
	runtime.ReadMemStats(&after)
	each := float64(after.Mallocs-before.Mallocs) / (rounds * clients)
	t.Logf("%.5f allocations a request", each)
	assert.Less(t, each, most)
}

// accessLog is one that is written to a file, as JSON. It is made before the loop:
// what pushes has to end first.
func accessLog(t testing.TB) *accesslog.Ring {
	t.Helper()
	l := accesslog.New([]*stats.Stats{new(stats.Stats)}, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { l.Close(time.Minute) })
	format, err := accesslog.ParseFormat(accesslog.JSON)
	require.NoError(t, err)
	opened, err := accesslog.Open(accesslog.Settings{Format: format, Path: filepath.Join(t.TempDir(), "access.log")})
	require.NoError(t, err)
	l.Apply(opened)
	return l.Ring(0)
}

func skipInvariant(t *testing.T) {
	if invariant.Enabled {
		t.Skip("counts allocations, which the race detector and invariants change")
	}
}

// BenchmarkForward is a proxied GET, with 16 of them on their way at a time.
func BenchmarkForward(b *testing.B) {
	for _, engine := range []struct {
		name   string
		engine loop.Engine
	}{{"ring", loop.IOUring}, {"netpoll", loop.Netpoll}} {
		for _, size := range []struct {
			name  string
			bytes int
		}{{"1k", 1024}, {"16k", 16 << 10}} {
			b.Run("engine="+engine.name+"/bytes="+size.name, func(b *testing.B) {
				if engine.engine == loop.IOUring {
					looptest.RequireRing(b)
				}
				const clients = 16
				p := newPlain(b, engine.engine, clients, size.bytes, "", nil)
				b.ReportAllocs()
				b.SetBytes(int64(size.bytes))
				b.ResetTimer()
				for done := 0; done < b.N; done += clients {
					p.round(b, min(clients, b.N-done))
				}
			})
		}
	}
}
