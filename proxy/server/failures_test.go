package server

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// A client that gives up leaves one line in the log, and so does an upstream that
// breaks off. What went well leaves none.
func TestFailuresLogged(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		asked, left := make(chan struct{}), make(chan struct{})
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/think":
				close(asked)
				<-r.Context().Done() // the proxy has closed
				close(left)
			case "/break":
				panic(http.ErrAbortHandler)
			default:
				_, _ = io.WriteString(w, r.Header.Get("Via"))
			}
		})
		s := launch(t, looptest.ProxyConfig(engine, []string{up}), nil)
		c := s.dial()
		assert.Equal(t, "1.1 "+s.pseudonym, c.get("/fine"))
		assert.Regexp(t, "^atlas-[0-9a-f]{8}$", s.pseudonym)

		c.send("GET /break?x HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, _ := c.receive()
		assert.Equal(t, 502, resp.StatusCode)
		assert.Equal(t, s.pseudonym+`; error=connection_terminated; next-hop="up0"`, resp.Header.Get("Proxy-Status"))
		c.send("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 " + s.pseudonym + "\r\n\r\n")
		resp, _ = c.receive()
		assert.Equal(t, 508, resp.StatusCode)

		gone := s.dial()
		gone.send("GET /think HTTP/1.1\r\nHost: a\r\n\r\n")
		<-asked
		time.Sleep(20 * time.Millisecond)
		assert.NoError(t, gone.Close())
		<-left
		eventually(t, "the log", func() bool { return len(s.log.lines("exchange failed")) == 3 })
		lines := s.log.lines("exchange failed")
		assert.Contains(t, lines[0], `level=WARN msg="exchange failed" status=502 client=127.0.0.1 method=GET target=/break?x `+
			`upstream=up0 side=upstream step="read response head" why="the upstream closed the connection before it answered"`)
		assert.Contains(t, lines[1], `level=WARN msg="exchange failed" status=508 client=127.0.0.1 method=GET target=/ side=proxy`)
		assert.Contains(t, lines[2], `level=INFO msg="exchange failed" status=499 client=127.0.0.1 method=GET target=/think `+
			`upstream=up0 side=client step="read response head" why="the client went away"`)
	})
}

// An origin server has no Proxy-Status to send, and adds no Via.
func TestStaticSaysNoProxyStatus(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		for _, request := range []string{"GET /missing HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"} {
			c := s.dial()
			c.send(request)
			resp, _ := c.receive()
			assert.GreaterOrEqual(t, resp.StatusCode, 400)
			assert.NotContains(t, resp.Header, "Proxy-Status")
		}
	})
}

// slowLog takes its time for the first line.
type slowLog struct {
	text    bytes.Buffer
	writing chan struct{}
	release chan struct{}
}

func (l *slowLog) Write(p []byte) (int, error) {
	select {
	case l.writing <- struct{}{}:
		<-l.release
	default:
	}
	return l.text.Write(p)
}

// Whoever reports a failure never waits for the log: what is too much is counted.
func TestFailuresDropped(t *testing.T) {
	book := &slowLog{writing: make(chan struct{}, 1), release: make(chan struct{})}
	f := startFailures(slog.New(slog.NewTextHandler(book, nil)))
	record := exchange.Failure{
		Fault: exchange.Fault{Status: 502, Why: "why", Details: "label", Cause: errors.New("cause")},
		Sent:  200, Client: netip.MustParseAddr("2001:db8::1"), Method: "GET", Target: "/",
	}
	f.add(record)
	eventually(t, "the first line", func() bool { return len(f.queue) == 0 })
	for range failuresQueued + 7 {
		f.add(record)
	}
	close(book.release)
	f.stop()
	text := book.text.String()
	assert.Equal(t, failuresQueued+1, bytes.Count([]byte(text), []byte("exchange failed")))
	assert.Equal(t, 1, bytes.Count([]byte(text), []byte(" dropped=7\n")))
	assert.Contains(t, text, `status=502 client=2001:db8::1 method=GET target=/ side="" step="" why=why details=label cause=cause sent=200`)
	assert.Zero(t, f.dropped.Load())
}
