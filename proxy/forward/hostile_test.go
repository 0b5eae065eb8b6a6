package forward_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// A client that leaves when it has sent all of its request, in whichever framing,
// is no fault of anybody here: the exchange ends, and nothing breaks.
func TestLeavingBreaksNothing(t *testing.T) {
	requests := []string{
		get, post, chunkedPost + "5\r\nhello\r\n0\r\n\r\n",
		chunkedPost + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", // a trailer
		chunkedPost + "5\r\nhello\r\n0\r\n\r\n" + get,   // and another one behind it
	}
	for name, leave := range map[string]func(*looptest.Peer){
		"close": func(c *looptest.Peer) { _ = c.Close() },
		"reset": func(c *looptest.Peer) { c.Reset() },
		"close half": func(c *looptest.Peer) {
			_ = c.CloseWrite()
			time.Sleep(20 * time.Millisecond)
			c.Reset()
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{})
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				asked <- struct{}{}
				p.Gone()
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				var clients []*looptest.Peer
				var blamed []stats.ClientError
				for _, request := range requests {
					c := r.Client(r.address)
					c.Send(request)
					<-asked
					clients, blamed = append(clients, c), append(blamed, stats.ClientReset)
				}
				time.Sleep(20 * time.Millisecond)
				for _, c := range clients { // together, as each has a second before it is told
					leave(c)
				}
				r.settled()
				assert.Zero(t, r.Loop.Counters().Panics.Load())
				r.blamed(blamed, nil)
			})
		})
	}
}

// Upstreams that think, drip or do not read keep a worker's other clients waiting
// for nothing.
func TestSlowUpstreamAlone(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		held := make(chan struct{}, 100)
		r := proxyOn(e, setup{}, e.Script(func(p *looptest.Peer, _ int) {
			for head := p.Head(); head != ""; head = p.Head() {
				switch {
				case strings.HasPrefix(head, "GET /think"):
					held <- struct{}{}
					p.Gone()
					return
				case strings.HasPrefix(head, "GET /drip"):
					p.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nd")
					held <- struct{}{}
					p.Gone()
					return
				case strings.HasPrefix(head, "POST /full"):
					held <- struct{}{}
					time.Sleep(200 * time.Millisecond) // and reads nothing meanwhile
					p.Gone()
					return
				}
				p.Send(ok)
			}
		}).Address)
		const each = 10
		var slow []*looptest.Peer
		for range each {
			for _, request := range []string{
				"GET /think HTTP/1.1\r\nHost: x\r\n\r\n", "GET /drip HTTP/1.1\r\nHost: x\r\n\r\n",
				"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat("x", 100_000),
			} {
				c := r.Client(r.address)
				c.Send(request)
				slow = append(slow, c)
			}
		}
		for range slow {
			<-held
		}
		for range 20 {
			c := r.Client(r.address)
			for range 20 {
				c.Send(get)
				assert.Equal(t, "ok", c.Answer("GET").Text)
			}
			c.Reset()
		}
		for _, c := range slow {
			c.Reset()
		}
		r.settled()
		assert.Zero(t, r.Loop.Counters().Panics.Load())
	})
}
