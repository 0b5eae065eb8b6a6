package forward_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

const (
	chunkedPost = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
	largePost   = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
)

// What an upstream gets of a request body.
func TestRequestFraming(t *testing.T) {
	for _, row := range []struct{ name, request, want string }{
		{"length", "Content-Length: 5\r\n\r\nhello", "Content-Length: 5\r\n\r\nhello"},
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		{"trailer", "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\nX_Sum: 2\r\nCookie: 3\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"a trailer field that Connection lists",
			"Connection: close, X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"},
		{"a trailer field, and Connection lists options",
			"Connection: TE, Keep-Alive, close, Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"no chunks", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"a body of 16 KiB", "Content-Length: 16384\r\n\r\n" + strings.Repeat("x", 16384),
			"Content-Length: 16384\r\n\r\n" + strings.Repeat("x", 16384)},
		{"a body of more", "Content-Length: 16385\r\n\r\n" + strings.Repeat("x", 16385),
			"Content-Length: 16385\r\n\r\n" + strings.Repeat("x", 16385)},
	} {
		t.Run(row.name, func(t *testing.T) {
			head, body, _ := strings.Cut(row.want, "\r\n\r\n")
			seen := make(chan string, 3)
			script := func(p *looptest.Peer, _ int) {
				for got := p.Head(); got != ""; got = p.Head() {
					seen <- got
					p.Expect(body)
					p.Send(ok)
				}
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Send("POST / HTTP/1.1\r\nHost: x\r\n" + row.request)
				assert.Equal(t, "ok", c.Answer("POST").Text)
				assert.Contains(t, fields(<-seen), head)
				assert.Equal(t, 1, r.idle())
			})
		})
	}
}

func TestExpect(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	script := func(p *looptest.Peer, _ int) {
		for got := p.Head(); got != ""; got = p.Head() {
			assert.NotContains(t, got, "Expect")
			p.Send("HTTP/1.1 100 Continue\r\n\r\n")
			p.Expect("hello")
			p.Send(ok)
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		for range 2 {
			c.Send(head)
			c.Expect("HTTP/1.1 100 Continue\r\n\r\n")
			c.Send("he", "llo")
			c.Expect(ok)
			c.Send(head + "hello")
			c.Expect(ok) // it has sent its body: nobody tells it to go on
		}
	})
}

// An upstream that answers the head at once, while the client is told to go on:
// both are sent to the same client.
func TestExpectAnsweredAtOnce(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Send("HTTP/1.1 403 Forbidden\r\nDate: d\r\nContent-Length: 2\r\n\r\nno")
		p.Gone()
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		for range 50 {
			c := r.Client(r.address)
			c.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			c.Expect("HTTP/1.1 100 Continue\r\n\r\n")
			c.Expect("HTTP/1.1 403 Forbidden\r\nDate: d\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			c.End()
		}
	})
}

// An upstream that answers before it has the whole request: the client gets the
// answer at once, whatever both do then.
func TestEarlyResponse(t *testing.T) {
	const refusal = "HTTP/1.1 413 Too Large\r\nDate: d\r\nContent-Length: 2\r\n\r\nno"
	for name, then := range map[string]func(p *looptest.Peer){
		"and stays":       func(p *looptest.Peer) { p.Gone() },
		"and closes":      func(p *looptest.Peer) {},
		"and closes half": func(p *looptest.Peer) { _ = p.CloseWrite(); p.Gone() },
	} {
		t.Run(name, func(t *testing.T) {
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				p.Text(1000)
				p.Send(refusal)
				then(p)
			}
			t.Run("to a client that waits", func(t *testing.T) {
				engines(t, setup{}, script, func(t *testing.T, r *rig) {
					for _, head := range []string{largePost, chunkedPost + "ffffff\r\n"} {
						c := r.Client(r.address)
						c.Send(head, strings.Repeat("x", 1000))
						resp := c.Answer("POST")
						assert.Equal(t, 413, resp.StatusCode)
						assert.True(t, resp.Close)
						c.End()
						assert.NoError(t, c.Close())
						assert.Zero(t, r.idle())
					}
					r.blamed(nil, nil)
				})
			})
			t.Run("to one that goes on sending", func(t *testing.T) {
				engines(t, setup{}, script, func(t *testing.T, r *rig) {
					for range 10 {
						c := r.Client(r.address)
						go func() { _, _ = c.Write([]byte(largePost + strings.Repeat("x", 500_000))) }()
						resp := c.Answer("POST")
						assert.Equal(t, 413, resp.StatusCode)
						assert.Equal(t, "no", resp.Text)
						assert.NoError(t, c.Close())
					}
				})
			})
		})
	}
}

// An upstream that streams its answer while it reads the request, as long as it
// likes.
func TestBothWays(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n")
		for range 3 {
			p.Expect("1\r\nx\r\n")
			p.Send("1\r\ny\r\n")
		}
		p.Expect("0\r\n\r\n")
		p.Send("0\r\n\r\n")
		p.Gone()
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(chunkedPost)
		assert.Contains(t, c.Head(), "200 OK")
		for range 3 {
			c.Send("1\r\nx\r\n")
			c.Expect("1\r\ny\r\n")
		}
		c.Send("0\r\n\r\n")
		c.Expect("0\r\n\r\n")
		c.End() // what became of the request was not known when the head was sent
		assert.Equal(t, 1, r.idle(), "both messages were complete")
		r.blamed(nil, nil)
	})
}

// A body in chunks shows its size while it is read.
func TestBodyMaxOfChunks(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		p.Head()
		p.Gone()
	}
	engines(t, setup{client: exchange.Config{BodyMax: 100_000}}, script, func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send(chunkedPost, "30d40\r\n"+strings.Repeat("x", 200_000))
		resp := c.Answer("POST")
		assert.Equal(t, 413, resp.StatusCode)
		assert.True(t, resp.Close)
		r.blamed([]stats.ClientError{stats.BodyTooLarge}, nil)
	})
}

// clientFaults are what a client can do wrong in the middle of a request.
var clientFaults = []struct {
	name   string
	do     func(c *looptest.Peer)
	status int // of the answer; 0: none
	blame  stats.ClientError
}{
	{"leaves", func(c *looptest.Peer) { _ = c.Close() }, 0, stats.ClientReset},
	{"leaves half", func(c *looptest.Peer) { _ = c.CloseWrite() }, 0, stats.ClientReset},
	{"resets", func(c *looptest.Peer) { c.Reset() }, 0, stats.ClientReset},
	{"stops", func(*looptest.Peer) {}, 408, stats.RequestTimeout},
	{"breaks its chunks", func(c *looptest.Peer) { c.Send("\r\nnonsense\r\n") }, 400, stats.BadRequest},
}

func TestUploadFaults(t *testing.T) {
	for _, row := range clientFaults {
		t.Run(row.name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				closed := make(chan struct{})
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				up := e.Script(func(p *looptest.Peer, _ int) {
					p.Head()
					p.Expect("3e8\r\n" + strings.Repeat("x", 1000) + "\r\n")
					p.Gone()
					close(closed)
				})
				s := setup{}
				if row.status == 408 {
					s.body = time.Second // in which a busy machine has sent what comes before
				}
				r := proxyOn(e, s, up.Address)
				c := r.Client(r.address)
				c.Send(chunkedPost, "3e8\r\n"+strings.Repeat("x", 1000))
				time.Sleep(20 * time.Millisecond)
				row.do(c)
				<-closed
				if row.status != 0 {
					resp := c.Answer("POST")
					assert.Equal(t, row.status, resp.StatusCode)
					assert.True(t, resp.Close)
					c.End()
					assert.NoError(t, c.Close())
				}
				r.settled()
				r.Eventually("the client to be gone", func() bool { return r.Loop.Counters().Open.Load() == 0 })
				r.blamed([]stats.ClientError{row.blame}, nil)
				assert.Zero(t, r.idle())
			})
		})
	}
}

// A body that comes in drops, each in time, is cut off; one that comes fast enough
// is not, however long it takes.
func TestUploadRate(t *testing.T) {
	for _, row := range []struct {
		name   string
		piece  int // bytes at a time
		more   int // bytes that never come
		status int
	}{{"drops", 1, 1, 408}, {"steady", 20_000, 0, 200}} {
		t.Run(row.name, func(t *testing.T) {
			const pieces = 30
			closed := make(chan struct{})
			script := func(p *looptest.Peer, _ int) {
				p.Head()
				if row.status == 200 {
					p.Text(pieces * row.piece)
					p.Send(ok)
				}
				p.Gone()
				closed <- struct{}{}
			}
			s := setup{rateMin: 1000, rateGrace: 500 * time.Millisecond}
			engines(t, s, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				length := pieces*row.piece + row.more
				piece := strings.Repeat("x", row.piece)
				// The first piece comes with the head: a busy machine takes its time between them.
				c.Send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length) + piece)
				for range pieces - 1 {
					if _, err := io.WriteString(c, piece); err != nil {
						break // it was told
					}
					time.Sleep(25 * time.Millisecond) // for longer than the grace
				}
				resp := c.Answer("POST")
				assert.Equal(t, row.status, resp.StatusCode)
				assert.Equal(t, row.status != 200, resp.Close)
				if row.status == 200 {
					assert.Equal(t, 1, r.idle())
					r.Loop.Stop()
					<-closed
					r.blamed(nil, nil)
					return
				}
				<-closed // although nobody asked it to
				assert.Zero(t, r.idle())
				r.blamed([]stats.ClientError{stats.RequestTimeout}, nil)
			})
		})
	}
}

// The same while the upstream is answering already: the answer breaks off.
func TestUploadFaultsWhileAnswered(t *testing.T) {
	for _, row := range clientFaults {
		t.Run(row.name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				closed := make(chan struct{})
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				up := e.Script(func(p *looptest.Peer, _ int) {
					p.Head()
					p.Expect("3e8\r\n" + strings.Repeat("x", 1000) + "\r\n")
					p.Send("HTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 100\r\n\r\nhello")
					p.Gone()
					close(closed)
				})
				s := setup{}
				if row.status == 408 {
					s.body = time.Second // in which a busy machine has sent what comes before
				}
				r := proxyOn(e, s, up.Address)
				c := r.Client(r.address)
				c.Send(chunkedPost, "3e8\r\n"+strings.Repeat("x", 1000))
				assert.Contains(t, c.Head(), "200 OK")
				c.Expect("hello")
				row.do(c)
				<-closed
				if row.name == "stops" || row.status == 400 {
					_, err := c.Rest()
					assert.ErrorContains(t, err, "reset")
				}
				r.settled()
				r.blamed([]stats.ClientError{row.blame}, nil)
			})
		})
	}
}

// An upstream that answers before it has the body keeps its connection only if
// it gets all of the body as well: else the next request would be taken for the
// rest.
func TestEarlyResponseRaces(t *testing.T) {
	script := func(p *looptest.Peer, _ int) {
		for head := p.Head(); head != ""; head = p.Head() {
			p.Send(ok)
			body := make([]byte, 5)
			if n, err := io.ReadFull(p.In, body); err != nil {
				assert.Equal(t, "hello"[:n], string(body[:n]))
				return
			}
			assert.Equal(t, "hello", string(body), "the next request came as a body")
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		for i := range 300 {
			c := r.Client(r.address)
			c.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
			for range i * 20 {
				runtime.Gosched()
			}
			_, _ = c.Write([]byte("hello")) // it may be told that nobody wants it
			assert.Equal(t, "ok", c.Answer("POST").Text)
			assert.NoError(t, c.Close())
		}
	})
}
