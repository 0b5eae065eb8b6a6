package tunnel_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
	"atlas/proxy/tunnel"
	"atlas/proxy/upstream"
)

const patience = 30 * time.Second

// setup is what a test wants otherwise than usual. Time-outs that it leaves out
// are patience.
type setup struct {
	connect, idle, grace time.Duration
	strategy             balance.Strategy // least_connections, which counts what is in flight
	options              upstream.Options // what else the group is told
	retries              int              // 2; negative: none
	wrap                 func(loop.Handler) loop.Handler
}

// rig is a worker in tcp mode, between clients and some targets.
type rig struct {
	*looptest.Env
	address string
	stats   *stats.Stats
	group   *upstream.Group

	mu     sync.Mutex
	failed []tunnel.Failure
}

// engines runs test on both engines. targets are called for each, so that each has
// upstreams of its own. When the test ends, nothing may be in flight any more.
func engines(t *testing.T, s setup, targets func(*looptest.Env) []loop.Address, test func(t *testing.T, r *rig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1, RateMin: 240})
		test(t, tunnels(e, s, targets(e)))
	})
}

// to is one upstream that does what a script says.
func to(script func(p *looptest.Peer, nth int)) func(*looptest.Env) []loop.Address {
	return func(e *looptest.Env) []loop.Address { return []loop.Address{e.Script(script).Address} }
}

func tunnels(e *looptest.Env, s setup, targets []loop.Address) *rig {
	e.Helper()
	for _, d := range []*time.Duration{&s.connect, &s.idle, &s.grace, &s.options.QueueWait} {
		if *d == 0 {
			*d = patience
		}
	}
	if s.strategy == "" {
		s.strategy = balance.LeastConnections
	}
	if s.retries == 0 {
		s.retries = 2
	}
	o := s.options
	o.Strategy = s.strategy
	for i, address := range targets {
		if i == len(o.Upstreams) {
			o.Upstreams = append(o.Upstreams, upstream.Upstream{Weight: 1})
		}
		o.Upstreams[i].Name, o.Upstreams[i].Address = string(rune('a'+i)), address
	}
	r := &rig{Env: e, stats: new(stats.Stats), group: upstream.NewGroup(e.Context(), o)}
	pool := upstream.New(r.Loop, upstream.Config{
		Group: r.group, Connect: s.connect, Idle: patience, Seed: 1, RetryBudget: 20, Stats: r.stats,
	})
	var h loop.Handler = tunnel.New(tunnel.Config{
		Idle: s.idle, Grace: s.grace, Retries: max(s.retries, 0), Strategy: s.strategy, Stats: r.stats,
		Failed: func(f tunnel.Failure) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.failed = append(r.failed, f)
		},
	}, pool)
	if s.wrap != nil {
		h = s.wrap(h)
	}
	r.address = r.Listen(h)
	r.group.Start()
	r.Cleanup(func() {
		r.group.Stop()
		r.settled()
	})
	return r
}

// settled waits until no connection is in flight.
func (r *rig) settled() {
	r.Helper()
	r.Eventually("all connections to end", func() bool {
		counters := r.Loop.Counters()
		return counters.Open.Load() == 0 && counters.Dialled.Load() == 0 && r.group.Active() == 0 &&
			counters.Pipes.Load() == 0
	})
}

// failures waits for that many, and returns them.
func (r *rig) failures(n int) []tunnel.Failure {
	r.Helper()
	r.Eventually("failures", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.failed) >= n
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	assert.Len(r, r.failed, n)
	for _, f := range r.failed {
		assert.True(r, f.Client.Addr().IsLoopback(), "%v", f)
	}
	return r.failed
}

// resets connects, and wants that to be reset, with nothing before.
func (r *rig) resets() {
	r.Helper()
	c, err := net.DialTimeout("tcp", r.address, patience)
	if err == nil { // else it was reset before it was there
		assert.NoError(r, c.SetDeadline(time.Now().Add(patience)))
		var text []byte
		text, err = io.ReadAll(c)
		assert.Empty(r, text)
		assert.NoError(r, c.Close())
	}
	assert.ErrorContains(r, err, "reset")
}

// isReset wants the connection to be reset, with nothing before.
func isReset(t *testing.T, p *looptest.Peer) {
	t.Helper()
	text, err := p.Rest()
	assert.Empty(t, text)
	assert.ErrorContains(t, err, "reset")
}

// refusing is an address that nobody listens on.
var refusing = loop.Address{AddrPort: netip.MustParseAddrPort("127.0.0.1:1")}
