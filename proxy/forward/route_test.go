package forward_test

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/forward"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// abc runs test on both engines with three upstreams that answer with their
// names, "a" to "c".
func abc(t *testing.T, s setup, test func(t *testing.T, r *rig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		test(t, proxyOn(e, s, e.Script(named("a")).Address, e.Script(named("b")).Address, e.Script(named("c")).Address))
	})
}

// asking is a GET with further field lines.
func asking(lines ...string) string {
	return "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// spread counts the answers to that many requests on one connection.
func spread(c *looptest.Peer, request string, n int) map[string]int {
	got := make(map[string]int)
	for range n {
		c.Send(request)
		got[c.Answer("GET").Text]++
	}
	return got
}

// Requests with the same key go to the same upstream; those without one take turns.
func TestHash(t *testing.T) {
	for name, row := range map[string]struct {
		route   forward.Route
		request func(key string) string
		without string
	}{
		"header": {forward.Route{Hash: forward.HashHeader, Name: "X-User"},
			func(key string) string { return asking("a: b", "x-USER: "+key, "X-User: not this") }, get},
		"cookie": {forward.Route{Hash: forward.HashCookie, Name: "user"},
			func(key string) string { return asking("Cookie: a=b; user=" + key + "; c=d") }, asking("Cookie: a=b; auser=x; user2=3")},
		"path": {forward.Route{Hash: forward.HashPath},
			func(key string) string {
				return strings.Replace(get, "/", "/"+key+"?"+fmt.Sprint(time.Now().UnixNano()), 1)
			}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			abc(t, setup{strategy: balance.Hash, route: row.route}, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				seen := make(map[string]int)
				for key := range 30 {
					got := spread(c, row.request(fmt.Sprint("k", key)), 4)
					assert.Len(t, got, 1, "key %d", key)
					seen[slices.Collect(maps.Keys(got))[0]]++
				}
				assert.Len(t, seen, 3, "keys are shared out")
				if row.without != "" {
					assert.Equal(t, map[string]int{"a": 2, "b": 2, "c": 2}, spread(c, row.without, 6))
				}
			})
		})
	}
}

// All requests of a client go to one upstream, and to another one together when
// that is out.
func TestIPHash(t *testing.T) {
	abc(t, setup{strategy: balance.IPHash}, func(t *testing.T, r *rig) {
		got := make(map[string]int)
		for range 3 {
			for name, n := range spread(r.Client(r.address), get, 3) {
				got[name] += n
			}
		}
		assert.Len(t, got, 1)
	})
}

// The cookie of the first answer brings a client back to its upstream.
func TestSticky(t *testing.T) {
	abc(t, setup{strategy: balance.RoundRobin, route: forward.Route{Sticky: "seat"}}, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get)
		first := c.Answer("GET")
		given := first.Header.Get("Set-Cookie")
		require.Regexp(t, `^seat=[0-9a-f]{16}; Path=/; HttpOnly; SameSite=Lax$`, given)
		cookie, _, _ := strings.Cut(given, ";")
		for range 5 {
			c.Send(asking("Cookie: other=1; " + cookie))
			resp := c.Answer("GET")
			assert.Equal(t, first.Text, resp.Text)
			assert.Empty(t, resp.Header.Values("Set-Cookie"))
		}
		assert.Len(t, spread(c, get, 6), 3, "others are free")
		for _, unknown := range []string{"seat=0000000000000001", "seat=no-id", "seat=", "xseat=" + cookie[5:]} {
			c.Send(asking("Cookie: " + unknown))
			assert.NotEmpty(t, c.Answer("GET").Header.Get("Set-Cookie"), unknown)
		}
	})
}

// A seat that is gone is given up, with another cookie.
func TestStickyToTheDead(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{strategy: balance.RoundRobin, route: forward.Route{Sticky: "seat"}},
			refusing(t), e.Script(named("b")).Address)
		c := r.Client(r.address)
		dead, alive := balance.IDOf("u0").Append(nil), balance.IDOf("u1").Append(nil)
		for range 5 {
			c.Send(asking("Cookie: seat=" + string(dead)))
			resp := c.Answer("GET")
			assert.Equal(t, "b", resp.Text)
			assert.Contains(t, resp.Header.Get("Set-Cookie"), "seat="+string(alive))
		}
	})
}

// The slower of two gets few requests.
func TestPeakEWMA(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		slow := e.Script(func(p *looptest.Peer, _ int) {
			for p.Head() != "" {
				time.Sleep(300 * time.Millisecond) // more than the other one takes on a busy machine
				p.Send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
			}
		})
		r := proxyOn(e, setup{strategy: balance.PeakEWMA}, slow.Address, e.Script(named("b")).Address)
		got := spread(r.Client(r.address), get, 40)
		assert.LessOrEqual(t, got["a"], 3)
	})
}

// One of two is down: no client notices. It comes back: it gets requests again.
func TestDownAndBack(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		down := refusing(t)
		s := setup{strategy: balance.RoundRobin}
		s.options.Eject = 1500 * time.Millisecond // in which all below are asked, on a busy machine as well
		r := proxyOn(e, s, down, e.Script(named("b")).Address)
		c := r.Client(r.address)
		for _, request := range []string{get, post} {
			assert.Equal(t, map[string]int{"b": 10}, spread(c, request, 10))
		}
		assert.EqualValues(t, 3, r.stats.UpstreamErrors[stats.Refused].Load(), "then it was ejected")
		assert.EqualValues(t, 3, r.stats.Retries.Load())

		ln, err := net.Listen("tcp", down.String())
		require.NoError(t, err)
		back := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("a")) })}
		go back.Serve(ln) //nolint:errcheck // it ends with Close
		defer back.Close()
		r.Eventually("it to be back", func() bool { return spread(c, get, 2)["a"] > 0 })
		assert.Equal(t, map[string]int{"a": 5, "b": 5}, spread(c, get, 10))
	})
}

// Nobody may get the request: 503, and when to come again.
func TestNoneEligible(t *testing.T) {
	t.Run("weights of 0", func(t *testing.T) {
		abc(t, setup{strategy: balance.RoundRobin, weights: []int{0, 0, 0}}, func(t *testing.T, r *rig) {
			r.refused(503, "1")
			r.blamed(nil, []stats.UpstreamError{stats.NoUpstream})
		})
	})
	t.Run("health checks", func(t *testing.T) {
		looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
			e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
			var sick atomic.Bool
			up := server(e, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if sick.Load() && r.URL.Path == "/healthz" {
					w.WriteHeader(500)
				}
			}))
			s := setup{strategy: balance.RoundRobin}
			check := &upstream.Check{Path: "/healthz", Interval: 5 * time.Millisecond, Timeout: patience, Fall: 2, Rise: 1}
			s.options.Upstreams = []upstream.Upstream{{Check: check}}
			r := proxyOn(e, s, up)
			c := r.Client(r.address)
			status := func() int {
				c.Send(get)
				return c.Answer("GET").StatusCode
			}
			assert.Equal(t, 200, status())
			sick.Store(true)
			r.Eventually("it to be down", func() bool { return status() == 503 })
			r.refused(503, "1")
			sick.Store(false)
			r.Eventually("it to be up", func() bool { return status() == 200 })
		})
	})
}

// refused wants a request to be answered with an error of ours.
func (r *rig) refused(status int, retryAfter string) (proxyStatus string) {
	r.Helper()
	c := r.Client(r.address)
	c.Send(get)
	resp := c.Answer("GET")
	assert.Equal(r, status, resp.StatusCode)
	assert.Equal(r, retryAfter, resp.Header.Get("Retry-After"))
	assert.False(r, resp.Close)
	assert.Contains(r, resp.Header.Get("Proxy-Status"), "me; error=")
	return resp.Header.Get("Proxy-Status")
}

// bounded is an upstream that holds requests until it is let go, and knows how
// many it has had at once.
type bounded struct {
	active, most atomic.Int64
	release      chan struct{}
}

func (b *bounded) script(p *looptest.Peer, _ int) {
	for head := p.Head(); head != ""; head = p.Head() {
		switch {
		case strings.Contains(head, "Content-Length: 5"):
			p.Expect("hello")
		case strings.Contains(head, "chunked"):
			p.Expect("5\r\nhello\r\n0\r\n\r\n")
		}
		b.most.Store(max(b.most.Load(), b.active.Add(1)))
		<-b.release
		b.active.Add(-1)
		p.Send(ok)
	}
}

// An upstream gets no more at once than it may; others wait, and are answered.
func TestMaxConnections(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		up := &bounded{release: make(chan struct{})}
		s := setup{strategy: balance.RoundRobin}
		s.options.Upstreams = []upstream.Upstream{{MaxConnections: 2}}
		s.options.QueueMax = 3
		r := proxyOn(e, s, e.Script(up.script).Address)
		var clients []*looptest.Peer
		for i := range 5 {
			c := r.Client(r.address)
			c.Send([]string{get, post, chunkedPost + "5\r\nhello\r\n0\r\n\r\n"}[i%3])
			clients = append(clients, c)
			r.Eventually("it to count", func() bool { return r.stats.Requests.Load() == int64(i+1) })
		}
		r.Eventually("two to arrive", func() bool { return up.active.Load() == 2 })
		assert.Equal(t, "me; error=connection_limit_reached", r.refused(503, "1"))
		r.blamed(nil, []stats.UpstreamError{stats.QueueFull})
		clients[4].Reset()
		r.Eventually("the client to be missed", func() bool { return r.stats.ClientErrors[stats.ClientReset].Load() == 1 })
		for range 4 {
			up.release <- struct{}{}
		}
		for _, c := range clients[:4] {
			assert.Equal(t, "ok", c.Answer("GET").Text)
		}
		assert.EqualValues(t, 2, up.most.Load())
	})
}

// Who waits too long is told so, and answers to requests before it do not wait
// with it.
func TestQueueTimeout(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		up := &bounded{release: make(chan struct{})}
		s := setup{strategy: balance.RoundRobin}
		s.options.Upstreams = []upstream.Upstream{{MaxConnections: 1}}
		s.options.QueueMax, s.options.QueueWait = 3, 100*time.Millisecond
		r := proxyOn(e, s, e.Script(up.script).Address)
		first := r.Client(r.address)
		first.Send(get)
		r.Eventually("it to arrive", func() bool { return up.active.Load() == 1 })
		assert.Equal(t, "me; error=connection_limit_reached", r.refused(503, "1"))
		r.blamed(nil, []stats.UpstreamError{stats.QueueTimeout})
		up.release <- struct{}{}
		assert.Equal(t, "ok", first.Answer("GET").Text)
	})
}

// Further tries that are waited for have a budget; those that are refused at once
// cost nothing.
func TestRetryBudget(t *testing.T) {
	const requests = 40
	for name, row := range map[string]struct {
		address func(*looptest.Env) loop.Address
		connect time.Duration
		status  int
		retries int64
	}{
		"full":    {(*looptest.Env).Full, 5 * time.Millisecond, 504, 30},
		"refuses": {func(e *looptest.Env) loop.Address { return refusing(e) }, time.Hour, 502, 2 * requests},
	} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				target := row.address(e)
				r := proxyOn(e, setup{strategy: balance.RoundRobin, connect: row.connect}, target, target, target)
				c := r.Client(r.address)
				for range requests {
					c.Send(get)
					resp := c.Answer("GET")
					assert.Equal(t, row.status, resp.StatusCode)
					assert.False(t, resp.Close)
				}
				assert.EqualValues(t, row.retries, r.stats.Retries.Load())
			})
		})
	}
}

func TestNoRetries(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{strategy: balance.RoundRobin, retries: -1}, refusing(t), e.Script(named("b")).Address)
		c := r.Client(r.address)
		c.Send(get + get)
		assert.Equal(t, 502, c.Answer("GET").StatusCode)
		assert.Equal(t, "b", c.Answer("GET").Text)
		assert.Zero(t, r.stats.Retries.Load())
	})
}

// What the upstream says of its idle connections is heeded.
func TestUpstreamKeepAlive(t *testing.T) {
	for _, row := range []struct {
		field string
		idle  int
	}{
		{"Keep-Alive: timeout=1", 0},
		{"Keep-Alive: timeout=60, max=100", 1},
		{"X: y", 1},
	} {
		script := looptest.Answers("HTTP/1.1 200 OK\r\n" + row.field + "\r\nContent-Length: 2\r\n\r\nok")
		engines(t, setup{}, script, func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send(get)
			assert.Equal(t, "ok", c.Answer("GET").Text)
			r.settled()
			assert.Equal(t, row.idle, r.idle(), row.field)
		})
	}
}

// An answer that is there does not wait until the next request has a connection.
func TestAnswerBeforeDial(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{strategy: balance.RoundRobin, connect: time.Hour}, e.Script(named("a")).Address, e.Full())
		c := r.Client(r.address)
		c.Send(get + get)
		assert.Equal(t, "a", c.Answer("GET").Text, "the second one still connects")
		r.Loop.Stop()
	})
}
