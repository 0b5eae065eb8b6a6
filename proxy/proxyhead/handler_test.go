package proxyhead_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/proxyhead"
	"atlas/proxy/stats"
)

const (
	patience = 30 * time.Second
	line     = "PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"
	told     = "198.51.100.1:443 192.0.2.7:40000\n"
)

// rig is a worker whose handler says between whom it is, and echoes.
type rig struct {
	*looptest.Env
	address string
	stats   *stats.Stats
	mu      sync.Mutex
	refused []string
}

// above is the handler behind; it may greet.
type above struct {
	greets bool
	opened func(loop.Conn)
}

func (a above) Open(c loop.Conn) {
	c.SetReadDeadline(c.Loop().Now().After(patience))
	c.Attach("of the handler above")
	if a.opened != nil {
		a.opened(c)
	}
}

func (a above) Greets(loop.Conn) bool { return a.greets }

func (a above) Serve(c loop.Conn) bool {
	if c.Attachment() == "of the handler above" || c.Attachment() == nil {
		c.Attach("served")
		if _, err := c.Write([]byte(c.Local().String() + " " + c.Remote().String() + "\n")); err != nil {
			return false
		}
	}
	_, err := c.Write(c.Peek())
	c.Consume(len(c.Peek()))
	return err == nil && c.Flush() == nil
}

// rigs starts one on each engine, with and without greeting.
func rigs(t *testing.T, from string, wait time.Duration, test func(t *testing.T, r *rig, greets bool)) {
	for name, greets := range map[string]bool{"the client speaks first": false, "the server may": true} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := &rig{Env: looptest.New(t, loop.Config{Engine: engine, CPU: -1}), stats: new(stats.Stats)}
				r.address = r.Listen(proxyhead.NewHandler(proxyhead.Config{
					From:  []netip.Prefix{netip.MustParsePrefix(from)},
					Wait:  wait,
					Stats: r.stats,
					Refused: func(proxy netip.AddrPort, why error) {
						assert.True(t, proxy.Addr().IsLoopback())
						r.mu.Lock()
						defer r.mu.Unlock()
						r.refused = append(r.refused, why.Error())
					},
				}, above{greets: greets}))
				test(t, r, greets)
			})
		})
	}
}

func (r *rig) refusals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	assert.EqualValues(r, len(r.refused), r.stats.ClientErrors[stats.BadProxyHeader].Load())
	return r.refused
}

// A header makes the connection the client's, whatever comes with it or later.
func TestHandler(t *testing.T) {
	rigs(t, "127.0.0.0/8", patience, func(t *testing.T, r *rig, greets bool) {
		for _, pieces := range [][]string{
			{line + "hello"}, {line, "hello"}, {line[:3], line[3:20], line[20:] + "hel", "lo"},
			strings.Split(line+"hello", ""),
		} {
			c := r.Client(r.address)
			c.Send(pieces...)
			c.Expect(told + "hello")
			c.Send("more")
			c.Expect("more")
			assert.NoError(t, c.CloseWrite())
			c.End()
		}
		c := r.Client(r.address)
		c.Send(line)
		if greets {
			c.Expect(told)
		} else {
			c.Quiet()
		}
		c.Send("PROXY TCP4 another one, of the client\r\n")
		if !greets {
			c.Expect(told)
		}
		c.Expect("PROXY TCP4 another one, of the client\r\n")
		assert.Empty(t, r.refusals())
	})
}

// Where the proxy speaks for itself, or does not know, its own address stays.
func TestHandlerLocal(t *testing.T) {
	rigs(t, "127.0.0.1/32", patience, func(t *testing.T, r *rig, _ bool) {
		for _, head := range []string{"PROXY UNKNOWN\r\n", "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"} {
			c := r.Client(r.address)
			c.Send(head + "x")
			c.Expect(r.address + " " + c.LocalAddr().String() + "\nx")
		}
	})
}

// Nobody else is believed: what looks like a header is the client's bytes.
func TestHandlerOthers(t *testing.T) {
	rigs(t, "10.0.0.0/8", patience, func(t *testing.T, r *rig, greets bool) {
		c := r.Client(r.address)
		own := r.address + " " + c.LocalAddr().String() + "\n"
		if greets {
			c.Expect(own)
		}
		c.Send(line)
		if !greets {
			c.Expect(own)
		}
		c.Expect(line)
		assert.Empty(t, r.refusals())
	})
}

// What is no header, or not one in time, is reset, and counted.
func TestHandlerRefuses(t *testing.T) {
	refuses := func(t *testing.T, r *rig, i int, text, why string) {
		c, err := net.DialTimeout("tcp", r.address, patience)
		if err == nil { // else it was reset before it was there
			_, _ = io.WriteString(c, text)
			_, err = io.ReadAll(c)
			assert.NoError(t, c.Close())
		}
		assert.ErrorContains(t, err, "reset", text)
		r.Eventually("the refusal", func() bool { return len(r.refusals()) == i+1 })
		assert.Contains(t, r.refusals()[i], why)
	}
	rigs(t, "127.0.0.0/8", patience, func(t *testing.T, r *rig, _ bool) {
		refuses(t, r, 0, "GET / HTTP/1.1\r\n\r\n", "no PROXY header")
		refuses(t, r, 1, strings.Replace(line, "192", "392", 1), "PROXY header: proxyproto")
		c := r.Client(r.address)
		c.Send(line[:20])
		assert.NoError(t, c.CloseWrite())
		r.Eventually("the refusal", func() bool { return len(r.refusals()) == 3 })
		assert.Contains(t, r.refusals()[2], "EOF")
	})
	rigs(t, "127.0.0.0/8", 100*time.Millisecond, func(t *testing.T, r *rig, _ bool) {
		refuses(t, r, 0, line[:20], "not arrived completely: deadline passed")
		refuses(t, r, 1, "", "not arrived completely: deadline passed")
	})
}

// A proxy that only looks whether somebody listens is no fault.
func TestHandlerLooks(t *testing.T) {
	rigs(t, "127.0.0.0/8", patience, func(t *testing.T, r *rig, _ bool) {
		for i := range 10 {
			c := r.Client(r.address)
			if i%2 == 0 {
				c.Reset()
				continue
			}
			assert.NoError(t, c.Close())
		}
		r.Eventually("all to go", func() bool {
			counters := r.Loop.Counters()
			return counters.Accepted.Load() == 10 && counters.Open.Load() == 0
		})
		assert.Empty(t, r.refusals())
	})
}

// A drain leaves a client alone whose header has come and whose request has not.
func TestHandlerFresh(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		var h *proxyhead.Handler
		seen := make(chan bool, 2)
		h = proxyhead.NewHandler(proxyhead.Config{
			From: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Wait: patience, Stats: new(stats.Stats),
		}, looptest.Funcs{OnServe: func(c loop.Conn) bool {
			seen <- h.Fresh(c)
			return false
		}})
		address := e.Listen(looptest.Funcs{
			OnOpen: func(c loop.Conn) { h.Open(c); seen <- h.Fresh(c) },
			OnServe: func(c loop.Conn) bool {
				keep := h.Serve(c)
				if keep {
					seen <- h.Fresh(c)
				}
				return keep
			},
		})
		c := e.Client(address)
		assert.True(t, <-seen)
		c.Send(line)
		assert.True(t, <-seen)
		c.Send("x")
		assert.False(t, <-seen)
		_, err := io.ReadAll(c)
		assert.NoError(t, err)
	})
}
