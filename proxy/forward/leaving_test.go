package forward_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// wholeRequests are complete: nothing need follow them.
var wholeRequests = map[string]string{
	"GET":    get,
	"POST":   post,
	"chunks": chunkedPost + "5\r\nhello\r\n0\r\n\r\n",
	"length": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + string(looptest.Pattern(100_000)),
}

// readRequest reads one of wholeRequests.
func readRequest(p *looptest.Peer) {
	switch p.Head(); {
	case p.In.Buffered() == 0: // a GET, or its body comes yet
	default:
		_, _ = p.In.Discard(p.In.Buffered())
	}
}

// A client that has ended its direction behind its request gets its answer, if it
// comes soon, and as long as it goes on coming.
func TestHalfClose(t *testing.T) {
	for _, name := range []string{"GET", "length"} {
		request := wholeRequests[name]
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			script := func(p *looptest.Peer, _ int) {
				readRequest(p)
				<-ended
				time.Sleep(50 * time.Millisecond)
				p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
				for range 12 {
					time.Sleep(100 * time.Millisecond)
					p.Send("5\r\nhello\r\n")
				}
				p.Send("0\r\n\r\n")
				p.Gone()
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(request)
				r.Eventually("the request", func() bool { return r.Loop.Counters().Dialled.Load() == 1 })
				assert.NoError(t, c.CloseWrite())
				ended <- struct{}{}
				resp := c.Answer("POST")
				assert.Equal(t, 200, resp.StatusCode)
				assert.NoError(t, resp.Err)
				assert.Len(t, resp.Text, 60)
				r.blamed(nil, nil)
			})
		})
	}
}

// One that has left does not keep an upstream busy that is silent, whether it has
// begun to answer or not.
func TestLeavesSilence(t *testing.T) {
	for _, name := range []string{"GET", "chunks"} {
		request := wholeRequests[name]
		for _, begins := range []string{"", "HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 10\r\n\r\nhello"} {
			t.Run(name+" "+begins, func(t *testing.T) {
				asked, closed := make(chan struct{}), make(chan struct{})
				script := func(p *looptest.Peer, _ int) {
					readRequest(p)
					p.Send(begins)
					asked <- struct{}{}
					p.Gone()
					closed <- struct{}{}
				}
				engines(t, setup{upstream: time.Hour}, script, func(t *testing.T, r *rig) {
					c := r.Client(r.address)
					c.Send(request)
					<-asked
					if begins != "" {
						c.Head()
						c.Expect("hello")
					}
					assert.NoError(t, c.Close())
					<-closed
					r.settled()
					r.blamed([]stats.ClientError{stats.ClientReset}, nil)
					assert.Zero(t, r.Loop.Counters().Panics.Load())
				})
			})
		}
	}
}

// One that resets has left for sure: the upstream is told at once.
func TestLeavesForSure(t *testing.T) { leavesForSure(t, "") }

// What a client sends ahead does not hide that it leaves.
func TestLeavesBehindMore(t *testing.T) { leavesForSure(t, "G") }

// leavesForSure has clients send whole requests, and more behind them, and reset
// while the upstream thinks.
func leavesForSure(t *testing.T, more string) {
	for name, request := range wholeRequests {
		if name == "length" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			asked, closed := make(chan struct{}), make(chan struct{})
			script := func(p *looptest.Peer, _ int) {
				readRequest(p)
				asked <- struct{}{}
				p.Gone()
				closed <- struct{}{}
			}
			engines(t, setup{upstream: time.Hour}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(request)
				<-asked
				if more != "" {
					c.Send(more)
					time.Sleep(20 * time.Millisecond)
				}
				c.Reset()
				<-closed
				r.settled()
				r.blamed([]stats.ClientError{stats.ClientReset}, nil)
			})
		})
	}
}

// The end of the chunks is here and unread when the client is cut off: what is
// left of its request went with the connection.
func TestLeavesBehindChunks(t *testing.T) {
	asked := make(chan struct{})
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		asked <- struct{}{}
		p.Gone()
	}
	engines(t, setup{upstream: 50 * time.Millisecond}, script, func(t *testing.T, r *rig) {
		for _, leave := range []func(*looptest.Peer){
			func(c *looptest.Peer) { _ = c.CloseWrite() },
			func(c *looptest.Peer) { c.Reset() },
		} {
			c := r.Client(r.address)
			c.Send(chunkedPost + "5\r\nhello\r\n0\r\n\r\n")
			<-asked
			time.Sleep(20 * time.Millisecond)
			leave(c)
			c.Gone()
		}
		r.settled()
		assert.Zero(t, r.Loop.Counters().Panics.Load())
	})
}

// A half-closed client has the same moment for each of its requests, whatever was
// waited for before.
func TestHalfCloseBehindPipeline(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		for head := p.Head(); head != ""; head = p.Head() {
			if strings.HasPrefix(head, "POST") {
				p.Text(30_000)
			}
			time.Sleep(50 * time.Millisecond)
			p.Send(ok)
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" + strings.Repeat("x", 30_000) + get)
		assert.NoError(t, c.CloseWrite())
		for range 2 {
			assert.Equal(t, "ok", c.Answer("GET").Text)
		}
		c.End()
		r.blamed(nil, nil)
	})
	engines(t, setup{client: exchange.Config{Idle: 500 * time.Millisecond}}, func(p *looptest.Peer, _ int) {
		p.Head()
		time.Sleep(800 * time.Millisecond)
		p.Send(ok)
		p.Gone()
	}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get)
		time.Sleep(600 * time.Millisecond) // the time to be idle is over
		assert.NoError(t, c.CloseWrite())
		assert.Equal(t, "ok", c.Answer("GET").Text)
	})
}
