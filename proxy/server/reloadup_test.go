package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// counted is an upstream that says its name and counts its connections.
func counted(t testing.TB, name string) (address string, open, total *atomic.Int64) {
	t.Helper()
	open, total = new(atomic.Int64), new(atomic.Int64)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name) }),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
				total.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		},
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln) // it ends when it is closed
	}()
	t.Cleanup(func() {
		assert.NoError(t, s.Close())
		<-served
	})
	return ln.Addr().String(), open, total
}

// Upstreams that stay keep their connections and their health; those that go lose
// their idle connections at once.
func TestReloadUpstreams(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		a, openA, totalA := counted(t, "a")
		b, openB, _ := counted(t, "b")
		named := func(strategy string, weights ...int) string {
			text := looptest.ProxyConfig(engine, nil, fmt.Sprintf("[routing]\nstrategy = %q\n", strategy))
			for i, address := range []string{a, b} {
				if i < len(weights) {
					_, port, _ := net.SplitHostPort(address)
					text += fmt.Sprintf("[[upstreams]]\nname = \"%c\"\naddress = \"127.0.0.1\"\nport = %s\nweight = %d\n",
						'a'+i, port, weights[i])
				}
			}
			return text
		}
		s := launch(t, named("round_robin", 1, 1), nil)
		c := s.dial()
		got := func(n int) (answers map[string]int) {
			answers = make(map[string]int)
			for range n {
				answers[c.get("/")]++
			}
			return answers
		}
		assert.Equal(t, map[string]int{"a": 5, "b": 5}, got(10))
		before := totalA.Load()
		require.NoError(t, s.use(named("round_robin", 1, 4)))
		assert.Equal(t, map[string]int{"a": 2, "b": 8}, got(10), "weights are live")
		require.NoError(t, s.use(named("round_robin", 1, 0)))
		assert.Equal(t, map[string]int{"a": 10}, got(10))
		for _, strategy := range []string{"least_connections", "random", "peak_ewma", "ip_hash", "p2c"} {
			require.NoError(t, s.use(named(strategy, 1, 1)))
			assert.Equal(t, 40, func() (n int) {
				for _, m := range got(40) {
					n += m
				}
				return n
			}())
			assert.Zero(t, s.group.Active(), "what is in flight is counted right, whoever counts")
		}
		assert.Equal(t, before, totalA.Load(), "no connection was made anew")
		assert.EqualValues(t, 1, openB.Load())
		require.NoError(t, s.use(named("round_robin", 1)))
		eventually(t, "the idle connection to close", func() bool { return openB.Load() == 0 })
		assert.EqualValues(t, before, openA.Load())

		// What is ejected stays so.
		broken := named("round_robin", 1) + fmt.Sprintf(
			"[[upstreams]]\nname = \"down\"\naddress = \"127.0.0.1\"\nport = %d\n", looptest.FreePort(t))
		require.NoError(t, s.use(broken))
		got(10)
		eventually(t, "the ejection", func() bool { return len(s.log.lines("upstream ejected")) == 1 })
		require.NoError(t, s.use(broken+"[timeouts]\nconnect = \"2s\"\n"))
		refused := s.stats.Worker(0).Retries.Load() + s.stats.Worker(1).Retries.Load()
		got(10)
		assert.Equal(t, refused, s.stats.Worker(0).Retries.Load()+s.stats.Worker(1).Retries.Load(), "it was not asked")
	})
}
