package upstream

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"atlas/proxy/loop"
)

// State is whether an endpoint gets requests, in one word.
type State string

// The states; where several are true the first counts.
const (
	Drained State = "drained" // an operator took it out
	Down    State = "down"    // health checks say so
	Ejected State = "ejected" // for a time, after failures in a row
	Up      State = "up"
)

// States are all there are.
func States() []State { return []State{Up, Ejected, Down, Drained} }

// past is what became of an endpoint so far, beside what decides over it.
type past struct {
	failures  atomic.Int64
	ejections atomic.Int64

	mu     sync.Mutex
	checks CheckReport
}

// note counts a health check.
func (p *past) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks.At, p.checks.Error = time.Now(), ""
	if err != nil {
		p.checks.Failed++
		p.checks.Error = err.Error()
		return
	}
	p.checks.Passed++
}

// CheckReport is what health checks found.
type CheckReport struct {
	At             time.Time // of the last; zero: there was none
	Error          string    // of the last; empty: it passed
	Passed, Failed int64
}

// EndpointReport is what there is to say about an endpoint. Connections are those
// of all workers together.
type EndpointReport struct {
	Upstream, Address string
	Weight            int // as configured, of the upstream
	State             State
	EjectedFor        time.Duration // how much longer
	FailuresInRow     int
	Failures          int64
	Ejections         int64
	Requests          int64 // exchanges that were given to it
	InFlight          int   // of them, or connections that are being made for one
	Idle              int   // connections that wait for an exchange
	Checks            CheckReport
}

// Report is what there is to say about the upstreams of a group.
type Report struct {
	Endpoints []EndpointReport
	Unknown   []string // names of upstreams without an address
	Waiting   int      // exchanges that wait for an upstream with max_connections
	TriesLeft int      // further tries that the retry budget allows now
	// Silent is how many workers did not answer in time: what they said before
	// counts.
	Silent int
}

// poolReport is what only a worker itself knows. It never changes.
type poolReport struct {
	targets   []targetReport
	triesLeft int
}

type targetReport struct {
	endpoint   *Endpoint
	requests   int64
	idle, busy int
}

// Report asks every worker for its part, as long as ctx allows. Any goroutine but
// a worker's.
func (g *Group) Report(ctx context.Context) Report {
	g.mu.Lock()
	pools, members := slices.Clone(g.pools), g.members
	g.mu.Unlock()
	r := Report{Waiting: int(g.queue.waiting.Load())}
	r.Silent = awaitReports(ctx, pools)
	endpoints := g.Endpoints()
	r.Endpoints = make([]EndpointReport, len(endpoints))
	of := make(map[*Endpoint]*EndpointReport, len(endpoints))
	for i, e := range endpoints {
		r.Endpoints[i] = e.report()
		of[e] = &r.Endpoints[i]
	}
	for _, p := range pools {
		said := p.reported.Load()
		if said == nil {
			continue
		}
		r.TriesLeft += said.triesLeft
		for _, t := range said.targets {
			if e := of[t.endpoint]; e != nil { // else it has just gone
				e.Requests += t.requests
				e.Idle += t.idle
				e.InFlight += t.busy
			}
		}
	}
	for _, m := range members {
		name := m.Name
		if !slices.ContainsFunc(r.Endpoints, func(e EndpointReport) bool { return e.Upstream == name }) {
			r.Unknown = append(r.Unknown, name)
		}
	}
	return r
}

// awaitReports has every pool report, and returns how many have not in time. A
// worker that has ended is not silent: it has nothing more to say.
func awaitReports(ctx context.Context, pools []*Pool) (silent int) {
	answered := make(chan struct{}, len(pools))
	for _, p := range pools {
		if p.loop.Post(func() { p.report(); answered <- struct{}{} }) {
			silent++
		}
	}
	for silent > 0 {
		select {
		case <-answered:
			silent--
		case <-ctx.Done():
			return silent
		}
	}
	return 0
}

// report notes what only this worker knows, on it.
func (p *Pool) report() {
	p.refresh()
	p.budget.advance(p.loop.Now())
	said := &poolReport{targets: make([]targetReport, len(p.targets)), triesLeft: p.budget.left()}
	for i, t := range p.targets {
		said.targets[i] = targetReport{
			endpoint: t.Endpoint, requests: t.picked,
			idle: len(t.idle), busy: t.open - t.dialled - len(t.idle),
		}
	}
	p.reported.Store(said)
}

// report is what any goroutine can see of an endpoint.
func (e *Endpoint) report() EndpointReport {
	r := EndpointReport{
		Upstream: e.Name, Address: e.Address.String(), Weight: e.upstream.Load().Weight, State: Up,
		FailuresInRow: int(e.failures.Load()),
		Failures:      e.past.failures.Load(), Ejections: e.past.ejections.Load(),
	}
	until := e.until.Load()
	switch {
	case e.drained.Load():
		r.State = Drained
	case e.down.Load():
		r.State = Down
	case until != 0:
		r.State = Ejected
		r.EjectedFor = max(0, time.Duration(until-int64(loop.Now())))
	}
	e.past.mu.Lock()
	defer e.past.mu.Unlock()
	r.Checks = e.past.checks
	return r
}

// Drain takes an upstream out, or puts it back: it gets no new exchanges until
// then, and those in flight end as they would. It reports whether there is one of
// that name. An upstream that is taken out stays so for as long as the process
// runs, also when its addresses change.
func (g *Group) Drain(name string, out bool) (known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known = slices.ContainsFunc(g.members, func(m *member) bool { return m.Name == name })
	if !known || g.drained[name] == out {
		return known
	}
	if g.drained == nil {
		g.drained = make(map[string]bool)
	}
	g.drained[name] = out
	for _, e := range g.set.Load().endpoints {
		if e.Name == name {
			e.drained.Store(out)
			if !out {
				e.since.Store(int64(loop.Now()))
			}
		}
	}
	if out {
		g.log(slog.LevelWarn, "upstream taken out by an operator", "upstream", name)
	} else {
		g.log(slog.LevelInfo, "upstream put back by an operator", "upstream", name)
	}
	g.changed()
	return true
}
