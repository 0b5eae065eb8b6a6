package exchange_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// A head that waits for room is its client's own: other exchanges of the worker
// build theirs meanwhile.
func TestHeadsDoNotMix(t *testing.T) {
	const size, count = 3000, 3000 // more than the kernel takes without a reader
	letters := func(x *exchange.Exchange) {
		letter := x.Request.Path[1:2]
		size := size
		if string(x.Request.Query) == "large" {
			size *= 7
		}
		x.Begin(204, nil)
		x.Field([]byte("X-Letters"), bytes.Repeat(letter, size))
		_ = x.SendHead(h1.BodyNone)
	}
	for name, query := range map[string]string{"copied": "", "sent from where it is": "?large"} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := serve(t, engine, exchange.Config{}, letters)
				var clients []*looptest.Peer
				for _, letter := range []string{"a", "b", "c", "d"} {
					c := r.Client(r.address)
					clients = append(clients, c)
					// In one piece, so that their answers are gathered.
					go c.Send(strings.Repeat("GET /"+letter+query+" HTTP/1.1\r\nHost: x\r\n\r\n", count/(1+len(query))))
				}
				r.Eventually("the clients to be stuck", func() bool { return r.stats.Requests.Load() > 4*50 })
				r.Loop.Post(func() {}) // a turn
				for i, c := range clients {
					letter := string(rune('a' + i))
					for n := range count / (1 + len(query)) {
						got := c.Answer("GET").Header.Get("X-Letters")
						if !assert.Equal(t, len(got), strings.Count(got, letter), "answer %d has other letters", n) {
							return
						}
					}
				}
			})
		})
	}
}
