package upstream

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

func (r *rig) report() Report {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	said := r.config.Group.Report(ctx)
	assert.Zero(r, said.Silent)
	return said
}

// What is in flight, idle and counted is what was taken, given back and dropped.
func TestReport(t *testing.T) {
	engines(t, Config{RetryBudget: 20}, func(t *testing.T, r *rig) {
		r.to(r.Script(silent).Address, addresses(1)[0])
		r.Task(func() {
			target, err := r.pool.Pick(balance.Request{}, nil)
			assert.NoError(t, err)
			assert.Equal(t, "a", target.Name)
			kept, dropped, abandoned := r.take(true), r.take(true), r.take(true)
			r.pool.report()
			assert.Equal(t, []targetReport{
				{endpoint: target.Endpoint, requests: 1, busy: 3},
				{endpoint: r.pool.targets[1].Endpoint},
			}, r.pool.reported.Load().targets)
			dropped.Drop()
			abandoned.Abandon()
			kept.Release(Forever)
			r.pool.Done(target)
		})
		said := r.report()
		require.Len(t, said.Endpoints, 2)
		a := said.Endpoints[0]
		assert.Equal(t, EndpointReport{
			Upstream: "a", Address: a.Address, Weight: 1, State: Up, Requests: 1, Idle: 1,
		}, a)
		assert.Equal(t, "192.0.2.1:1", said.Endpoints[1].Address)
		assert.Equal(t, budgetMin*budgetWindow, said.TriesLeft)
		r.Task(func() { assert.True(t, r.pool.MayRetry(nil)) })
	})
}

// A connection that cannot be made is not in flight for ever.
func TestReportRefused(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(loop.Address{AddrPort: netip.MustParseAddrPort("127.0.0.1:1")})
		r.Task(func() {
			_, err := r.pool.Take(r.pool.targets[0], false)
			assert.Error(t, err)
		})
		assert.Zero(t, r.report().Endpoints[0].InFlight)
	})
}

func TestReportStates(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Eject = time.Hour
		r.to(addresses(4)...)
		g := r.config.Group
		r.fail(0, failuresMax)
		g.settle(g.Endpoints()[1], true, nil)
		assert.True(t, g.Drain("c", true))
		assert.False(t, g.Drain("nobody", true))
		var states []State
		said := r.report()
		for _, e := range said.Endpoints {
			states = append(states, e.State)
		}
		assert.Equal(t, []State{Ejected, Down, Drained, Up}, states)
		assert.ElementsMatch(t, States(), states)
		assert.Greater(t, said.Endpoints[0].EjectedFor, time.Minute)
		assert.Equal(t, failuresMax, said.Endpoints[0].FailuresInRow)
		assert.EqualValues(t, failuresMax, said.Endpoints[0].Failures)
		assert.EqualValues(t, 1, said.Endpoints[0].Ejections)
	})
}

func TestReportChecks(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.options.Upstreams = []Upstream{{Weight: 1, Check: &Check{
			Path: "/", Interval: time.Millisecond, Timeout: patience, Fall: 1, Rise: 1,
		}}}
		r.to(r.Script(looptest.Answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")).Address)
		r.Eventually("a check", func() bool { return r.report().Endpoints[0].Checks.Failed > 1 })
		said := r.report().Endpoints[0]
		assert.Equal(t, "status 404", said.Checks.Error)
		assert.WithinDuration(t, time.Now(), said.Checks.At, patience)
		assert.Zero(t, said.Checks.Passed)
		assert.Equal(t, Down, said.State)
	})
}

// An upstream that an operator took out gets nothing, not even when it is the
// last; put back it does.
func TestDrain(t *testing.T) {
	engines(t, Config{}, func(t *testing.T, r *rig) {
		r.to(addresses(2)...)
		g := r.config.Group
		assert.True(t, g.Drain("a", true))
		assert.Equal(t, map[string]int{"b": 4}, r.picks(4))
		assert.Equal(t, map[string]int{ErrNone.Error(): 1}, r.picks(1, 1))
		g.mu.Lock()
		g.rebuild()
		g.mu.Unlock()
		assert.Equal(t, map[string]int{"b": 4}, r.picks(4), "it stays out when addresses change")
		assert.True(t, g.Drain("b", true))
		assert.Equal(t, map[string]int{ErrNone.Error(): 1}, r.picks(1))
		assert.True(t, g.Drain("a", false))
		assert.Equal(t, map[string]int{"a": 4}, r.picks(4))
		assert.True(t, g.Drain("b", false))
		assert.Equal(t, map[string]int{"a": 2, "b": 2}, r.picks(4))
	})
}
