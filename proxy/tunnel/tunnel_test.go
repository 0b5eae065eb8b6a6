package tunnel_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/proxyhead"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// echo answers every byte until the client's end, then ends.
func echo(p *looptest.Peer, _ int) {
	_, _ = io.Copy(struct{ io.Writer }{p}, struct{ io.Reader }{p.In}) // a reset is the test's
}

// says names itself first, and then echoes.
func says(name string) func(*looptest.Peer, int) {
	return func(p *looptest.Peer, nth int) {
		p.Send(name)
		echo(p, nth)
	}
}

// In some protocols the client says nothing before the server has.
func TestServerFirst(t *testing.T) {
	engines(t, setup{}, to(func(p *looptest.Peer, _ int) {
		p.Send("220 hello\r\n")
		p.Expect("EHLO x\r\n")
		p.Send("250 x\r\n")
		p.Expect("QUIT\r\n")
		p.Send("221 bye\r\n")
	}), func(t *testing.T, r *rig) {
		for range 5 {
			c := r.Client(r.address)
			c.Expect("220 hello\r\n")
			c.Send("EHLO x\r\n")
			c.Expect("250 x\r\n")
			c.Send("QUIT\r\n")
			c.Expect("221 bye\r\n")
			c.End()
			assert.NoError(t, c.Close())
			r.settled()
		}
		r.failures(0)
	})
}

// What a client sends at once, and its end with it, is not lost while there is no
// upstream yet.
func TestClientFirst(t *testing.T) {
	engines(t, setup{}, to(echo), func(t *testing.T, r *rig) {
		for _, size := range []int{1, 5000, 300_000} {
			text := strings.Repeat("x", size)
			c := r.Client(r.address)
			go func() {
				_, _ = io.WriteString(c, text)
				_ = c.CloseWrite()
			}()
			got, err := c.Rest()
			assert.NoError(t, err)
			assert.Equal(t, text, got)
			assert.NoError(t, c.Close())
		}
		r.settled()
		r.failures(0)
	})
}

// Either side may end first, and goes on to receive.
func TestHalfClose(t *testing.T) {
	engines(t, setup{}, to(func(p *looptest.Peer, nth int) {
		if nth == 0 {
			p.Expect("all that I say")
			p.End()
			p.Send("and ", "this ", "is ", "mine")
			return
		}
		p.Send("all that I say")
		_ = p.CloseWrite()
		p.Expect("and this is mine")
		p.End()
	}), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Send("all that I say")
		assert.NoError(t, c.CloseWrite())
		c.Expect("and this is mine")
		c.End()
		c = r.Client(r.address)
		c.Expect("all that I say")
		c.End()
		c.Send("and ", "this ", "is ", "mine")
		assert.NoError(t, c.Close())
		r.settled()
		r.failures(0)
	})
}

// A reset of one side is one of the other, and told.
func TestResets(t *testing.T) {
	engines(t, setup{}, to(func(p *looptest.Peer, nth int) {
		p.Send("hello")
		if nth == 0 {
			p.Expect("go")
			p.Reset()
			return
		}
		_, err := p.Rest()
		if err == nil {
			p.Send("the client has ended in order") // it must not
		}
	}), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Expect("hello")
		c.Send("go")
		isReset(t, c)
		f := r.failures(1)[0]
		assert.Equal(t, "the upstream broke off", f.Why)
		assert.Equal(t, "a", f.Upstream)
		assert.True(t, f.Peer)
		assert.Equal(t, c.LocalAddr().String(), f.Client.String())
		c = r.Client(r.address)
		c.Expect("hello")
		c.Reset()
		f = r.failures(2)[1]
		assert.Equal(t, "the client broke off", f.Why)
		assert.Equal(t, [2]int64{0, 5}, f.Moved)
		assert.EqualValues(t, 1, r.stats.ClientErrors[stats.ClientReset].Load())
		assert.EqualValues(t, 1, r.stats.UpstreamErrors[stats.UpstreamReset].Load())
	})
}

func TestIdle(t *testing.T) {
	// In that time a busy machine has the upstream say what is to come before.
	engines(t, setup{idle: time.Second}, to(says("hello")), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		c.Expect("hello")
		isReset(t, c)
		f := r.failures(1)[0]
		assert.Equal(t, "nothing has moved for too long", f.Why)
		assert.False(t, f.Peer)
	})
}

func TestGrace(t *testing.T) {
	over := make(chan struct{})
	engines(t, setup{grace: 100 * time.Millisecond}, to(func(p *looptest.Peer, _ int) {
		p.End()
		<-over // it says nothing more
	}), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		assert.NoError(t, c.CloseWrite())
		isReset(t, c)
		over <- struct{}{}
		r.failures(1)
	})
}

// Who does not let us connect is left for another one, and nobody notices.
func TestRetries(t *testing.T) {
	for name, bad := range map[string]func(*looptest.Env) loop.Address{
		"refused":        func(*looptest.Env) loop.Address { return refusing },
		"blackholed":     func(e *looptest.Env) loop.Address { return e.Full() },
		"no such socket": func(*looptest.Env) loop.Address { return loop.Address{Path: "/no/such/socket"} },
	} {
		t.Run(name, func(t *testing.T) {
			targets := func(e *looptest.Env) []loop.Address {
				return []loop.Address{bad(e), e.Script(says("hello")).Address}
			}
			s := setup{strategy: balance.RoundRobin}
			if name == "blackholed" {
				s.connect = 500 * time.Millisecond // in which a busy machine connects where it may
			}
			engines(t, s, targets, func(t *testing.T, r *rig) {
				for range 4 {
					c := r.Client(r.address)
					c.Send("said while it looks")
					c.Expect("hello")
					c.Expect("said while it looks")
					assert.NoError(t, c.Close())
				}
				r.settled()
				r.failures(0)
				assert.NotZero(t, r.stats.Retries.Load())
			})
		})
	}
}

// Where there is none, the client is reset.
func TestNoUpstream(t *testing.T) {
	for name, row := range map[string]struct {
		setup  setup
		target func(*looptest.Env) loop.Address
		why    string
		count  stats.UpstreamError
		times  int64
	}{
		"all refuse": {setup{}, func(*looptest.Env) loop.Address { return refusing },
			"no upstream accepts connections", stats.Refused, 2},
		"one try": {setup{retries: -1}, func(*looptest.Env) loop.Address { return refusing },
			"no upstream accepts connections", stats.Refused, 1},
		"all are blackholed": {setup{connect: 50 * time.Millisecond}, func(e *looptest.Env) loop.Address { return e.Full() },
			"no connection to an upstream in time", stats.ConnectTimeout, 2},
		"no weight": {setup{options: upstream.Options{Upstreams: []upstream.Upstream{{}, {}}}},
			func(*looptest.Env) loop.Address { return refusing }, upstream.ErrNone.Error(), stats.NoUpstream, 1},
	} {
		t.Run(name, func(t *testing.T) {
			targets := func(e *looptest.Env) []loop.Address { return []loop.Address{row.target(e), row.target(e)} }
			engines(t, row.setup, targets, func(t *testing.T, r *rig) {
				r.resets()
				assert.Equal(t, row.why, r.failures(1)[0].Why)
				assert.Equal(t, row.times, r.stats.UpstreamErrors[row.count].Load())
			})
		})
	}
}

// That we have no descriptors is no fault of an upstream: none is ejected for it.
func TestNoDescriptors(t *testing.T) {
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	restore := func() { require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)) }
	t.Cleanup(restore)
	none := limit
	none.Cur = 3
	starving := func(h loop.Handler) loop.Handler {
		return starver{h, func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none) }}
	}
	engines(t, setup{wrap: starving}, to(says("hello")), func(t *testing.T, r *rig) {
		for i := range 5 {
			r.resets()
			restore()
			f := r.failures(i + 1)[i]
			assert.Equal(t, upstream.ErrScarce.Error(), f.Why)
			assert.ErrorIs(t, f.Cause, syscall.EMFILE)
		}
		assert.Zero(t, r.stats.UpstreamErrors[stats.Refused].Load())
	})
}

// starver takes descriptors away when a connection is served.
type starver struct {
	loop.Handler
	starve func()
}

func (s starver) Greets(c loop.Conn) bool { return loop.Greets(s.Handler, c) }

func (s starver) Open(c loop.Conn) {
	s.starve()
	s.Handler.Open(c)
}

// Connections beyond the bound wait for their turn, for a time, in a queue that is
// bounded itself.
func TestQueue(t *testing.T) {
	bounded := setup{options: upstream.Options{
		Upstreams: []upstream.Upstream{{Weight: 1, MaxConnections: 1}}, QueueMax: 2, QueueWait: 2 * time.Second,
	}}
	engines(t, bounded, to(says("hello")), func(t *testing.T, r *rig) {
		first := r.Client(r.address)
		first.Expect("hello")
		second := r.Client(r.address)
		second.Send("I wait")
		second.Quiet()
		leaves := r.Client(r.address)
		leaves.Quiet()
		r.resets() // too many
		assert.Equal(t, upstream.ErrQueueFull.Error(), r.failures(1)[0].Why)
		leaves.Reset()
		assert.Equal(t, "the client went away while it waited for an upstream", r.failures(2)[1].Why)
		assert.NoError(t, first.Close())
		second.Expect("helloI wait")
		r.resets() // too late
		assert.Equal(t, upstream.ErrQueueWait.Error(), r.failures(3)[2].Why)
		assert.NoError(t, second.Close())
		r.settled()
		assert.EqualValues(t, 1, r.stats.UpstreamErrors[stats.QueueFull].Load())
		assert.EqualValues(t, 1, r.stats.UpstreamErrors[stats.QueueTimeout].Load())
	})
}

// Each strategy that knows no requests shares connections out.
func TestStrategies(t *testing.T) {
	for _, strategy := range balance.Strategies() {
		if strategy == balance.Hash {
			continue // the configuration refuses it: there is nothing to go by
		}
		t.Run(string(strategy), func(t *testing.T) {
			targets := func(e *looptest.Env) []loop.Address {
				return []loop.Address{e.Script(says("a")).Address, e.Script(says("b")).Address}
			}
			var client atomic.Uint32
			wrap := func(h loop.Handler) loop.Handler {
				return renamer{h, func(c loop.Conn) { // clients from everywhere
					from := netip.AddrFrom4([4]byte{127, 0, byte(client.Load() >> 8), byte(client.Load())})
					c.SetAddrs(c.Local(), netip.AddrPortFrom(from, 99))
				}}
			}
			engines(t, setup{strategy: strategy, wrap: wrap}, targets, func(t *testing.T, r *rig) {
				got := make(map[string]int)
				var open []*looptest.Peer
				for i := range 60 {
					client.Store(uint32(i))
					c := r.Client(r.address)
					name := c.Text(1)
					again := r.Client(r.address)
					other := again.Text(1)
					if strategy == balance.IPHash {
						assert.Equal(t, name, other, "the same client")
					}
					got[name]++
					got[other]++
					open = append(open, c, again)
				}
				assert.Greater(t, got["a"], 5)
				assert.Greater(t, got["b"], 5)
				if strategy == balance.LeastConnections || strategy == balance.RoundRobin {
					assert.Equal(t, got["a"], got["b"])
				}
				for _, c := range open {
					assert.NoError(t, c.Close())
				}
				r.settled()
			})
		})
	}
}

// renamer has connections come from somewhere else.
type renamer struct {
	loop.Handler
	rename func(loop.Conn)
}

func (n renamer) Greets(c loop.Conn) bool { return loop.Greets(n.Handler, c) }

func (n renamer) Open(c loop.Conn) {
	n.rename(c)
	n.Handler.Open(c)
}

// A connection counts for as long as it lasts.
func TestLeastConnections(t *testing.T) {
	targets := func(e *looptest.Env) []loop.Address {
		return []loop.Address{e.Script(says("a")).Address, e.Script(says("b")).Address}
	}
	engines(t, setup{}, targets, func(t *testing.T, r *rig) {
		stays := r.Client(r.address)
		busy := stays.Text(1)
		for range 10 {
			c := r.Client(r.address)
			assert.NotEqual(t, busy, c.Text(1))
			assert.NoError(t, c.CloseWrite())
			c.End()
			assert.NoError(t, c.Close())
			r.Eventually("it to end", func() bool { return r.group.Active() == 1 })
		}
		assert.NoError(t, stays.Close())
	})
}

// An upstream that refuses again and again is left alone, and so is one that
// checks call down, until they call it up.
func TestHealth(t *testing.T) {
	check := &upstream.Check{Interval: 20 * time.Millisecond, Timeout: patience, Fall: 1, Rise: 1}
	targets := func(e *looptest.Env) []loop.Address {
		return []loop.Address{refusing, e.Script(func(p *looptest.Peer, nth int) {
			_, _ = io.WriteString(p, "b") // a check may have gone
			echo(p, nth)
		}).Address}
	}
	o := upstream.Options{Upstreams: []upstream.Upstream{{Weight: 1, Check: check}, {Weight: 1, Check: check}}}
	engines(t, setup{options: o, strategy: balance.RoundRobin, retries: -1}, targets, func(t *testing.T, r *rig) {
		r.Eventually("a to be down", func() bool {
			for range 4 { // round robin would have met a
				c, err := net.DialTimeout("tcp", r.address, patience)
				if err != nil {
					return false
				}
				text, _ := io.ReadAll(io.LimitReader(c, 1))
				_ = c.Close()
				if string(text) != "b" {
					return false
				}
			}
			return true
		})
		for range 10 {
			c := r.Client(r.address)
			c.Expect("b")
			assert.NoError(t, c.Close())
		}
	})
}

// Volumes go both ways at once, unharmed, through pipes where the system has them.
func TestVolume(t *testing.T) {
	size := 64 << 20
	if testing.Short() {
		size = 16 << 20
	}
	volume := looptest.Pattern(size)
	backwards := append([]byte(nil), volume...)
	for i := range backwards {
		backwards[i] ^= 0xff
	}
	taken := make(chan bool, 1)
	long := func(p *looptest.Peer) { assert.NoError(t, p.SetDeadline(time.Now().Add(12*patience))) } // for a busy machine
	engines(t, setup{}, to(func(p *looptest.Peer, _ int) {
		long(p)
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = p.Write(backwards)
			_ = p.CloseWrite()
		})
		got, err := io.ReadAll(p.In)
		assert.NoError(t, err)
		taken <- assert.True(t, bytes.Equal(volume, got))
		all.Wait()
	}), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		long(c)
		var sent sync.WaitGroup
		sent.Go(func() {
			_, err := c.Write(volume)
			assert.NoError(t, err)
			assert.NoError(t, c.CloseWrite())
		})
		got, err := io.ReadAll(c.In)
		assert.NoError(t, err)
		assert.True(t, bytes.Equal(backwards, got))
		sent.Wait()
		assert.True(t, <-taken)
		assert.NoError(t, c.Close())
		r.settled()
		r.failures(0)
	})
}

// Thousands at once, each with its own words.
func TestMany(t *testing.T) {
	const many = 1500
	engines(t, setup{}, to(says("hello")), func(t *testing.T, r *rig) {
		clients := make([]*looptest.Peer, many)
		for i := range clients {
			clients[i] = r.Client(r.address)
		}
		for i, c := range clients {
			c.Send(fmt.Sprintf("I am %d", i))
		}
		for i, c := range clients {
			c.Expect(fmt.Sprintf("helloI am %d", i))
		}
		assert.EqualValues(t, many, r.Loop.Counters().Open.Load())
		assert.Equal(t, many, r.group.Active())
		for _, c := range clients {
			assert.NoError(t, c.Close())
		}
		r.settled()
		r.failures(0)
	})
}

// A drain waits for connections to end by themselves; a stop cuts them.
func TestDrain(t *testing.T) {
	engines(t, setup{}, to(says("hello")), func(t *testing.T, r *rig) {
		c, silent := r.Client(r.address), r.Client(r.address)
		c.Expect("hello")
		silent.Expect("hello")
		r.Loop.Drain()
		c.Send("still here")
		c.Expect("still here")
		assert.NoError(t, c.CloseWrite())
		c.End()
		silent.Quiet()
		r.Loop.Stop()
		isReset(t, silent)
		r.Loop.Wait()
		r.failures(0)
	})
}

// An upstream that wants to know is told who the client is, before anything else
// and before the client has said anything.
func TestIntroduction(t *testing.T) {
	for _, version := range []proxyhead.Version{proxyhead.V1, proxyhead.V2} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			heads := make(chan proxyhead.Header, 1)
			script := func(p *looptest.Peer, _ int) {
				var parser proxyhead.Parser
				var head []byte
				for {
					one, err := p.In.ReadByte()
					if !assert.NoError(t, err) {
						return
					}
					head = append(head, one)
					if _, h, err := parser.Parse(head); err != proxyhead.ErrShort {
						assert.NoError(t, err)
						heads <- h
						break
					}
				}
				says("hello")(p, 0)
			}
			o := upstream.Options{Upstreams: []upstream.Upstream{{Weight: 1, SendProxy: version}}}
			engines(t, setup{options: o}, to(script), func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				c.Expect("hello")
				h := <-heads
				assert.Equal(t, c.LocalAddr().String(), h.From.String())
				assert.Equal(t, r.address, h.To.String())
				c.Send("and", " more")
				c.Expect("and more")
				assert.NoError(t, c.Close())
			})
		})
	}
}

// asking is a connection of a client that has asked for a name, as TLS ends in
// front of us, and that cannot be spliced.
type asking struct{ loop.Conn }

func (asking) State() tls.ConnectionState {
	return tls.ConnectionState{Version: tls.VersionTLS13, ServerName: "a.example", NegotiatedProtocol: "mqtt",
		CipherSuite: tls.TLS_AES_128_GCM_SHA256}
}

// terminator hands such connections to the handler behind it.
type terminator struct{ loop.Handler }

func (h terminator) Greets(c loop.Conn) bool       { return loop.Greets(h.Handler, c) }
func (h terminator) Serve(c loop.Conn) (keep bool) { return h.Handler.Serve(asking{c}) }

// What a protocol in front of us knows goes on with it.
func TestIntroductionOfTLS(t *testing.T) {
	const fields = "\x01\x00\x04mqtt\x02\x00\x09a.example" +
		"\x20\x00\x28\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3\x23\x00\x16TLS_AES_128_GCM_SHA256"
	volume := looptest.Pattern(4 << 20)
	o := upstream.Options{Upstreams: []upstream.Upstream{{Weight: 1, SendProxy: proxyhead.V2}}}
	wrap := func(h loop.Handler) loop.Handler { return terminator{h} }
	engines(t, setup{options: o, wrap: wrap}, to(func(p *looptest.Peer, nth int) {
		assert.True(t, strings.HasSuffix(p.Text(16+12+len(fields)), fields))
		echo(p, nth)
	}), func(t *testing.T, r *rig) {
		c := r.Client(r.address)
		go func() {
			_, _ = c.Write(volume)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c.In)
		assert.NoError(t, err)
		assert.True(t, bytes.Equal(volume, got))
		assert.Zero(t, r.Loop.Counters().Spliced.Load())
		assert.NoError(t, c.Close())
	})
}
