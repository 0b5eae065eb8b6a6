package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// A name without an address is no reason not to start: a cluster starts in any
// order. Requests are answered, and the log says why so.
func TestUnknownUpstream(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.ProxyConfig(engine, []string{"no-such-host.invalid:80"}), nil)
		warnings := s.log.lines("level=WARN")
		require.Len(t, warnings, 1)
		assert.Contains(t, warnings[0], "upstream=up0 name=no-such-host.invalid")
		resp, err := http.Get("http://" + s.Addr())
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, 503, resp.StatusCode)
		assert.Equal(t, "1", resp.Header.Get("Retry-After"))
		assert.Contains(t, resp.Header.Get("Proxy-Status"), "error=dns_error")
	})
}

// Everything that the configuration says about upstreams reaches them.
func TestUpstreamKeys(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "app.sock"))
		require.NoError(t, err)
		answer := func(name string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name) })
		}
		unix := &httptest.Server{Listener: socket, Config: &http.Server{Handler: answer("unix")}}
		unix.Start()
		defer unix.Close()
		var checks, asked atomic.Int64
		sick := origin(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				checks.Add(1)
				w.WriteHeader(500)
				return
			}
			asked.Add(1)
		})
		_, port, _ := net.SplitHostPort(sick)
		s := launch(t, fmt.Sprintf(`
			[listen]
			address = "127.0.0.1"
			port = 0
			engine = %q
			workers = 2
			pin = false
			[[upstreams]]
			name = "socket"
			address = "unix:%s"
			max_connections = 100
			min_idle = 1
			[[upstreams]]
			name = "sick"
			address = "127.0.0.1"
			port = %s
			[upstreams.health_check]
			path = "/healthz"
			interval = "5ms"
			fall = 1
			[routing]
			strategy = "hash"
			hash = "header=X-User"
			sticky = "seat"
		`, engine, socket.Addr(), port), nil)
		eventually(t, "a check to fail", func() bool { return len(s.log.lines("upstream down")) == 1 })
		before := asked.Load()
		for i := range 20 {
			request, err := http.NewRequest("GET", "http://"+s.Addr(), nil)
			require.NoError(t, err)
			request.Header.Set("X-User", fmt.Sprint(i))
			resp, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, "unix", string(text))
			assert.True(t, strings.HasPrefix(resp.Header.Get("Set-Cookie"), "seat="))
		}
		assert.Equal(t, before, asked.Load(), "it is down")
		assert.Positive(t, checks.Load())
		assert.True(t, s.shutdown(patience))
		http.DefaultClient.CloseIdleConnections()
	})
}

// Whom the configuration trusts may say for whom it asks.
func TestTrustedProxies(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Proto"))
		})
		for networks, want := range map[string]string{
			`"127.0.0.0/8", "2001:db8::/32"`: "192.0.2.7, 127.0.0.1 https",
			`"10.0.0.0/8"`:                   "127.0.0.1 http",
		} {
			text := looptest.ProxyConfig(engine, []string{up}) + "[routing]\ntrusted_proxies = [" + networks + "]\n"
			s := launch(t, text, nil)
			request, err := http.NewRequest("GET", "http://"+s.Addr(), nil)
			require.NoError(t, err)
			request.Header.Set("X-Forwarded-For", "192.0.2.7")
			request.Header.Set("X-Forwarded-Proto", "https")
			resp, err := http.DefaultClient.Do(request)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, want, string(got))
			http.DefaultClient.CloseIdleConnections()
		}
	})
}
