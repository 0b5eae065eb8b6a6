package forward_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/balance"
	"atlas/proxy/exchange"
	"atlas/proxy/forward"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

const patience = 30 * time.Second

// setup is what a test wants otherwise than usual. Time-outs that it leaves out
// are patience.
type setup struct {
	client                        exchange.Config
	upstream, body, write         time.Duration
	connect, tunnel               time.Duration
	rateMin                       int64
	rateGrace                     time.Duration
	strategy                      balance.Strategy // least_connections, which counts what is in flight
	weights                       []int            // 1 each
	options                       upstream.Options // what else the group is told
	retries                       int              // 2; negative: none
	route                         forward.Route
	receiveBuffers, receiveLength int // of a ring
}

// rig is a worker that proxies to some targets.
type rig struct {
	*looptest.Env
	address string
	stats   *stats.Stats
	pool    *upstream.Pool
	group   *upstream.Group
}

// proxy starts a worker that forwards to the targets. When the test ends,
// nothing may be in flight any more, and no upstream connection open that is not
// in the pool.
func proxy(t testing.TB, engine loop.Engine, s setup, targets ...loop.Address) *rig {
	t.Helper()
	e := looptest.New(t, loop.Config{Engine: engine, CPU: -1, Buffers: s.receiveBuffers, BufferBytes: s.receiveLength})
	return proxyOn(e, s, targets...)
}

func proxyOn(e *looptest.Env, s setup, targets ...loop.Address) *rig {
	e.Helper()
	for _, d := range []*time.Duration{&s.upstream, &s.body, &s.write, &s.connect,
		&s.client.Header, &s.client.Body, &s.client.Write, &s.client.Idle} {
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
	r := &rig{Env: e, stats: new(stats.Stats)}
	r.group = upstream.NewGroup(e.Context(), s.group(targets))
	r.pool = upstream.New(r.Loop, upstream.Config{
		Group: r.group, Connect: s.connect, Idle: patience, Seed: 1, RetryBudget: 20, Stats: r.stats,
	})
	s.route.Strategy = s.strategy
	h := forward.New(forward.Config{
		Upstream: s.upstream, Body: s.body, Write: s.write, Retries: max(s.retries, 0), Route: s.route,
		Tunnel: s.tunnel, Via: "atlas", RateMin: s.rateMin, RateGrace: s.rateGrace,
	}, r.pool)
	if s.client.Name == "" {
		s.client.Name = "me"
	}
	s.client.Stats = r.stats
	r.address = r.Listen(exchange.NewServer(s.client, h))
	r.group.Start()
	r.Cleanup(func() {
		r.group.Stop()
		r.settled()
	})
	return r
}

// group is what the test wants of its upstreams: one for each target, unless it
// says more.
func (s *setup) group(targets []loop.Address) upstream.Options {
	o := s.options
	o.Strategy = s.strategy
	if o.QueueWait == 0 {
		o.QueueWait = patience
	}
	for i, address := range targets {
		if i == len(o.Upstreams) {
			o.Upstreams = append(o.Upstreams, upstream.Upstream{})
		}
		u := &o.Upstreams[i]
		u.Name, u.Address, u.Weight = fmt.Sprint("u", i), address, 1
		if s.weights != nil {
			u.Weight = s.weights[i]
		}
	}
	return o
}

// settled wants every exchange to be over and accounted for.
func (r *rig) settled() {
	r.Helper()
	r.Eventually("exchanges to end", func() bool { return r.group.Active() == 0 })
	r.Eventually("upstream connections to be idle or closed", func() bool {
		return r.Loop.Counters().Dialled.Load() == int64(r.idle())
	})
	assert.Zero(r, r.Loop.Counters().Panics.Load(), "panics")
}

// idle is how many upstream connections are kept.
func (r *rig) idle() (n int) {
	done := make(chan struct{})
	count := func() {
		defer close(done)
		n = r.pool.Idle()
	}
	if !r.Loop.Post(count) {
		return 0 // the worker has ended, and so has its pool
	}
	<-done
	return n
}

// blamed wants these errors to have been counted, once each, and no others.
func (r *rig) blamed(client []stats.ClientError, upstreams []stats.UpstreamError) {
	r.Helper()
	var want, got []string
	for _, e := range client {
		want = append(want, e.String())
	}
	for _, e := range upstreams {
		want = append(want, e.String())
	}
	for i := range r.stats.ClientErrors {
		for range r.stats.ClientErrors[i].Load() {
			got = append(got, stats.ClientError(i).String())
		}
	}
	for i := range r.stats.UpstreamErrors {
		for range r.stats.UpstreamErrors[i].Load() {
			got = append(got, stats.UpstreamError(i).String())
		}
	}
	assert.Equal(r, want, got, "errors that were counted")
}

// engines runs test on both engines, with one scripted upstream.
func engines(t *testing.T, s setup, script func(*looptest.Peer, int), test func(t *testing.T, r *rig)) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1, Buffers: s.receiveBuffers, BufferBytes: s.receiveLength})
		up := e.Script(script)
		test(t, proxyOn(e, s, up.Address))
	})
}

const (
	get  = "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
	ok   = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok"
	post = "POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\nhello"
)

// recorder answers each request without a body with ok, and keeps the heads.
type recorder chan string

func (seen recorder) script(p *looptest.Peer, _ int) {
	for head := p.Head(); head != ""; head = p.Head() {
		seen <- head
		p.Send(ok)
	}
}

// fields are the field lines of a head, without what we add to every request.
func fields(head string) (kept []string) {
	for _, line := range strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")[1:] {
		name, _, _ := strings.Cut(line, ":")
		if !strings.HasPrefix(name, "X-Forwarded-") && name != "Via" && name != "Host" {
			kept = append(kept, line)
		}
	}
	return kept
}

func firstLine(head string) string {
	line, _, _ := strings.Cut(head, "\r\n")
	return line
}
