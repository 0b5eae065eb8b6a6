// Package balance picks the upstream for the next request. It does no I/O,
// takes no lock and allocates nothing per pick: it sees a slice of upstreams
// and the picker's own few words of state. It does not know whether an
// upstream is healthy or how many exchanges are in flight; the caller writes
// both into the slice before it picks. A Picker belongs to one worker; only
// that worker's thread may call it, and the slices stay the caller's.
package balance

import (
	"math/rand/v2"
	"slices"

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
)

// Strategies lists every strategy, the default first.
func Strategies() []Strategy {
	return []Strategy{RoundRobin, Random, LeastConnections}
}

// Upstream is what a pick looks at. Numbers, not pointers to atomics: a
// worker keeps one slice for as long as it keeps its configuration and loads
// the shared numbers into it before a pick, so every strategy stays a pure
// function that a table can test. Only LeastConnections reads InFlight; with
// the others a caller may leave the load out.
type Upstream struct {
	Weight   int32 // share of the requests; 0: no new ones
	InFlight int32 // exchanges of all workers together
	Up       bool
}

// Picker is one worker's state of a strategy.
type Picker struct {
	strategy Strategy
	current  []int64 // of each upstream, as smooth has it
	weights  []int64 // of each upstream in the present pick
	rng      rand.PCG
}

// NewPicker makes the picker of one worker. Phase is the worker's number: it
// moves the start, because workers that all start alike send every first
// request to the same upstream. Seed is for Random. Later picks have to be
// among as many upstreams as are given here.
func NewPicker(strategy Strategy, ups []Upstream, phase int, seed uint64) *Picker {
	p := &Picker{strategy: strategy, current: make([]int64, len(ups)), weights: make([]int64, len(ups))}
	p.rng.Seed(seed, uint64(phase))
	invariant.That(slices.Contains(Strategies(), strategy), "a strategy that config let through")

	var cycle int64
	for i := range ups {
		p.weights[i] = int64(ups[i].Weight)
		cycle += p.weights[i]
	}
	if cycle > 0 {
		for range int64(phase) % cycle {
			smooth(p.weights, p.current)
		}
	}
	return p
}

// Pick returns the index of an upstream that is up, has a weight and is not in
// tried, or None. Tried is short: the upstreams that this request already
// failed at.
func (p *Picker) Pick(ups []Upstream, tried []int) int {
	invariant.That(len(ups) == len(p.current), "a pick among the upstreams the picker was made for")
	total := p.weigh(ups, tried)
	switch p.strategy {
	case Random:
		return draw(p.weights, total, p.rng.Uint64())
	case LeastConnections:
		return leastConnections(ups, p.weights, p.current)
	}
	return smooth(p.weights, p.current)
}

// weigh notes what each upstream weighs in this pick, 0 if it may not get the
// request, and returns the sum. The strategies look at these weights only.
func (p *Picker) weigh(ups []Upstream, tried []int) (total int64) {
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
	return total
}
