package server

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// script is an upstream that speaks TLS and does what a test says.
func (k *keys) script(name string, serve func(c *tls.Conn, head string)) (address string, accepted *atomic.Int64) {
	k.t.Helper()
	cert := k.Issue(k.t, looptest.Leaf{Names: []string{name}})
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}})
	require.NoError(k.t, err)
	accepted = new(atomic.Int64)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() {
				c := raw.(*tls.Conn)
				defer c.NetConn().Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				var head strings.Builder
				for in := bufio.NewReader(c); ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
					if line == "\r\n" {
						serve(c, head.String())
						head.Reset()
					}
				}
			}()
		}
	}()
	k.t.Cleanup(func() {
		_ = ln.Close()
		<-ended
	})
	return ln.Addr().String(), accepted
}

// toUpstream is a configuration for an upstream of the authority.
func (k *keys) toUpstream(engine loop.Engine, address, name string, more ...string) string {
	lines := append([]string{"tls = true", fmt.Sprintf("server_name = %q", name),
		fmt.Sprintf("ca = %q", k.WriteCert(k.t, k.dir, "ca"))}, more...)
	return looptest.ProxyConfig(engine, []string{address}, lines...)
}

// A body that ends with its connection ends by close_notify, or it is cut.
func TestTruncatedResponse(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		up, _ := k.script("up.test", func(c *tls.Conn, head string) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nall there is")
			if strings.HasPrefix(head, "GET /whole ") {
				_ = c.CloseWrite()
			}
			_ = c.NetConn().(*net.TCPConn).CloseWrite()
		})
		s := launch(t, k.toUpstream(engine, up, "up.test", "[listen.tls]", k.pair("a", "a.test")), nil)
		for path, whole := range map[string]bool{"/whole": true, "/cut": false} {
			resp, err := k.client("a.test").Get("https://" + s.Addr() + path)
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			assert.Equal(t, "all there is", string(text))
			assert.Equal(t, whole, err == nil, "%s: %v", path, err)
			require.NoError(t, resp.Body.Close())
		}
		assert.EqualValues(t, 1, s.count("upstream_errors_total", "reset"))
	})
}

// A client that leaves in order, with close_notify, ends the wait for its response.
func TestClientLeavesTLS(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		asked, ended := make(chan struct{}), make(chan struct{})
		up := k.origin("up.test", func(_ http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
		})
		s := launch(t, k.toUpstream(engine, up, "up.test", "[listen.tls]", k.pair("a", "a.test")), nil)
		for range 3 {
			c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
			require.NoError(t, err)
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			<-asked
			require.NoError(t, c.Close())
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatal("the upstream was left waiting")
			}
		}
	})
}

// Connections to upstreams are kept, also such that were made to be kept and have
// got their session tickets since; they resume sessions; health is asked by TLS.
func TestKeptTLS(t *testing.T) {
	skipShort(t)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		var checks atomic.Int64
		up, accepted := k.script("up.test", func(c *tls.Conn, head string) {
			if strings.HasPrefix(head, "GET /health ") {
				checks.Add(1)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				_ = c.Close()
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		})
		s := launch(t, k.toUpstream(engine, up, "up.test", "min_idle = 2", "[upstreams.health_check]",
			`path = "/health"`, `interval = "200ms"`), nil)
		eventually(t, "a health check", func() bool { return checks.Load() > 0 })
		const kept = 2 * 2 // for each worker
		eventually(t, "the idle ones", func() bool { return accepted.Load()-checks.Load() >= kept })
		time.Sleep(2500 * time.Millisecond) // they would be made anew each second
		c := s.dial()
		for range 20 {
			assert.Equal(t, "hello", c.get("/"))
		}
		eventually(t, "the check that is under way", func() bool { return accepted.Load()-checks.Load() == kept })
		assert.Zero(t, s.count("upstream_errors_total", "tls"))
	})
}

// An upgraded connection is a tunnel through TLS on both sides, whose ends are
// passed on.
func TestTunnelTLS(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		up, _ := k.script("up.test", func(c *tls.Conn, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(c, c)
			_ = c.CloseWrite()
		})
		s := launch(t, k.toUpstream(engine, up, "up.test", "[listen.tls]", k.pair("a", "a.test")), nil)
		c, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
		require.NoError(t, err)
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
		require.NoError(t, err)
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, 101, resp.StatusCode)
		body := looptest.Pattern(1 << 20)
		go func() {
			_, err := c.Write(body)
			assert.NoError(t, err)
			assert.NoError(t, c.CloseWrite())
		}()
		got, err := io.ReadAll(in)
		assert.NoError(t, err, "close_notify comes back")
		assert.Equal(t, len(body), len(got))
		assert.Equal(t, string(body), string(got))
		require.NoError(t, c.Close())
		assert.True(t, s.shutdown(patience))
	})
}

// New authorities of an upstream are taken over from their file; such as are none
// leave the old ones in use.
func TestUpstreamAuthorities(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		first, second := newKeys(t), newKeys(t)
		hello := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }
		ca := first.WriteCert(t, first.dir, "ca")
		s := launch(t, looptest.ProxyConfig(engine, []string{first.origin("up.test", hello)}, "tls = true", `server_name = "up.test"`,
			fmt.Sprintf("ca = %q", ca)), nil)
		c := s.dial()
		assert.Equal(t, "hello", c.get("/"))
		status := func() int {
			c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, _ := c.receive()
			return resp.StatusCode
		}
		require.NoError(t, os.WriteFile(ca, []byte("nothing\n"), 0o644))
		eventually(t, "the complaint", func() bool { return len(s.log.lines("there is no certificate in it")) > 0 })
		assert.Equal(t, 200, status())
		second.WriteCert(t, first.dir, "ca")
		eventually(t, "the upstream to be trusted no more", func() bool { return status() == 502 })
		first.WriteCert(t, first.dir, "ca")
		eventually(t, "the upstream to be trusted again", func() bool { return status() == 200 })
		assert.NotEmpty(t, s.log.lines("authorities of upstreams"))
	})
}
