package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// entry is a line of the access log.
type entry struct {
	Time                  time.Time
	Client, Peer          string
	Method, Target, Proto string
	Host, Referer, Agent  string
	RequestID             string `json:"request_id"`
	Status                int
	Bytes, Sent, Received int64
	Upstream, Address     string
	Tries                 int
	Reused                bool
	Queue                 float64 `json:"queue_ms"`
	Connect               float64 `json:"connect_ms"`
	FirstByte             float64 `json:"first_byte_ms"`
	Body                  float64 `json:"body_ms"`
	Total                 float64 `json:"total_ms"`
	TLS, Cipher           string
	Resumed               bool
	ServerName            string `json:"server_name"`
	Subject               string
	Handshake             float64 `json:"handshake_ms"`
	Error, Details        string
}

// accessLog is the file of an access log under test.
type accessLog struct {
	t    testing.TB
	path string
}

func newAccessLog(t testing.TB) (l accessLog, lines string) {
	l = accessLog{t, filepath.Join(t.TempDir(), "access.log")}
	// Latencies are counted where somebody may ask for them.
	return l, fmt.Sprintf("[admin]\naddress = \"127.0.0.1:0\"\n[access_log]\npath = %q\n", l.path)
}

// entries waits for so many lines, of which there may be no more.
func (l accessLog) entries(count int) (all []entry) {
	l.t.Helper()
	var text []byte
	eventually(l.t, fmt.Sprint(count, " lines"), func() bool {
		text, _ = os.ReadFile(l.path)
		return bytes.Count(text, []byte("\n")) >= count
	})
	for line := range bytes.Lines(text) {
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.DisallowUnknownFields()
		var e entry
		require.NoError(l.t, decoder.Decode(&e), "%s", line)
		assert.WithinDuration(l.t, time.Now(), e.Time, patience)
		all = append(all, e)
	}
	require.Len(l.t, all, count, "%s", text)
	return all
}

// settle takes away what is another one each time, once it is there.
func (e entry) settle(t testing.TB, upstream bool) entry {
	t.Helper()
	assert.Positive(t, e.Received)
	if upstream {
		assert.NotEmpty(t, e.Address)
		assert.Positive(t, e.FirstByte)
		assert.GreaterOrEqual(t, e.Total, e.FirstByte)
		assert.Equal(t, !e.Reused, e.Connect > 0)
	}
	e.Time, e.Address, e.Queue, e.Connect, e.FirstByte, e.Body, e.Total = time.Time{}, "", 0, 0, 0, 0, 0
	return e
}

func TestAccessLogStatic(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		file, lines := newAccessLog(t)
		s := launch(t, looptest.StaticConfig(t, engine, lines), nil)
		c := s.dial()
		request := "GET /a?x=%22 HTTP/1.1\r\nHost: a\r\nUser-Agent: \"me\"\r\nReferer: /b\r\nX-Request-ID: 7\r\n\r\n"
		c.send(request)
		resp, _ := c.receive()
		assert.Equal(t, 200, resp.StatusCode)
		head := "HEAD /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
		c.send(head)
		_, err := http.ReadResponse(c.in, &http.Request{Method: "HEAD"})
		require.NoError(t, err)
		missing := "GET /no HTTP/1.1\r\nHost: a\r\n\r\n"
		c.send(missing)
		resp, body := c.receive()
		assert.Equal(t, 404, resp.StatusCode)
		all := file.entries(3)
		want := []entry{
			{Client: "127.0.0.1", Method: "GET", Target: "/a?x=%22", Proto: "HTTP/1.1", Host: "a", Referer: "/b",
				Agent: `"me"`, RequestID: "7", Status: 200, Bytes: 5, Received: int64(len(request))},
			{Client: "127.0.0.1", Method: "HEAD", Target: "/a", Proto: "HTTP/1.0", Host: "a", Status: 200,
				Received: int64(len(head))},
			{Client: "127.0.0.1", Method: "GET", Target: "/no", Proto: "HTTP/1.1", Host: "a", Status: 404,
				Bytes: int64(len(body)), Received: int64(len(missing))},
		}
		for i, e := range all {
			assert.Greater(t, e.Sent, e.Bytes+50)
			e.Sent = 0
			assert.Equal(t, want[i], e.settle(t, false))
		}
	})
}

func TestAccessLogProxy(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			switch r.URL.Path {
			case "/break":
				panic(http.ErrAbortHandler)
			case "/torn":
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write(bytes.Repeat([]byte("x"), 500))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			_, _ = w.Write(body)
			_ = http.NewResponseController(w).Flush() // in chunks
			_, _ = io.WriteString(w, "more")
		})
		file, lines := newAccessLog(t)
		s := launch(t, looptest.ProxyConfig(engine, []string{up}, "[routing]", `trusted_proxies = ["127.0.0.0/8"]`,
			"server_timing = true", lines), nil)
		c := s.dial()
		c.send("POST /x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nContent-Length: 3\r\n\r\nabc")
		resp, _ := c.receive()
		assert.Regexp(t, `^connect;dur=\d+\.\d{3}, upstream;dur=\d+\.\d{3}$`, resp.Header.Get("Server-Timing"))
		c.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		resp, _ = c.receive()
		assert.Regexp(t, `^upstream;dur=\d+\.\d{3}$`, resp.Header.Get("Server-Timing"))
		c.send("POST /break HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		resp, body := c.receive()
		assert.Equal(t, 502, resp.StatusCode)
		c.send("GET /torn HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		_, _ = io.ReadAll(c.in)
		all := file.entries(4)
		assert.Equal(t, up, all[0].Address)
		for i, e := range all[:2] {
			assert.Greater(t, e.Sent, int64(7+3+4+100), "with head and chunks")
			received := e.Received
			e.Sent, e.Received = 0, 0
			all[i].Received = received
			client, peer := "192.0.2.7", "127.0.0.1"
			if i == 1 {
				client, peer = "127.0.0.1", ""
			}
			assert.Equal(t, entry{Client: client, Peer: peer, Method: "POST", Target: "/x", Proto: "HTTP/1.1", Host: "a",
				Status: 200, Bytes: 7, Upstream: "up0", Tries: 1, Reused: i == 1}, func() entry {
				e.Received = 1
				e = e.settle(t, true)
				e.Received = 0
				return e
			}())
		}
		assert.Equal(t, 502, all[2].Status)
		assert.Equal(t, "connection_terminated", all[2].Error)
		assert.EqualValues(t, len(body), all[2].Bytes)
		assert.Equal(t, "up0", all[2].Upstream)
		assert.Equal(t, 200, all[3].Status, "what the client got")
		assert.EqualValues(t, 500, all[3].Bytes)
		assert.Equal(t, "http_response_incomplete", all[3].Error)

		count := make(map[string]int64)
		for _, d := range s.stats.Distributions(nil) {
			count[d.Name+" "+d.Of] = d.Count()
		}
		assert.EqualValues(t, 4, count["phase_seconds total"], "%v", count)
		assert.EqualValues(t, 4, count["upstream_total_seconds up0"], "%v", count)
		assert.EqualValues(t, 3, count["upstream_first_byte_seconds up0"], "%v", count)
		assert.NotZero(t, count["phase_seconds connect"], "%v", count)
	})
}

// Requests that no handler sees, and clients that leave, have a line as well.
func TestAccessLogRefused(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		asked, left := make(chan struct{}), make(chan struct{})
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
			close(left)
		})
		file, lines := newAccessLog(t)
		s := launch(t, looptest.ProxyConfig(engine, []string{up}, "[timeouts]", `header = "1s"`, lines), nil)

		c := s.dial()
		c.send("GET /bad HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n")
		resp, _ := c.receive()
		assert.Equal(t, 400, resp.StatusCode)
		require.NoError(t, c.Close())
		e := file.entries(1)[0]
		assert.Equal(t, "GET /bad 400 http_request_error", fmt.Sprint(e.Method, " ", e.Target, " ", e.Status, " ", e.Error))
		assert.NotEmpty(t, e.Details)
		assert.Positive(t, e.Bytes)

		c = s.dial()
		c.send("GET /slow HTTP/1.1\r\nHost:")
		resp, _ = c.receive()
		assert.Equal(t, 408, resp.StatusCode)
		require.NoError(t, c.Close())
		e = file.entries(2)[1]
		assert.Equal(t, "GET /slow 408", fmt.Sprint(e.Method, " ", e.Target, " ", e.Status))
		assert.GreaterOrEqual(t, e.Total, 900.0)

		c = s.dial()
		c.send("GET /part HTTP/1.1\r\nHost:")
		require.NoError(t, c.Close())
		e = file.entries(3)[2]
		assert.Equal(t, "GET /part 499 client_gone", fmt.Sprint(e.Method, " ", e.Target, " ", e.Status, " ", e.Error))

		c = s.dial()
		c.send("GET /think HTTP/1.1\r\nHost: a\r\n\r\n")
		<-asked
		require.NoError(t, c.SetLinger(0))
		require.NoError(t, c.Close())
		<-left
		e = file.entries(4)[3]
		assert.Equal(t, "GET /think 499 client_gone", fmt.Sprint(e.Method, " ", e.Target, " ", e.Status, " ", e.Error))
		assert.Equal(t, "up0", e.Upstream)

		// Connections on which nothing was asked are no exchanges.
		c = s.dial()
		require.NoError(t, c.Close())
		assert.True(t, s.shutdown(patience))
		file.entries(4)
	})
}

func TestAccessLogTLS(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		file, lines := newAccessLog(t)
		ca := k.WriteCert(t, k.dir, "ca")
		s := launch(t, looptest.StaticConfig(t, engine, "[listen.tls]", k.pair("a", "a.test"), fmt.Sprintf("client_ca = %q", ca),
			lines), nil)
		cert := k.Issue(t, looptest.Leaf{Names: []string{"somebody"}})
		c := k.client("a.test", cert)
		for range 2 {
			fetch(t, c, "https://"+s.Addr()+"/a")
		}
		all := file.entries(2)
		for i, e := range all {
			assert.Equal(t, "TLSv1.3", e.TLS)
			assert.Contains(t, e.Cipher, "TLS_")
			assert.Equal(t, "a.test", e.ServerName)
			assert.Equal(t, cert.Leaf.Subject.String(), e.Subject)
			assert.Equal(t, i == 0, e.Handshake > 0, "with the first one")
		}
	})
}

func TestAccessLogTCP(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		file, lines := newAccessLog(t)
		s := launch(t, tcpConfig(engine, []string{forwarded(t)}, "", lines), nil)
		c := s.dial()
		c.get("/")
		require.NoError(t, c.Close())
		e := file.entries(1)[0]
		assert.Equal(t, "TCP", e.Proto)
		assert.Equal(t, "127.0.0.1", e.Client)
		assert.Equal(t, "up0", e.Upstream)
		assert.EqualValues(t, len("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), e.Received)
		assert.Greater(t, e.Sent, int64(50))
		assert.Positive(t, e.Connect)
		assert.Zero(t, e.Status)
		assert.Empty(t, e.Error)
	})
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		file, lines := newAccessLog(t)
		s := launch(t, tcpConfig(engine, []string{"127.0.0.1:1"}, "", lines), nil)
		if c, err := net.Dial("tcp", s.Addr()); err == nil { // it may be reset already
			_, _ = io.ReadAll(c)
			_ = c.Close()
		}
		e := file.entries(1)[0]
		assert.Equal(t, "connection_refused", e.Error)
		assert.Equal(t, 1, e.Tries)
	})
}

// A handler that panics is an exchange that failed.
func TestAccessLogPanic(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		file, lines := newAccessLog(t)
		s := launch(t, looptest.StaticConfig(t, engine, lines), func(exchange.Handler) exchange.Handler {
			return handlerFunc(func(*exchange.Exchange) { panic("broken") })
		})
		c := s.dial()
		c.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
		_, _ = io.ReadAll(c)
		e := file.entries(1)[0]
		assert.Equal(t, "/a 500 proxy_internal_error panic", fmt.Sprint(e.Target, " ", e.Status, " ", e.Error, " ", e.Details))
	})
}

type handlerFunc func(*exchange.Exchange)

func (h handlerFunc) Handle(x *exchange.Exchange) { h(x) }

// An upgraded connection is one exchange with all of its bytes, and no latency.
func TestAccessLogUpgrade(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
			_, _ = io.CopyN(conn, rw, 1000)
		})
		file, lines := newAccessLog(t)
		s := launch(t, looptest.ProxyConfig(engine, []string{up}, lines), nil)
		c := s.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		resp, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		assert.Equal(t, 101, resp.StatusCode)
		c.send(strings.Repeat("x", 1000))
		_, err = io.CopyN(io.Discard, c.in, 1000)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		e := file.entries(1)[0]
		assert.Equal(t, 101, e.Status)
		assert.EqualValues(t, 1000, e.Bytes)
		assert.Greater(t, e.Received, int64(1050))
		for _, d := range s.stats.Distributions(nil) {
			assert.False(t, strings.HasSuffix(d.Name, "total_seconds") && d.Count() > 0, d.Name)
		}
	})
}

// Of what goes well a sample is logged, of what fails all.
func TestAccessLogSample(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		file, lines := newAccessLog(t)
		s := launch(t, looptest.StaticConfig(t, engine, lines, "sample = 1000000"), nil)
		c := s.dial()
		for range 50 {
			c.get("/a")
		}
		c.send("GET /a HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n")
		resp, _ := c.receive()
		assert.Equal(t, 400, resp.StatusCode)
		require.NoError(t, c.Close())
		assert.True(t, s.shutdown(patience))
		assert.Equal(t, 400, file.entries(1)[0].Status)
	})
}
