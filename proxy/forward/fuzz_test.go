package forward_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// FuzzForward has an upstream say anything, and end. The client gets what
// net/http reads from the same bytes, or an error of ours, or a response that is
// visibly broken; and its next request gets its own answer.
func FuzzForward(f *testing.F) {
	for _, seed := range []string{
		ok,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\nuntil the end",
		"HTTP/1.0 200\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nab",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + ok + ok,
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 204 No Content\r\nConnection: X\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	// The fuzzer listens to signals, in a goroutine that is no leak: start it now.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	signal.Stop(signals)
	engine, _, err := loop.Choose(loop.Auto)
	require.NoError(f, err)
	e := looptest.New(f, loop.Config{Engine: engine, CPU: -1})
	var mu sync.Mutex
	var said []byte
	r := proxyOn(e, setup{}, e.Script(func(p *looptest.Peer, _ int) {
		if head := p.Head(); strings.HasPrefix(head, "GET /next ") {
			_, _ = io.WriteString(p, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext")
		} else if head != "" {
			mu.Lock()
			text := said
			mu.Unlock()
			_, _ = p.Write(text) // the proxy may have enough before the end
			_ = p.CloseWrite()
		}
		p.Gone()
	}).Address)
	f.Fuzz(func(t *testing.T, text []byte) {
		mu.Lock()
		said = text
		mu.Unlock()
		c := newClient(t, r)
		defer c.Reset() // leaves no port behind
		c.Send(get)
		resp, body, err := readFinal(c.In)
		if err != nil {
			return // visibly broken
		}
		if resp.Header.Get("Server") != "atlas" {
			want, wantBody, err := readFinal(bufio.NewReader(bytes.NewReader(text)))
			if assert.NoError(t, err, "net/http sees no whole response in %q", text) {
				assert.Equal(t, want.StatusCode, resp.StatusCode)
				assert.Equal(t, wantBody, body)
			}
		}
		if !resp.Close {
			c.Send("GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
			assert.Equal(t, "next", c.Answer("GET").Text)
		}
	})
}

func newClient(t *testing.T, r *rig) *looptest.Peer {
	return (&looptest.Env{TB: t}).Client(r.address)
}

// readFinal reads a response whole, behind interim ones.
func readFinal(in *bufio.Reader) (*http.Response, string, error) {
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return nil, "", err
		}
		if resp.StatusCode >= 200 {
			body, err := io.ReadAll(resp.Body)
			return resp, string(body), err
		}
	}
}
