package forward_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// Where this process has no descriptor left, no upstream is to blame: none is
// ejected, no other one is tried.
func TestNoDescriptors(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{strategy: balance.RoundRobin}, e.Script(named("a")).Address, e.Script(named("b")).Address)
		c := r.Client(r.address)
		c.Send("OPTIONS / HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n") // so that it is accepted, and no upstream asked
		require.Equal(t, 200, c.Answer("OPTIONS").StatusCode)
		var old syscall.Rlimit
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: old.Max}))
		for range 4 {
			c.Send(get)
			resp := c.Answer("GET")
			assert.Equal(t, 503, resp.StatusCode)
			assert.Equal(t, "1", resp.Header.Get("Retry-After"))
			assert.Contains(t, resp.Header.Get("Proxy-Status"), "error=proxy_internal_error")
		}
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old))
		assert.Equal(t, map[string]int{"a": 2, "b": 2}, spread(c, get, 4))
		scarce := stats.Scarce
		r.blamed(nil, []stats.UpstreamError{scarce, scarce, scarce, scarce})
		assert.Zero(t, r.stats.Retries.Load())
	})
}
