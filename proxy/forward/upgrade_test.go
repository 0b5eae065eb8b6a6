package forward_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

const (
	upgrade = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Key: z\r\n\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: a\r\n\r\n"
	relayed = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\nConnection: upgrade\r\n" +
		"Upgrade: websocket\r\n\r\n"
)

// What an upstream is asked to switch to.
func TestUpgradeOffers(t *testing.T) {
	asks := func(protocols string) []string { return []string{"Connection: upgrade", "Upgrade: " + protocols} }
	for _, row := range []struct {
		name, version, fields string
		want                  []string
	}{
		{"websocket", "1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", asks("websocket")},
		{"its case is kept", "1.1", "Connection: x, UPGRADE\r\nupgrade: WebSocket\r\n", asks("WebSocket")},
		{"several, in several lines", "1.1", "Connection: upgrade\r\nUpgrade: a/1, b\r\nUpgrade: ,c\r\n", asks("a/1, b, c")},
		{"but for h2c", "1.1", "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket, H2C/1\r\nHTTP2-Settings: x\r\n",
			asks("websocket")},
		{"but for HTTP by other names", "1.1", "Connection: upgrade\r\nUpgrade: HTTP/2.0, h2, h2c-14, http, H2C, TLS/1.0\r\n",
			asks("TLS/1.0")},
		{"h2c only", "1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n", nil},
		{"and what is no protocol", "1.1", "Connection: upgrade\r\nUpgrade: a b, \"c\", d/, /e, f/1/2, g\r\n", asks("g")},
		{"none", "1.1", "Connection: upgrade\r\nUpgrade:\r\n", nil},
		{"not listed", "1.1", "Upgrade: websocket\r\n", nil},
		{"only listed", "1.1", "Connection: upgrade\r\n", nil},
		{"HTTP/1.0", "1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			seen := make(recorder, 1)
			engines(t, setup{}, seen.script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send("GET / HTTP/" + row.version + "\r\nHost: x\r\n" + row.fields + "\r\n")
				assert.Equal(t, "ok", c.Answer("GET").Text, "the upstream need not switch")
				assert.Equal(t, row.want, fields(<-seen))
				assert.Equal(t, 1, r.idle())
			})
		})
	}
}

// switching is an upstream that switches, talks, and closes its side when the
// other one has. Other requests it answers with ok.
func switching(p *looptest.Peer, _ int) {
	for head := p.Head(); head != ""; head = p.Head() {
		if !strings.HasPrefix(head, "GET /chat") {
			p.Send(ok)
			continue
		}
		p.Send(switched)
		p.Expect("ping")
		p.Send("pong")
		p.End()
		p.Send("bye")
		return
	}
}

func TestUpgrade(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		up := e.Script(switching)
		r := proxyOn(e, setup{}, up.Address)
		for range 3 { // on a connection that has carried another exchange
			c := r.Client(r.address)
			c.Send(get)
			assert.Equal(t, "ok", c.Answer("GET").Text)
			c.Send(upgrade)
			c.Expect(relayed)
			c.Send("pi", "ng")
			c.Expect("pong")
			assert.NoError(t, c.CloseWrite())
			c.Expect("bye")
			c.End()
			r.settled()
			assert.Zero(t, r.idle(), "a tunnel is nothing for the next request")
		}
		assert.Equal(t, 3, up.Accepted())
		assert.EqualValues(t, 3, r.stats.Responses[0].Load())
		r.blamed(nil, nil)
	})
}

// Wherever the network cuts the heads, bytes that come with them go on.
func TestUpgradeCuts(t *testing.T) {
	for early, behind := range map[string]string{"nothing": "", "bytes behind both heads": "GET / HTTP/1.1\r\n\r\n"} {
		t.Run(early, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				var cut atomic.Int64
				up := e.Script(func(p *looptest.Peer, _ int) {
					p.Head()
					text := switched + behind
					if at := int(cut.Load()); at <= len(text) {
						p.Send(text[:at], text[at:])
					}
					p.Expect(behind + "ping")
					p.Send("pong")
					p.End()
				})
				r := proxyOn(e, setup{}, up.Address)
				request := upgrade + behind
				for at := range max(len(request), len(switched+behind)) {
					cut.Store(int64(min(at, len(switched+behind))))
					c := r.Client(r.address)
					c.Send(request[:min(at, len(request))], request[min(at, len(request)):])
					c.Expect(relayed + behind)
					c.Send("ping")
					c.Expect("pong")
					assert.NoError(t, c.Close())
				}
				r.settled()
				assert.Zero(t, r.idle())
			})
		})
	}
}

// Bytes that a client sends before it has its answer belong to what comes of it:
// to the tunnel, or to the next request.
func TestUpgradeRefused(t *testing.T) {
	const refusal = "HTTP/1.1 426 Upgrade Required\r\nDate: d\r\nUpgrade: other\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nno"
	script := func(p *looptest.Peer, _ int) {
		for head := p.Head(); head != ""; head = p.Head() {
			if strings.HasPrefix(head, "GET /chat") {
				time.Sleep(5 * time.Millisecond) // so that the next request is here as well
				p.Send(refusal)
			} else {
				p.Send(ok)
			}
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		for range 3 {
			c.Send(upgrade + get)
			c.Expect("HTTP/1.1 426 Upgrade Required\r\nDate: d\r\nContent-Length: 2\r\n\r\nno" + ok)
		}
		assert.Equal(t, 1, r.idle())
		r.blamed(nil, nil)
	})
}

// An upstream that switches to nothing that it was asked for.
func TestUpgradeFails(t *testing.T) {
	for _, row := range []struct{ name, request, response, failed string }{
		{"unasked", get, switched, `http_protocol_error; next-hop="u0"; details="101 without a request to upgrade"`},
		{"h2c, which we did not ask for", strings.Replace(upgrade, "websocket", "h2c", 1),
			strings.Replace(switched, "websocket", "h2c", 1),
			`http_protocol_error; next-hop="u0"; details="101 without a request to upgrade"`},
		{"no Upgrade", upgrade, strings.Replace(switched, "Upgrade: websocket\r\n", "", 1), "http_upgrade_failed"},
		{"an empty one", upgrade, strings.Replace(switched, "websocket", "", 1), "http_upgrade_failed"},
		{"no Connection", upgrade, strings.Replace(switched, "Connection: Upgrade\r\n", "", 1), "http_upgrade_failed"},
		{"another protocol", upgrade, strings.Replace(switched, "websocket", "h2c", 1), "http_upgrade_failed"},
		{"one more", upgrade, strings.Replace(switched, "websocket", "websocket, h2c", 1), "http_upgrade_failed"},
		{"HTTP/1.0", upgrade, strings.Replace(switched, "HTTP/1.1", "HTTP/1.0", 1), "http_upgrade_failed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				p.Send(row.response + "tunnel")
				p.Gone()
			}
			engines(t, setup{client: exchange.Config{Name: "me"}}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				for range 2 {
					c.Send(row.request)
					resp := c.Answer("GET")
					assert.Equal(t, 502, resp.StatusCode)
					assert.Contains(t, resp.Header.Get("Proxy-Status"), "me; error="+row.failed)
					assert.Zero(t, r.idle())
				}
				r.blamed(nil, []stats.UpstreamError{stats.BadResponse, stats.BadResponse})
			})
		})
	}
}

// A request may have a body all the same: the tunnel starts behind it, also
// where the upstream switches before it has it.
func TestUpgradeWithBody(t *testing.T) {
	const head = "POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	tcp := strings.ReplaceAll(switched, "websocket", "tcp")
	for name, early := range map[string]bool{"before it": true, "behind it": false} {
		for framing, body := range map[string]string{
			"Content-Length: 5\r\n\r\n":          "hello",
			"Transfer-Encoding: chunked\r\n\r\n": "5\r\nhello\r\n0\r\n\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
					e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
					up := e.Script(func(p *looptest.Peer, _ int) {
						assert.Contains(t, p.Head(), "Upgrade: tcp\r\n")
						if early {
							p.Send(tcp)
						}
						p.Expect(body)
						if !early {
							p.Send(tcp)
						}
						p.Expect("ping")
						p.Send("pong")
						p.End()
					})
					r := proxyOn(e, setup{}, up.Address)
					for _, pieces := range [][]string{{head + framing + body + "ping"}, {head + framing, body + "ping"},
						{head + framing, body[:3], body[3:], "ping"}} {
						c := r.Client(r.address)
						c.Send(pieces...)
						c.Expect(strings.ReplaceAll(relayed, "websocket", "tcp") + "pong")
						assert.NoError(t, c.CloseWrite())
						c.End()
					}
					r.settled()
					r.blamed(nil, nil)
				})
			})
		}
	}
}

// A body that breaks off behind a 101 leaves nothing that could be a tunnel.
func TestUpgradeWithBrokenBody(t *testing.T) {
	const head = "POST /exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked\r\n\r\n"
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		up := e.Script(func(p *looptest.Peer, _ int) {
			p.Head()
			p.Send(strings.ReplaceAll(switched, "websocket", "tcp"))
			p.Gone()
		})
		r := proxyOn(e, setup{}, up.Address)
		c := r.Client(r.address)
		c.Send(head)
		assert.Contains(t, c.Head(), "101 ")
		c.Send("nonsense\r\n")
		_, err := c.Rest()
		assert.ErrorContains(t, err, "reset")
		r.settled()
		r.blamed([]stats.ClientError{stats.BadRequest}, nil)
	})
}

// Either side breaks the tunnel off, or is silent for too long.
func TestUpgradeEnds(t *testing.T) {
	for _, row := range []struct {
		name   string
		tunnel time.Duration
		end    func(client, upstream *looptest.Peer)
		client []stats.ClientError
		up     []stats.UpstreamError
	}{
		{"the client resets", 0, func(c, _ *looptest.Peer) { c.Reset() }, []stats.ClientError{stats.ClientReset}, nil},
		{"the upstream resets", 0, func(_, up *looptest.Peer) { up.Reset() }, nil, []stats.UpstreamError{stats.UpstreamReset}},
		{"both are silent", 100 * time.Millisecond, func(_, _ *looptest.Peer) {}, nil, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				ups, done := make(chan *looptest.Peer, 1), make(chan struct{})
				up := e.Script(func(p *looptest.Peer, _ int) {
					p.Head()
					p.Send(switched)
					ups <- p
					<-done
				})
				defer close(done)
				r := proxyOn(e, setup{tunnel: row.tunnel}, up.Address)
				c := r.Client(r.address)
				c.Send(upgrade)
				c.Expect(relayed)
				p := <-ups
				row.end(c, p)
				c.Gone()
				p.Gone()
				r.settled()
				r.blamed(row.client, row.up)
				r.Eventually("the client to be gone", func() bool { return r.Loop.Counters().Open.Load() == 0 })
			})
		})
	}
}

// A worker that drains leaves tunnels alone.
func TestUpgradeDrain(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, e.Script(switching).Address)
		c := r.Client(r.address)
		c.Send(upgrade)
		c.Expect(relayed)
		r.Loop.Drain()
		c.Quiet()
		c.Send("ping")
		c.Expect("pong")
		assert.NoError(t, c.CloseWrite())
		c.Expect("bye")
		c.End()
		r.Loop.Wait()
	})
}
