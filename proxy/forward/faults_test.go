package forward_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// upstreamFaults are what an upstream can do instead of answering, and what the
// client is told then.
var upstreamFaults = []struct {
	name   string
	do     func(p *looptest.Peer)
	status int
	blame  stats.UpstreamError
	says   string // Proxy-Status, behind next-hop
}{
	{"closes", func(*looptest.Peer) {}, 502, stats.UpstreamReset, `error=connection_terminated; next-hop="u0"`},
	{"resets", func(p *looptest.Peer) { p.Reset() }, 502, stats.UpstreamReset, `error=connection_terminated; next-hop="u0"`},
	{"closes in the head", func(p *looptest.Peer) { p.Send("HTTP/1.1 200 OK\r\nContent-Le") },
		502, stats.UpstreamReset, `error=http_response_incomplete; next-hop="u0"`},
	{"resets in the head", func(p *looptest.Peer) { p.Send("HTTP/1.1 200 OK\r\n"); p.Reset() },
		502, stats.UpstreamReset, `error=http_response_incomplete; next-hop="u0"`},
	{"closes after an interim one", func(p *looptest.Peer) { p.Send("HTTP/1.1 100 Continue\r\n\r\n") },
		502, stats.UpstreamReset, `error=http_response_incomplete; next-hop="u0"`},
	{"hangs", func(p *looptest.Peer) { p.Gone() }, 504, stats.ResponseTimeout, `error=http_response_timeout; next-hop="u0"`},
	{"hangs in the head", func(p *looptest.Peer) { p.Send("HTTP/1.1 200 OK\r\n"); p.Gone() },
		504, stats.ResponseTimeout, `error=http_response_timeout; next-hop="u0"`},
	{"talks nonsense", func(p *looptest.Peer) { p.Send("SSH-2.0-OpenSSH\r\n"); p.Gone() },
		502, stats.BadResponse, `error=http_protocol_error; next-hop="u0"; details="version"`},
	{"has two framings", func(p *looptest.Peer) {
		p.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok")
		p.Gone()
	}, 502, stats.BadResponse, `error=http_protocol_error; next-hop="u0"; details="cl-te"`},
	{"has a coding that nobody asked for", func(p *looptest.Peer) {
		p.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
		p.Gone()
	}, 502, stats.BadResponse, `error=http_response_transfer_coding; next-hop="u0"; details="te-unknown"`},
	{"has two lengths", func(p *looptest.Peer) {
		p.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok")
		p.Gone()
	}, 502, stats.BadResponse, `error=http_protocol_error; next-hop="u0"; details="cl-repeated"`},
	{"folds a line", func(p *looptest.Peer) {
		p.Send("HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok")
		p.Gone()
	}, 502, stats.BadResponse, `error=http_protocol_error; next-hop="u0"; details="obs-fold"`},
	{"has a head without end", func(p *looptest.Peer) {
		p.Send("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 20_000))
		p.Gone()
	}, 502, stats.BadResponse, `error=http_response_header_section_size; next-hop="u0"; details="head-long"`},
	{"switches protocols unasked", func(p *looptest.Peer) {
		p.Send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
		p.Gone()
	}, 502, stats.BadResponse, `error=http_protocol_error; next-hop="u0"; details="101 without a request to upgrade"`},
	{"knows a later HTTP", func(p *looptest.Peer) { p.Send("HTTP/2.0 200 OK\r\n\r\n"); p.Gone() },
		502, stats.BadResponse, `error=http_protocol_error; next-hop="u0"; details="version-unsupported"`},
}

func TestUpstreamFaults(t *testing.T) {
	for _, row := range upstreamFaults {
		t.Run(row.name, func(t *testing.T) {
			got := make(failures, 3)
			s := setup{client: exchange.Config{Name: "me", Failed: got.add}}
			if row.status == 504 {
				s.upstream = 100 * time.Millisecond
			}
			var asked atomic.Int64
			script := func(p *looptest.Peer, _ int) {
				head := p.Head()
				if strings.HasPrefix(head, "POST") {
					p.Expect("hello")
				}
				asked.Add(1)
				row.do(p)
			}
			engines(t, s, script, func(t *testing.T, r *rig) {
				asked.Store(0)
				c := r.Client(r.address)
				for i, request := range []string{get, post, get} { // the client's connection is as good as before
					c.Send(request)
					resp := c.Answer("GET")
					assert.Equal(t, row.status, resp.StatusCode)
					assert.Contains(t, resp.Text, "upstream")
					assert.Equal(t, "me; "+row.says, resp.Header.Get("Proxy-Status"))
					record := got.next(t)
					assert.Equal(t, row.status, record.Status)
					assert.Equal(t, exchange.UpstreamSide, record.Side)
					assert.Equal(t, "read response head", record.Step)
					assert.False(t, resp.Close)
					// A time-out may pass before a busy machine has let the upstream read.
					r.Eventually("the upstream to be asked", func() bool { return asked.Load() > int64(i) })
					assert.EqualValues(t, i+1, asked.Load(), "a connection that was new says nothing about others")
					assert.Zero(t, r.idle())
				}
				r.blamed(nil, []stats.UpstreamError{row.blame, row.blame, row.blame})
			})
		})
	}
}

// An upstream that breaks off in the middle: what the client has cannot be taken
// for a whole response.
func TestTruncated(t *testing.T) {
	for _, row := range []struct {
		name, response string
		reset          bool
		blame          stats.UpstreamError
	}{
		{"length", "Content-Length: 10\r\n\r\nhello", false, stats.UpstreamReset},
		{"length, reset", "Content-Length: 10\r\n\r\nhello", true, stats.UpstreamReset},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false, stats.UpstreamReset},
		{"chunked, reset", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", true, stats.UpstreamReset},
		{"chunked, in the trailer", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n", false, stats.UpstreamReset},
		{"chunked, a bad chunk", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n", false, stats.BadResponse},
		{"chunked, a bad trailer", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nnonsense\r\n\r\n", false, stats.BadResponse},
		{"until the end, reset", "\r\nhello", true, stats.UpstreamReset},
	} {
		for _, version := range []string{"1.1", "1.0"} {
			t.Run(row.name+", to "+version, func(t *testing.T) {
				script := func(p *looptest.Peer, _ int) {
					p.Head()
					p.Send("HTTP/1.1 200 OK\r\nDate: d\r\n" + row.response)
					if row.reset {
						time.Sleep(20 * time.Millisecond) // or the kernel drops what it has not sent
						p.Reset()
					}
				}
				engines(t, setup{}, script, func(t *testing.T, r *rig) {
					c := r.Client(r.address)
					c.Send("GET / HTTP/" + version + "\r\nHost: x\r\n\r\n")
					got, err := c.Rest()
					assert.ErrorContains(t, err, "reset")
					if !strings.HasPrefix(row.response, "Content") {
						assert.NotContains(t, got, "0\r\n\r\n")
					}
					r.settled()
					r.blamed(nil, []stats.UpstreamError{row.blame})
					assert.Zero(t, r.idle())
				})
			})
		}
	}
}

// An upstream that hangs in the middle of its body is cut as well.
func TestHangsInBody(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 10\r\n\r\nhello")
		p.Gone()
	}
	for _, request := range []string{get, chunkedPost + "1\r\nx\r\n0\r\n\r\n", chunkedPost + "1\r\nx\r\n"} {
		// In which a busy machine has let the upstream begin.
		engines(t, setup{upstream: time.Second}, script, func(t *testing.T, r *rig) {
			c := r.Client(r.address)
			c.Send(request)
			got, err := c.Rest()
			assert.ErrorContains(t, err, "reset")
			assert.Contains(t, got, "hello")
			r.settled()
			r.blamed(nil, []stats.UpstreamError{stats.ResponseTimeout})
		})
	}
}

// A slow upstream is not a dead one: the time-out is for silence.
func TestSlowDrip(t *testing.T) {
	body := strings.Repeat("drip", 5)
	script := func(p *looptest.Peer, _ int) {
		for p.Head() != "" {
			p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 20\r\n\r\n")
			for i := range body {
				time.Sleep(80 * time.Millisecond)
				p.Send(body[i : i+1])
			}
		}
	}
	engines(t, setup{upstream: 1500 * time.Millisecond}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(get)
		assert.Equal(t, body, c.Answer("GET").Text)
		assert.Equal(t, 1, r.idle())
	})
}

// refusing is an address where nobody listens, nor will because the system chose it.
func refusing(t testing.TB) loop.Address {
	t.Helper()
	port := looptest.FreePort(t)
	return loop.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))}
}

func TestConnectFails(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		t.Run("one refuses: another is tried", func(t *testing.T) {
			e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
			r := proxyOn(e, setup{strategy: balance.RoundRobin}, refusing(t), refusing(t), e.Script(answerPosts).Address)
			c := r.Client(r.address)
			for range 6 {
				for _, request := range []string{get, post, chunkedPost + "5\r\nhello\r\n0\r\n\r\n"} {
					c.Send(request)
					assert.Equal(t, "ok", c.Answer("GET").Text)
				}
			}
		})
		t.Run("all refuse", func(t *testing.T) {
			r := proxy(t, engine, setup{}, refusing(t), refusing(t), refusing(t), refusing(t))
			c := r.Client(r.address)
			for range 3 {
				c.Send(post)
				resp := c.Answer("POST")
				assert.Equal(t, 502, resp.StatusCode)
				assert.Contains(t, resp.Text, "no upstream accepts connections")
			}
			c.Quiet()
			assert.EqualValues(t, 9, r.stats.UpstreamErrors[stats.Refused].Load(), "three tries each")
		})
		t.Run("with a body on its way", func(t *testing.T) {
			r := proxy(t, engine, setup{}, refusing(t))
			c := r.Client(r.address)
			c.Send(largePost, strings.Repeat("x", 300_000))
			resp := c.Answer("POST")
			assert.Equal(t, 502, resp.StatusCode)
			assert.True(t, resp.Close)
			c.End()
		})
		t.Run("time-out", func(t *testing.T) {
			e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
			r := proxyOn(e, setup{connect: 50 * time.Millisecond}, e.Full())
			c := r.Client(r.address)
			c.Send(get)
			resp := c.Answer("GET")
			assert.Equal(t, 504, resp.StatusCode)
			assert.Contains(t, resp.Text, "no connection to an upstream in time")
			r.blamed(nil, []stats.UpstreamError{stats.ConnectTimeout})
		})
		t.Run("no target has a weight", func(t *testing.T) {
			r := proxy(t, engine, setup{weights: []int{0}}, refusing(t))
			c := r.Client(r.address)
			c.Send(get)
			resp := c.Answer("GET")
			assert.Equal(t, 503, resp.StatusCode)
			assert.Equal(t, "1", resp.Header.Get("Retry-After"))
			r.blamed(nil, []stats.UpstreamError{stats.NoUpstream})
		})
	})
}

// answerPosts answers requests with a body of hello, in either framing, or none.
func answerPosts(p *looptest.Peer, _ int) {
	for head := p.Head(); head != ""; head = p.Head() {
		switch {
		case strings.Contains(head, "chunked"):
			p.Expect("5\r\nhello\r\n0\r\n\r\n")
		case strings.Contains(head, "Content-Length: 5"):
			p.Expect("hello")
		}
		p.Send(ok)
	}
}

// stale is an upstream whose connections each take one request, and read another
// one, which they do not answer. It counts the requests.
type stale struct {
	asked atomic.Int64
	end   func(p *looptest.Peer)
}

func (s *stale) script(p *looptest.Peer, _ int) {
	for n := 0; ; n++ {
		head := p.Head()
		if head == "" {
			return
		}
		if strings.Contains(head, "Content-Length: 5") {
			p.Expect("hello")
		}
		s.asked.Add(1)
		if n == 1 {
			s.end(p)
			return
		}
		p.Send(ok)
	}
}

// A reused connection that ends instead of answering: who may ask again does,
// once and unseen; who may not, does not.
func TestStale(t *testing.T) {
	for name, end := range map[string]func(*looptest.Peer){
		"closed": func(p *looptest.Peer) {}, "reset": func(p *looptest.Peer) { p.Reset() },
	} {
		for _, row := range []struct {
			request string
			status  int
			asked   int64
		}{
			{get, 200, 3},
			{"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", 200, 3},
			{"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n", 200, 3},
			{"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", 200, 3},
			{"PUT" + post[4:], 200, 3},
			{post, 502, 2},
			{"PATCH" + post[4:], 502, 2},
			{"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 502, 2},
		} {
			method, _, _ := strings.Cut(row.request, " ")
			t.Run(name+" "+method, func(t *testing.T) {
				looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
					up := &stale{end: end}
					e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
					r := proxyOn(e, setup{}, e.Script(up.script).Address)
					c := r.Client(r.address)
					c.Send(get)
					assert.Equal(t, 200, c.Answer("GET").StatusCode)
					c.Send(row.request)
					assert.Equal(t, row.status, c.Answer(method).StatusCode)
					assert.Equal(t, row.asked, up.asked.Load())
					if row.status == 200 {
						r.blamed(nil, nil)
					}
				})
			})
		}
	}
}

// An interim response says that the upstream is at work: no second try.
func TestStaleAfterInterim(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := &stale{end: func(p *looptest.Peer) { p.Send("HTTP/1.1 102 Processing\r\n\r\n") }}
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		r := proxyOn(e, setup{}, e.Script(up.script).Address)
		c := r.Client(r.address)
		c.Send(get)
		assert.Equal(t, 200, c.Answer("GET").StatusCode)
		c.Send(get)
		assert.Equal(t, 502, c.Answer("GET").StatusCode)
		assert.EqualValues(t, 2, up.asked.Load())
	})
}

// All targets have an idle connection that turns out to be dead, and accept no
// other: each is tried, and each try is accounted for.
func TestStaleEverywhere(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		var targets []loop.Address
		var asked atomic.Int64
		for range 4 {
			targets = append(targets, once(e, &asked))
		}
		r := proxyOn(e, setup{}, targets...)
		c := r.Client(r.address)
		for range targets {
			c.Send(get)
			assert.Equal(t, 200, c.Answer("GET").StatusCode)
		}
		c.Send(get)
		assert.Equal(t, 502, c.Answer("GET").StatusCode)
		assert.EqualValues(t, 4+3, asked.Load())
	})
}

// once is an upstream with one connection: it answers one request, and closes
// the connection at the second one.
func once(e *looptest.Env, asked *atomic.Int64) loop.Address {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		_ = ln.Close()
		if err != nil {
			return
		}
		defer c.Close()
		p := make([]byte, 10_000)
		for range 2 {
			if n, err := c.Read(p); n == 0 || err != nil {
				return
			}
			if asked.Add(1) <= 4 {
				_, _ = io.WriteString(c, ok)
			}
		}
	}()
	e.Cleanup(func() { _ = ln.Close(); <-done })
	return loop.Address{AddrPort: netip.MustParseAddrPort(ln.Addr().String())}
}

// A client that leaves while the upstream is thinking is not waited for: the
// upstream's connection closes promptly, in all kinds of exchanges.
func TestClientLeaves(t *testing.T) {
	for _, leave := range []string{"close", "reset"} {
		for name, request := range map[string]string{
			"GET":          get,
			"POST":         post,
			"a large POST": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
			"chunks":       chunkedPost + "5\r\nhello\r\n0\r\n\r\n",
		} {
			t.Run(leave+", "+name, func(t *testing.T) {
				looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
					asked, closed := make(chan struct{}), make(chan struct{})
					e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
					up := e.Script(func(p *looptest.Peer, _ int) {
						p.Head()
						_, body, _ := strings.Cut(request, "\r\n\r\n")
						p.Expect(body)
						close(asked)
						p.Gone()
						close(closed)
					})
					r := proxyOn(e, setup{}, up.Address)
					c := r.Client(r.address)
					c.Send(request)
					<-asked
					time.Sleep(20 * time.Millisecond)
					if leave == "reset" {
						c.Reset()
					}
					_ = c.Close()
					select {
					case <-closed:
					case <-time.After(patience / 2):
						t.Error("the upstream is still asked")
					}
					r.settled()
					r.blamed([]stats.ClientError{stats.ClientReset}, nil)
				})
			})
		}
	}
}

// A client that never reads is cut, and holds no memory to speak of meanwhile.
func TestClientNeverReads(t *testing.T) {
	const size = 64 << 20
	for name, framing := range map[string]string{
		"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n", size),
		"chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size),
		"close":   "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			body := make([]byte, 1<<20)
			sent := make(chan int, 1)
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				p.Send("HTTP/1.1 200 OK\r\n" + framing)
				n := 0
				for n < size {
					m, err := p.Write(body)
					n += m
					if err != nil {
						break
					}
				}
				sent <- n
			}
			engines(t, setup{write: 100 * time.Millisecond}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send(get)
				assert.Less(t, <-sent, size/2)
				r.settled()
				r.blamed([]stats.ClientError{stats.ClientReset}, nil)
			})
		})
	}
}

// An upstream that never reads the request is not waited for without end.
func TestUpstreamNeverReads(t *testing.T) {
	answered := make(chan struct{})
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		<-answered
	}
	engines(t, setup{write: 100 * time.Millisecond, upstream: 100 * time.Millisecond}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		go func() { _, _ = c.Write([]byte(largePost + strings.Repeat("x", 10_000_000))) }()
		resp := c.Answer("POST")
		answered <- struct{}{}
		assert.Equal(t, 504, resp.StatusCode)
		assert.True(t, resp.Close)
		r.settled()
		r.blamed(nil, []stats.UpstreamError{stats.ResponseTimeout})
	})
}
