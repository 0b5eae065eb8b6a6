package server

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// asks makes requests, each with these lines, over connections in turn, and counts
// those that get 200; all others get 429. most is how many may, in this time.
func asks(t *testing.T, conns []*client, requests, perSecond, burst int, lines string) (ok, most int) {
	t.Helper()
	begin := time.Now()
	for i := range requests {
		c := conns[i%len(conns)]
		c.send("GET /a HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n")
		resp, body := c.receive()
		if resp.StatusCode == 200 {
			ok++
			continue
		}
		require.Equal(t, 429, resp.StatusCode, body)
		assert.Equal(t, fmt.Sprintf("\"requests\";q=%d;w=%d", burst, (burst+perSecond-1)/perSecond), resp.Header.Get("RateLimit-Policy"))
		assert.Equal(t, `"requests";r=0;t=1`, resp.Header.Get("RateLimit"))
		assert.Equal(t, "1", resp.Header.Get("Retry-After"))
		assert.Equal(t, "429 Too Many Requests: this client makes more requests than it may\n", body)
	}
	return ok, burst + int(time.Since(begin).Seconds()*float64(perSecond)) + 1
}

// within wants as many requests to succeed as may.
func within(t *testing.T, conns []*client, requests, perSecond, burst int, lines string) {
	t.Helper()
	ok, most := asks(t, conns, requests, perSecond, burst, lines)
	assert.GreaterOrEqual(t, ok, burst)
	assert.LessOrEqual(t, ok, most)
}

func (r *running) conns(n int) (all []*client) {
	for range n {
		all = append(all, r.dial())
	}
	return all
}

// A client has one bucket, whatever worker its connections have come to. The
// connections stay.
func TestRequestsPerSecond(t *testing.T) {
	const rated = "[limits]\nrequests_per_second = 2\nburst = 7\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine, rated), nil)
		conns := s.conns(8)
		within(t, conns, 40, 2, 7, "")
		refused := s.count("client_errors_total", "rate_limited")
		assert.GreaterOrEqual(t, refused, int64(20))
		within(t, []*client{dialFrom(t, "127.0.0.9", s.Addr())}, 10, 2, 7, "")

		eventually(t, "the log", func() bool { return len(s.log.lines("status=429")) > 0 })
		line := s.log.lines("status=429")[0]
		assert.Contains(t, line, "level=INFO")
		assert.Contains(t, line, "client=127.0.0.1")
		assert.Less(t, len(s.log.lines("status=429")), 10, "not a line for each")

		// A reload changes what is there, and what was used is known.
		s.limits.set(parse(t, looptest.StaticConfig(t, engine, "[limits]\nrequests_per_second = 1000000\n")), s.Server.log)
		eventually(t, "what was owed to be forgiven", func() bool {
			conns[0].send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, _ := conns[0].receive()
			return resp.StatusCode == 200
		})
		for range 50 {
			conns[0].get("/a")
		}
	})
}

// A request that is refused takes its body with it, or the connection.
func TestRateLimitedBodies(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
		s := launch(t, looptest.ProxyConfig(engine, []string{up}, "[limits]\nrequests_per_second = 1\n"), nil)
		c := s.dial()
		c.get("/")
		for range 3 {
			c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
			resp, _ := c.receive()
			if resp.StatusCode == 200 {
				continue // a second has gone by
			}
			assert.Equal(t, 429, resp.StatusCode)
			assert.Contains(t, resp.Header.Get("Proxy-Status"), "error=http_request_error")
			assert.False(t, resp.Close)
		}
		c.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		resp, _ := c.receive()
		if resp.StatusCode == 429 {
			assert.True(t, resp.Close, "the body may come, or not")
			c.ends()
		}
	})
}

// Whose bucket it is: that of the client that a trusted proxy names, that of a
// PROXY header, or that of a field.
func TestRateBy(t *testing.T) {
	const rated = "[limits]\nrequests_per_second = 1\nburst = 3\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(http.ResponseWriter, *http.Request) {})
		trusting := "[routing]\ntrusted_proxies = [\"127.0.0.0/8\"]\n"
		s := launch(t, looptest.ProxyConfig(engine, []string{up}, rated, trusting), nil)
		within(t, s.conns(4), 8, 1, 3, "X-Forwarded-For: 192.0.2.1\r\n")
		within(t, s.conns(4), 8, 1, 3, "X-Forwarded-For: 192.0.2.2\r\n")
		within(t, s.conns(4), 8, 1, 3, "X-Forwarded-For: 2001:db8::1\r\n")

		s = launch(t, looptest.ProxyConfig(engine, []string{up}, rated+"rate_by = \"header=X-Key\"\n"), nil)
		within(t, s.conns(4), 8, 1, 3, "x-key: one\r\n")
		within(t, s.conns(4), 8, 1, 3, "X-Key: two\r\n")
		within(t, s.conns(4), 8, 1, 3, "")

		s = launch(t, accepting(looptest.StaticConfig(t, engine, rated)), nil)
		for _, address := range []string{"192.0.2.1", "192.0.2.2"} {
			c := s.dial()
			c.send("PROXY TCP4 " + address + " 198.51.100.1 40000 443\r\n")
			within(t, []*client{c}, 8, 1, 3, "")
		}

		k := newKeys(t)
		s = launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test"), rated), nil)
		web := k.client("a.test")
		codes := make(map[int]int)
		for range 12 {
			resp, err := web.Get("https://" + s.Addr() + "/a")
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			codes[resp.StatusCode]++
		}
		assert.GreaterOrEqual(t, codes[200], 3)
		assert.NotZero(t, codes[429])
	})
}

// turnedAway wants a new connection to be reset, be it while it is made.
func (r *running) turnedAway() {
	r.t.Helper()
	c, err := net.DialTimeout("tcp", r.Addr(), patience)
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	assert.ErrorIs(r.t, err, syscall.ECONNRESET)
}

func TestConnectionsPerIP(t *testing.T) {
	const two = "[limits]\nconnections_per_ip = 2\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine, two), nil)
		first, second := s.dial(), s.dial()
		first.get("/a")
		second.get("/a")
		for range 8 { // on either worker
			s.turnedAway()
		}
		assert.EqualValues(t, 8, s.count("client_errors_total", "peer_connections"))
		dialFrom(t, "127.0.0.9", s.Addr()).get("/a")
		require.NoError(t, first.Close())
		eventually(t, "it to be gone", func() bool { return s.limits.gate.Open() == 2 })
		third := s.dial()
		third.get("/a")
		second.get("/a")
		s.turnedAway()
		eventually(t, "the log", func() bool { return len(s.log.lines("connections_per_ip")) == 1 })
		assert.Contains(t, s.log.lines("connections_per_ip")[0], "client=127.0.0.1")

		s.limits.set(parse(t, looptest.StaticConfig(t, engine, "[limits]\nconnections_per_ip = 3\n")), s.Server.log)
		s.dial().get("/a")
		s.turnedAway()
		require.NoError(t, third.Close())
		assert.True(t, s.shutdown(patience))
		assert.Zero(t, s.limits.peers.Len())
	})
}

// Before TLS has cost anything; behind a PROXY header that of the client counts,
// and the proxies themselves may have any number.
func TestConnectionsPerIPBehind(t *testing.T) {
	const two = "[limits]\nconnections_per_ip = 2\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		secured := looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test"), two)
		s := launch(t, secured, nil)
		handshake := func(c *client) error {
			return tls.Client(c, &tls.Config{RootCAs: k.Pool, ServerName: "a.test"}).Handshake()
		}
		require.NoError(t, handshake(s.dial()))
		require.NoError(t, handshake(s.dial()))
		s.turnedAway()
		// The client has finished before the worker counts.
		eventually(t, "the count", func() bool { return s.count("tls_handshakes_total", "") == 2 })
		assert.Zero(t, s.count("client_errors_total", "handshake_failed"))

		s = launch(t, accepting(secured), nil)
		proxied := func(address string) *client {
			c := s.dial()
			c.send("PROXY TCP4 " + address + " 198.51.100.1 40000 443\r\n")
			return c
		}
		require.NoError(t, handshake(proxied("192.0.2.1")))
		require.NoError(t, handshake(proxied("192.0.2.1")))
		require.NoError(t, handshake(proxied("192.0.2.2")))
		assert.ErrorIs(t, handshake(proxied("192.0.2.1")), syscall.ECONNRESET)
		for range 3 {
			c := s.dial()
			c.send("PROXY UNKNOWN\r\n")
			require.NoError(t, handshake(c), "the proxy's own")
		}

		up := origin(t, func(http.ResponseWriter, *http.Request) {})
		s = launch(t, looptest.ProxyConfig(engine, []string{up}, two, "[routing]\ntrusted_proxies = [\"127.0.0.1\"]\n"), nil)
		for _, c := range s.conns(5) {
			c.get("/")
		}
	})
}

// As many as are allowed are served, whatever worker they have come to, and who
// waits is served as soon as one of them has gone.
func TestConnections(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine, "[limits]\nconnections = 3\n"), nil)
		const half = "GET /a HTTP/1.1\r\nHost: a\r\n"
		crowd := s.conns(20)
		for _, c := range crowd {
			c.send(half) // busy: nobody ends it for being idle
		}
		eventually(t, "three to be served", func() bool { return s.limits.gate.Open() == 3 })
		eventually(t, "the log", func() bool { return len(s.log.lines("[limits] connections")) == 1 })
		served := make(chan int)
		for i, c := range crowd {
			go func() {
				c.send("Connection: close\r\n\r\n")
				if resp, err := http.ReadResponse(c.in, nil); err == nil && resp.StatusCode == 200 {
					served <- i
					return
				}
				served <- -1
			}()
		}
		for range crowd {
			assert.NotEqual(t, -1, <-served)
			assert.LessOrEqual(t, s.limits.gate.Open(), int64(3))
		}
		for _, c := range crowd {
			require.NoError(t, c.Close())
		}
		eventually(t, "all to be gone", func() bool { return s.limits.gate.Open() == 0 })
	})
}

// The limit is what the system allows, as far as it allows it.
func TestConnectionsByDefault(t *testing.T) {
	for _, row := range []struct {
		name        string
		mode        config.Mode
		asked       int
		descriptors int
		want        int
		log         string
	}{
		{"http: upstreams need some", config.HTTP, 0, 20_000, 15_000, ""},
		{"tcp, the same", config.TCP, 0, 20_000, 15_000, ""},
		{"static: files need few", config.Static, 0, 20_000, 19_744, ""},
		{"static with next to none", config.Static, 0, 256, 192, "few file descriptors"},
		{"few", config.HTTP, 0, 1024, 768, "few file descriptors"},
		{"as asked", config.HTTP, 500, 1024, 500, ""},
		{"more than there are", config.HTTP, 5000, 1024, 5000, "leaves too few"},
	} {
		t.Run(row.name, func(t *testing.T) {
			book := new(logBook)
			cfg := &config.Config{Listen: config.Listen{Mode: row.mode}, Limits: config.Limits{Connections: row.asked}}
			assert.Equal(t, row.want, connectionsMax(cfg, row.descriptors, book.logger()))
			if row.log == "" {
				assert.Empty(t, book.lines(""))
			} else {
				assert.Len(t, book.lines(row.log), 1)
			}
		})
	}
}

// A process that may raise its limit of descriptors does, and says what it has.
func TestDescriptorsAreRaised(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		c := prepare(t, looptest.StaticConfig(t, engine))
		c.cmd.Path = "/bin/sh"
		c.cmd.Args = []string{"sh", "-c", "ulimit -Sn 100 && ulimit -Hn 900 && exec \"$0\"", os.Args[0]}
		require.NoError(t, looptest.Start(c.cmd))
		c.started().listening()
		line := strings.Join(c.log.lines("few file descriptors"), "")
		raised := regexp.MustCompile(`connections=(\d+) descriptors=(899|900)`).FindStringSubmatch(line) // Go leaves one
		require.NotNil(t, raised, line)
		descriptors, _ := strconv.Atoi(raised[2])
		assert.Equal(t, strconv.Itoa(descriptors-staticReserve), raised[1])
	})
}

// Where there is no descriptor for a file, the client is told that it is a matter
// of time, and it is.
func TestNoDescriptorForAFile(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		s := launch(t, text, nil)
		root := parse(t, text).StaticFiles.Root
		require.NoError(t, os.WriteFile(filepath.Join(root, "b"), []byte("there"), 0o644))
		c := s.dial()
		c.get("/a")
		var old syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}))
		c.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, _ := c.receive()
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "1", resp.Header.Get("Retry-After"))
		assert.Equal(t, "there", c.get("/b"))
		assert.EqualValues(t, 1, s.count("file_scarcities_total", ""))
		eventually(t, "the log", func() bool { return len(s.log.lines("status=503")) == 1 })
		assert.Contains(t, s.log.lines("status=503")[0], "too many open files")
	})
}

// What a limit has to say comes to the log once in a while, with how often it was.
func TestNotices(t *testing.T) {
	book := new(logBook)
	l := &limits{failures: startFailures(slog.New(slog.NewTextHandler(book, nil)))}
	for range 5 {
		l.held(syscall.EMFILE)
		l.held(loop.ErrFull)
	}
	l.told[noticeScarce].next.Store(0)
	l.held(syscall.EMFILE)
	l.failures.stop()
	require.Len(t, book.lines("no descriptors"), 2)
	assert.Contains(t, book.lines("no descriptors")[0], `cause="too many open files" times=1`)
	assert.Contains(t, book.lines("no descriptors")[1], "times=5")
	assert.Len(t, book.lines("[limits] connections"), 1)
}
