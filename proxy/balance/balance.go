// Package balance picks the upstream for the next request. It does no I/O,
// takes no lock and allocates nothing per pick: it sees a slice of upstreams
// and the picker's own few words of state. It does not know whether an
// upstream is healthy or how many exchanges are in flight; the caller writes
// both into the slice before it picks. A Picker belongs to one worker; only
// that worker's thread may call it, and the slices stay the caller's. A Table
// never changes and is for all workers.
package balance

import (
	"math/rand/v2"
	"slices"
	"time"

	"atlas/proxy/invariant"
)

// None is the answer of a pick when no upstream is eligible.
const None = -1

// Strategy is the rule of a pick, by the name it has in the config file.
type Strategy string

// The strategies.
const (
	RoundRobin       Strategy = "round_robin"
	Random           Strategy = "random"
	LeastConnections Strategy = "least_connections"
	P2C              Strategy = "p2c"
	IPHash           Strategy = "ip_hash"
	Hash             Strategy = "hash"
	PeakEWMA         Strategy = "peak_ewma"
)

// Strategies lists every strategy, the default first.
func Strategies() []Strategy {
	return []Strategy{RoundRobin, Random, LeastConnections, P2C, IPHash, Hash, PeakEWMA}
}

// Needs is what a strategy looks at beside weights and what is up; a caller may
// leave out the rest. A slow start needs Request.Now and Upstream.Since in any
// case, a cookie Request.Stick and Upstream.ID.
type Needs struct {
	InFlight bool // Upstream.InFlight
	Key      bool // Request.Key, with Config.Table or at least Upstream.ID
	Latency  bool // Observe and Request.Now
}

// Needs says what the strategy looks at.
func (s Strategy) Needs() Needs {
	return Needs{
		InFlight: s == LeastConnections || s == P2C || s == PeakEWMA,
		Key:      s == IPHash || s == Hash,
		Latency:  s == PeakEWMA,
	}
}

// Upstream is what a pick looks at. Numbers, not pointers to atomics: a
// worker keeps one slice for as long as it keeps its configuration and loads
// the shared numbers into it before a pick, so every strategy stays a pure
// function that a table can test.
type Upstream struct {
	ID       ID    // for Config.Table and Request.Stick; 0 where neither is used
	Since    int64 // when it came up, by the clock of Request.Now; 0: it always was
	Weight   int32 // share of the requests; 0: no new ones
	InFlight int32 // exchanges of all workers together
	Up       bool
}

// Request is what a pick looks at of the request. The zero value is one that
// nothing is known of.
type Request struct {
	// Key is what IPHash and Hash go by, of ClientKey or Key. Those with 0, which
	// is none, take turns: they must not all go to one.
	Key uint64
	// Stick is the upstream that the request's cookie names, of ParseID. It gets
	// the request if it may, whatever the strategy; 0: any may.
	Stick ID
	// Now is the time in nanoseconds, by any clock that runs forwards and that
	// all workers share. PeakEWMA and slow starts look at it.
	Now int64
}

// Config is what a Picker needs to know.
type Config struct {
	Strategy Strategy
	// Worker is the worker's number: it moves the start, because workers that
	// all start alike send every first request to the same upstream.
	Worker int
	Seed   uint64 // of the strategies that draw
	// SlowStart is the time in which an upstream that comes up gets from a tenth
	// to all of its weight; 0: it has all of it at once.
	SlowStart time.Duration
	// Table is for IPHash and Hash, of the same upstreams in the same order and
	// shared by all workers; with nil, New makes one.
	Table *Table
}

// Picker is one worker's state of a strategy.
type Picker struct {
	strategy  Strategy
	slowStart int64     // nanoseconds
	table     *Table    // nil with a strategy that goes by no key
	latencies []latency // of each upstream; nil but with PeakEWMA
	current   []int64   // of each upstream, as smooth has it
	weights   []int64   // of each upstream in the present pick
	rng       rand.PCG
}

// NewPicker makes a picker of a strategy that needs no more than this; New says
// what the rest is.
func NewPicker(strategy Strategy, ups []Upstream, worker int, seed uint64) *Picker {
	return New(Config{Strategy: strategy, Worker: worker, Seed: seed}, ups)
}

// New makes the picker of one worker. Later picks have to be among as many
// upstreams as are given here.
func New(cfg Config, ups []Upstream) *Picker {
	p := &Picker{
		strategy:  cfg.Strategy,
		slowStart: int64(cfg.SlowStart),
		current:   make([]int64, len(ups)),
		weights:   make([]int64, len(ups)),
	}
	p.rng.Seed(cfg.Seed, uint64(cfg.Worker))
	invariant.That(slices.Contains(Strategies(), cfg.Strategy), "a strategy that config let through")

	p.advance(ups, cfg.Worker)
	needs := cfg.Strategy.Needs()
	if needs.Key {
		p.table = cfg.Table
		if p.table == nil {
			p.table = NewTable(ups)
		}
		invariant.That(p.table.upstreams == len(ups), "a table of the same upstreams")
	}
	if needs.Latency {
		p.latencies = make([]latency, len(ups))
	}
	return p
}

// advance takes as many turns as the worker's number says, with all up.
func (p *Picker) advance(ups []Upstream, worker int) {
	all := slices.Clone(ups)
	cycle := 0
	for i := range all {
		all[i].Up, all[i].Since = true, 0
		cycle += int(all[i].Weight)
	}
	if cycle > 0 {
		for range worker % cycle {
			p.weigh(all, nil, 0)
			smooth(p.weights, p.current)
		}
	}
}

// Pick returns the index of an upstream that is up, has a weight and is not in
// tried, or None. Tried is short: the upstreams that this request already
// failed at.
func (p *Picker) Pick(ups []Upstream, tried []int) int {
	return p.PickFor(Request{}, ups, tried)
}

// PickFor is Pick for a request of which something is known.
func (p *Picker) PickFor(req Request, ups []Upstream, tried []int) int {
	invariant.That(len(ups) == len(p.current), "a pick among the upstreams the picker was made for")
	if req.Stick != 0 {
		if i := stuck(req.Stick, ups, tried); i != None {
			return i
		}
	}
	if p.table != nil && req.Key != 0 {
		return p.byKey(req, ups, tried)
	}
	total := p.weigh(ups, tried, req.Now)
	switch p.strategy {
	case Random:
		return draw(p.weights, total, p.rng.Uint64())
	case LeastConnections:
		return leastConnections(ups, p.weights, p.current)
	case P2C:
		return p2c(ups, p.weights, total, &p.rng)
	case PeakEWMA:
		return p.peakEWMA(ups, total, req.Now)
	}
	return smooth(p.weights, p.current)
}

// weigh notes what each upstream weighs in this pick, 0 if it may not get the
// request, and returns the sum. The strategies look at these weights only.
func (p *Picker) weigh(ups []Upstream, tried []int, now int64) (total int64) {
	weights := p.weights[:len(ups)]
	for i := range ups {
		weight := int64(ups[i].Weight)
		if !ups[i].Up {
			weight = 0
		}
		weights[i] = weight
		total += weight
	}
	for _, i := range tried {
		total -= weights[i]
		weights[i] = 0
	}
	if p.slowStart > 0 {
		return ramp(ups, weights, now, p.slowStart)
	}
	return total
}
