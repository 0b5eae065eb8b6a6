package exchange_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// Whoever sends many requests at once does not have the worker to itself until
// they are answered: who asks for one thing waits for a few of them.
func TestPipelinesTakeTurns(t *testing.T) {
	const many, few = 1000, 2*exchange.ExchangesTurn + 1 // one turn when it comes, another when it has been looked for
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		answered, before := 0, -1
		r := serve(t, engine, exchange.Config{}, func(x *exchange.Exchange) {
			if string(x.Request.Path) == "/one" {
				before = answered
			}
			answered++
			x.Begin(204, nil)
			_ = x.SendHead(h1.BodyNone, nil) // the exchange notices
		})
		dial := func() net.Conn {
			c, err := net.Dial("tcp", r.address)
			require.NoError(t, err)
			t.Cleanup(func() { c.Close() })
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			return c
		}
		greedy, other := dial(), dial()
		r.Eventually("both to be accepted", func() bool { return r.Loop.Counters().Open.Load() == 2 })

		// Both are there before the worker looks.
		held, release := make(chan struct{}), make(chan struct{})
		require.True(t, r.Loop.Post(func() {
			close(held)
			<-release
		}))
		<-held
		_, err := io.WriteString(greedy, strings.Repeat("GET /m HTTP/1.1\r\nHost: a\r\n\r\n", many))
		require.NoError(t, err)
		_, err = io.WriteString(other, "GET /one HTTP/1.1\r\nHost: a\r\n\r\n")
		require.NoError(t, err)
		time.Sleep(20 * time.Millisecond) // for what reads without the worker
		close(release)

		answer := "HTTP/1.1 204 No Content\r\n\r\n"
		got := make([]byte, len(answer)*many)
		_, err = io.ReadFull(other, got[:len(answer)])
		require.NoError(t, err)
		require.Equal(t, answer, string(got[:len(answer)]))
		_, err = io.ReadFull(greedy, got)
		require.NoError(t, err)
		require.Equal(t, strings.Repeat(answer, many), string(got))

		counts := make(chan [2]int, 1)
		require.True(t, r.Loop.Post(func() { counts <- [2]int{before, answered} }))
		count := <-counts
		require.Equal(t, many+1, count[1])
		require.LessOrEqual(t, count[0], few, fmt.Sprint(engine))
	})
}
