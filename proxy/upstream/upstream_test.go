package upstream

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

const patience = 30 * time.Second

// rig is a worker with a pool.
type rig struct {
	*looptest.Env
	options Options
	config  Config
	pool    *Pool
	stats   *stats.Stats
}

// engines runs test on both engines, with a pool for the targets that it names.
func engines(t *testing.T, cfg Config, test func(t *testing.T, r *rig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := &rig{Env: looptest.New(t, loop.Config{Engine: engine, CPU: -1}), stats: new(stats.Stats)}
		r.config, r.config.Stats = cfg, r.stats
		if cfg.Connect == 0 {
			r.config.Connect = patience
		}
		if cfg.Idle == 0 {
			r.config.Idle = patience
		}
		r.options = Options{Strategy: balance.RoundRobin, QueueMax: 10, QueueWait: patience}
		test(t, r)
	})
}

// to makes a pool for some addresses, each an upstream: "a", "b" and so on.
func (r *rig) to(addresses ...loop.Address) {
	o := r.options
	for i, address := range addresses {
		if i == len(o.Upstreams) {
			o.Upstreams = append(o.Upstreams, Upstream{Weight: 1})
		}
		o.Upstreams[i].Name, o.Upstreams[i].Address = string(rune('a'+i)), address
	}
	r.config.Group = NewGroup(r.Context(), o)
	r.config.Group.Start()
	r.Cleanup(r.config.Group.Stop)
	r.pool = New(r.Loop, r.config)
	r.Post(r.pool.refresh)
}

// take is Take of a test that expects a connection to the first upstream.
func (r *rig) take(fresh bool) *Conn {
	c, err := r.pool.Take(r.pool.targets[0], fresh)
	if !assert.NoError(r, err) {
		panic("no connection")
	}
	return c
}

// idle is the pool's own count, asked on the worker.
func (r *rig) idle() (n int) {
	r.Post(func() { n = r.pool.Idle() })
	return n
}

// silent is an upstream that waits for the other side's end.
func silent(p *looptest.Peer, _ int) { p.Gone() }

func TestReuse(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		s := r.Script(silent)
		r.to(s.Address)
		r.Task(func() {
			a, b, c := r.take(false), r.take(false), r.take(false)
			connA, connB, connC := a.Conn, b.Conn, c.Conn
			assert.False(t, a.Reused)
			a.Release(Forever)
			b.Release(Forever)
			c.Release(Forever)
			assert.Equal(t, 3, r.pool.Idle())

			warmest := r.take(false)
			assert.Same(t, connC, warmest.Conn, "last in, first out")
			assert.True(t, warmest.Reused)
			next := r.take(false)
			assert.Same(t, connB, next.Conn)
			fresh := r.take(true)
			assert.NotSame(t, connA, fresh.Conn, "it was asked to dial")
			assert.False(t, fresh.Reused)
			coldest := r.take(false)
			assert.Same(t, connA, coldest.Conn)
			last := r.take(false)
			assert.False(t, last.Reused, "none is left")
			for _, c := range []*Conn{warmest, next, fresh, coldest, last} {
				c.Drop()
			}
		})
		r.Eventually("the connections", func() bool { return s.Accepted() == 5 })
	})
}

// A struct that served a connection serves another one as if it were new.
func TestDropForgets(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(r.Script(silent).Address)
		r.Task(func() {
			c := r.take(false)
			c.Release(Forever)
			c = r.take(false)
			assert.True(t, c.Reused)
			c.Drop()
			again := r.take(false)
			assert.Same(t, c, again)
			assert.False(t, again.Reused)
			again.Drop()
		})
		r.Eventually("the connections to close", func() bool { return r.Loop.Counters().Dialled.Load() == 0 })
	})
}

// An idle connection that the upstream ends, resets or uses out of turn is closed
// without being asked for, and never handed out.
func TestLost(t *testing.T) {
	for name, end := range map[string]func(*looptest.Peer){
		"ended":  func(p *looptest.Peer) {},
		"reset":  func(p *looptest.Peer) { p.Reset() },
		"speaks": func(p *looptest.Peer) { p.Send("HTTP/1.1 408 Request Timeout\r\n\r\n"); p.Gone() },
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, Config{}, func(t *testing.T, r *rig) {
				release := make(chan struct{})
				s := r.Script(func(p *looptest.Peer, nth int) {
					if nth == 1 {
						<-release
						end(p)
						return
					}
					p.Gone()
				})
				r.to(s.Address)
				r.Task(func() {
					conns := []*Conn{r.take(false), r.take(false), r.take(false)}
					for _, c := range conns {
						c.Release(Forever)
					}
				})
				assert.Equal(t, 3, r.idle())
				close(release)
				r.Eventually("the loss to be noticed", func() bool { return r.idle() == 2 })
				r.Eventually("the lost one to close", func() bool { return r.Loop.Counters().Dialled.Load() == 2 })
				r.Task(func() {
					conns := []*Conn{r.take(false), r.take(false), r.take(false)}
					for i, c := range conns {
						assert.Equal(t, i < 2, c.Reused)
						c.Drop()
					}
				})
			})
		})
	}
}

// The upstream ends a connection, and a moment later it is asked for: nobody has
// been told yet, perhaps.
func TestLostJustNow(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		ended := make(chan struct{})
		s := r.Script(func(p *looptest.Peer, nth int) {
			if nth == 0 {
				p.Expect("x")
				_ = p.CloseWrite()
				close(ended)
			}
			p.Gone()
		})
		r.to(s.Address)
		r.Task(func() {
			c := r.take(false)
			_, err := c.Write([]byte("x"))
			assert.NoError(t, err)
			assert.NoError(t, c.Flush())
			c.Release(Forever)
		})
		<-ended
		time.Sleep(20 * time.Millisecond)
		r.Task(func() {
			c := r.take(false)
			assert.False(t, c.Reused)
			c.Drop()
		})
		r.Eventually("the connections", func() bool { return s.Accepted() == 2 })
	})
}

func TestExpiry(t *testing.T) {
	engines(t, Config{Idle: 50 * time.Millisecond}, func(t *testing.T, r *rig) {
		closed := make(chan struct{})
		s := r.Script(func(p *looptest.Peer, _ int) { p.Gone(); close(closed) })
		r.to(s.Address)
		r.Task(func() { r.take(false).Release(Forever) })
		<-closed
		r.Eventually("the pool to forget it", func() bool { return r.idle() == 0 })
	})
}

// More than idleMax are kept for a moment only.
func TestSurplus(t *testing.T) {
	skipShort(t)
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(r.Script(silent).Address)
		r.Task(func() {
			var conns []*Conn
			for range idleMax + 20 {
				conns = append(conns, r.take(false))
			}
			for _, c := range conns {
				c.Release(Forever)
			}
			assert.Equal(t, idleMax+20, r.pool.Idle())
		})
		r.Eventually("the surplus to go", func() bool { return r.idle() == idleMax })
	})
}

func skipShort(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for seconds")
	}
}

// What cannot carry another exchange is not kept.
func TestReleaseDrops(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		s := r.Script(func(p *looptest.Peer, nth int) {
			p.Send("left over")
			p.Gone()
		})
		r.to(s.Address)
		r.Task(func() {
			c := r.take(false)
			assert.NoError(t, c.Fill())
			c.Release(Forever)
			assert.Zero(t, r.pool.Idle(), "with bytes that nobody has read")

			c = r.take(false)
			assert.NoError(t, c.Fill())
			c.Consume(len(c.Peek()))
			c.since -= loop.Instant(lifeMax + time.Minute)
			c.Release(Forever)
			assert.Zero(t, r.pool.Idle(), "older than lifeMax")

			c = r.take(false)
			assert.NoError(t, c.Fill())
			c.Consume(len(c.Peek()))
			c.Release(Forever)
			assert.Equal(t, 1, r.pool.Idle())
		})
		open := r.Listen(looptest.Funcs{OnServe: func(c loop.Conn) bool {
			busy := r.take(true)
			assert.NoError(t, busy.Fill())
			busy.Consume(len(busy.Peek()))
			for !r.Loop.Draining() {
				r.Loop.Sleep(time.Millisecond)
			}
			idle := r.pool.Idle()
			busy.Release(Forever)
			assert.Equal(t, idle, r.pool.Idle(), "while the worker drains")
			return false
		}})
		client := r.Client(open)
		client.Send("x")
		r.Eventually("the task", func() bool { return s.Accepted() == 4 })
		r.Loop.Drain()
		client.Gone()
		r.Loop.Wait()
		assert.Zero(t, r.Loop.Counters().Dialled.Load())
	})
}

func TestDialFails(t *testing.T) {
	// A busy machine hears of a refusal in that time.
	engines(t, Config{Connect: time.Second}, func(t *testing.T, r *rig) {
		refuses := loop.Address{AddrPort: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(looptest.FreePort(t)))}
		full, missing := r.Full(), loop.Address{Path: filepath.Join(t.TempDir(), "none")}
		r.to(refuses, full, missing)
		r.Task(func() {
			c, err := r.pool.Take(r.pool.targets[0], false)
			assert.Nil(t, c)
			assert.EqualError(t, err, "upstream a ("+refuses.String()+"): connect: connection refused")
			_, err = r.pool.Take(r.pool.targets[1], false)
			assert.EqualError(t, err, "upstream b ("+full.String()+"): connect: deadline passed")
			assert.ErrorIs(t, err, loop.ErrDeadline)
			_, err = r.pool.Take(r.pool.targets[2], true)
			assert.EqualError(t, err, "upstream c (unix:"+missing.Path+"): connect: no such file or directory")
		})
		assert.EqualValues(t, 2, r.stats.UpstreamErrors[stats.Refused].Load())
		assert.EqualValues(t, 1, r.stats.UpstreamErrors[stats.ConnectTimeout].Load())
		r.Eventually("the sockets to close", func() bool { return r.Loop.Counters().Dialled.Load() == 0 })
	})
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		for { // one connection after the other
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			_ = c.Close()
		}
	}()
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(loop.Address{Path: path})
		r.Task(func() {
			for range 2 {
				c := r.take(false)
				_, err := c.Write([]byte("hello"))
				assert.NoError(t, err)
				assert.NoError(t, c.Flush())
				assert.NoError(t, c.Fill())
				assert.Equal(t, "hello", string(c.Peek()))
				c.Consume(5)
				c.Release(Forever)
			}
			r.take(false).Drop()
		})
	})
}

// An upstream that says how long it keeps an idle connection is not asked in the
// last second before that.
func TestKeepAliveTimeout(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(r.Script(silent).Address)
		r.Task(func() {
			r.take(true).Release(0)
			r.take(true).Release(1)
			assert.Zero(t, r.pool.Idle(), "it may be closing already")
			r.take(true).Release(3600)
			assert.Equal(t, 1, r.pool.Idle())
		})
		if testing.Short() {
			return
		}
		r.Task(func() { r.take(false).Release(2) })
		assert.Equal(t, 1, r.idle())
		r.Eventually("its second to pass", func() bool { return r.idle() == 0 })
	})
}

// Idle connections that are wanted are made without being asked for, and again
// when they are lost.
func TestMinIdle(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		lose := make(chan struct{})
		s := r.Script(func(p *looptest.Peer, nth int) {
			if nth == 1 {
				<-lose
				return
			}
			p.Gone()
		})
		r.options.Upstreams = []Upstream{{Weight: 1, MinIdle: 3}}
		r.to(s.Address)
		// A connection is there before the other side has accepted it.
		r.Eventually("connections", func() bool { return r.idle() == 3 && s.Accepted() == 3 })
		close(lose)
		r.Eventually("one more", func() bool { return s.Accepted() == 4 && r.idle() == 3 })
	})
}
