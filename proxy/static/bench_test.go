package static

import (
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/accesslog"
	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// skipInvariant skips what counts allocations: the race detector and the
// invariants, which run with it, make some of their own.
func skipInvariant(t testing.TB) {
	t.Helper()
	if invariant.Enabled {
		t.Skip("invariants allocate")
	}
}

// rawClient asks for one file on several connections at once, again and again,
// and allocates nothing.
type rawClient struct {
	conns    []*net.TCPConn
	next     int // connection whose response is read next
	request  []byte
	response []byte // of one response; they are all as long
}

func newRawClient(s *site, target string, conns int, fields ...string) *rawClient {
	lines := strings.Join(append(fields, ""), "\r\n")
	c := &rawClient{request: []byte("GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + lines + "\r\n")}
	for range conns {
		conn := s.Dial(s.address)
		require.NoError(s, conn.SetDeadline(time.Time{}))
		c.conns = append(c.conns, conn)
	}
	first := s.Client(s.address)
	first.Send(string(c.request))
	head := first.Head()
	body := 0
	if _, length, has := strings.Cut(head, "Content-Length: "); has {
		length, _, _ = strings.Cut(length, "\r\n")
		var err error
		body, err = strconv.Atoi(length)
		require.NoError(s, err)
	}
	first.Text(body)
	c.response = make([]byte, len(head)+body)
	return c
}

// ask is one response. A request goes out on every connection before the first
// of their responses is read, so that the server has several to answer.
func (c *rawClient) ask() error {
	if c.next == 0 {
		for _, conn := range c.conns {
			if _, err := conn.Write(c.request); err != nil {
				return err
			}
		}
	}
	_, err := io.ReadFull(c.conns[c.next], c.response)
	c.next = (c.next + 1) % len(c.conns)
	return err
}

// TestAllocsPerRequest: a request for a cached file, or for a part of it, or
// whether it has changed, allocates nothing on the ring, from the socket to the
// socket, the line of the access log included. The whole process is counted while one
// client asks: what remains is the look at the file once a second, and the
// runtime itself. The fallback engine has a bound, so that it stays few.
func TestAllocsPerRequest(t *testing.T) {
	skipInvariant(t)
	const requests = 2000
	most := map[loop.Engine]float64{loop.IOUring: 0.05, loop.Netpoll: 2}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		log := accessLog(t)
		s := newSite(t, engine, func(set *settings) { set.client.Log, set.client.Timed = log, true })
		s.write("small", looptest.Pattern(1<<10))
		s.write("large", looptest.Pattern(64<<10))
		s.write("coded", looptest.Pattern(1<<10))
		s.write("coded.br", looptest.Pattern(300))
		for _, row := range []struct {
			name, status, target string
			fields               []string
		}{
			{"1 KB", "200", "/small", nil},
			{"64 KB", "200", "/large", nil},
			{"coded", "200", "/coded", []string{"Accept-Encoding: gzip, deflate, br, zstd"}},
			{"unchanged", "304", "/small", []string{"If-None-Match: *"}},
			{"unchanged since", "304", "/small", []string{"If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"}},
			{"part", "206", "/large", []string{"Range: bytes=100-199"}},
			{"large part", "206", "/large", []string{"Range: bytes=100-"}},
		} {
			head := s.dial().ask("GET "+row.target, row.fields...)
			require.Equal(t, row.status, head.Status[:3])
			c := newRawClient(s, row.target, 8, row.fields...)
			run := func() uint64 {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range requests {
					if err := c.ask(); err != nil {
						require.NoError(t, err)
					}
				}
				runtime.ReadMemStats(&after)
				return after.Mallocs - before.Mallocs
			}
			run()
			per := float64(run()) / requests
			t.Logf("%s: %.5f allocations a request", row.name, per)
			assert.Less(t, per, most[engine], row.name)
		}
	})
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

// BenchmarkStatic is the handler over loopback, worker and client in one
// process: good for allocations and for what changed, not for how fast it is.
func BenchmarkStatic(b *testing.B) {
	for _, engine := range []struct {
		name string
		loop loop.Engine
	}{{"ring", loop.IOUring}, {"netpoll", loop.Netpoll}} {
		for _, size := range []struct {
			name  string
			bytes int
		}{{"1k", 1 << 10}, {"64k", 64 << 10}} {
			b.Run("engine="+engine.name+"/bytes="+size.name, func(b *testing.B) {
				if engine.loop == loop.IOUring {
					looptest.RequireRing(b)
				}
				if procs := engine.loop.Procs(1); runtime.GOMAXPROCS(0) < procs {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs)) // as the server does
				}
				s := newSite(b, engine.loop)
				s.write("file", looptest.Pattern(size.bytes))
				c := newRawClient(s, "/file", 32)
				b.SetBytes(int64(len(c.response)))
				b.ReportAllocs()
				for b.Loop() {
					if err := c.ask(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
