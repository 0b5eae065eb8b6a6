package balance

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/invariant"
)

// queues is a simulation: upstreams that serve one request after the other, in
// a random time of mean serviceNs by the upstream's slowness, and requests that
// come at random to random workers. Load is the part of the capacity that they
// ask for.
type queues struct {
	upstreams, workers int
	strategy           Strategy
	load               float64
	slowness           func(upstream int) float64
}

const serviceNs = 1_000_000

// run serves many requests, fewer under the race detector, and returns how long one of them takes from
// arrival to answer, in mean service times.
func (q queues) run() float64 {
	requests := 200_000
	if invariant.Enabled {
		requests /= 5
	}
	rng := rand.New(rand.NewPCG(1, 2))
	weights := make([]int32, q.upstreams)
	slowness := make([]float64, q.upstreams)
	capacity := 0.0
	for i := range weights {
		weights[i], slowness[i] = 1, 1
		if q.slowness != nil {
			slowness[i] = q.slowness(i)
		}
		capacity += 1 / slowness[i]
	}
	ups := up(weights...)
	pickers := make([]*Picker, q.workers)
	for w := range pickers {
		pickers[w] = NewPicker(q.strategy, ups, w, 7)
	}
	type request struct {
		worker    int
		from, end float64
	}
	waiting := make([][]request, q.upstreams)
	free := make([]float64, q.upstreams) // when the last of waiting has its answer
	now, sum := 0.0, 0.0
	for range requests {
		now += rng.ExpFloat64() * serviceNs / (q.load * capacity)
		for i := range waiting {
			for len(waiting[i]) > 0 && waiting[i][0].end <= now {
				done := waiting[i][0]
				waiting[i] = waiting[i][1:]
				ups[i].InFlight--
				pickers[done.worker].Observe(i, int64(done.end-done.from), int64(done.end))
			}
		}
		w := rng.IntN(q.workers)
		i := pickers[w].PickFor(Request{Now: int64(now)}, ups, nil)
		ups[i].InFlight++
		free[i] = max(free[i], now) + rng.ExpFloat64()*serviceNs*slowness[i]
		waiting[i] = append(waiting[i], request{w, now, free[i]})
		sum += free[i] - now
	}
	return sum / float64(requests) / serviceNs
}

// With loads that are known exactly, looking at all of them is far better than
// looking at two, and this is better than looking at none.
func TestChoices(t *testing.T) {
	took := make(map[Strategy]float64)
	for _, upstreams := range []int{4, 16, 64} {
		for _, strategy := range []Strategy{Random, RoundRobin, P2C, LeastConnections} {
			took[strategy] = queues{upstreams: upstreams, workers: 4, strategy: strategy, load: 0.9}.run()
			t.Logf("%d upstreams at 90 %% of capacity, %s: %.2f service times", upstreams, strategy, took[strategy])
		}
		assert.Less(t, took[P2C], 0.5*took[Random])
		assert.Less(t, took[LeastConnections], took[P2C]*(1-0.008*float64(upstreams)))
	}
}

// Where some upstreams are slower, looking at latencies as well is better than
// looking at exchanges in flight of the same two, and where none is, not worse.
func TestChoicesByLatency(t *testing.T) {
	for _, row := range []struct {
		name     string
		slowness func(upstream int) float64
		best     float64 // of the time that p2c takes, at the most
	}{
		{"all equal", nil, 1.05},
		{"one ten times slower", func(i int) float64 { return []float64{10, 1, 1, 1}[i] }, 0.8},
		{"half of them three times slower", func(i int) float64 { return float64(1 + i%2*2) }, 0.85},
	} {
		for _, load := range []float64{0.5, 0.9} {
			q := queues{upstreams: 4, workers: 4, strategy: P2C, load: load, slowness: row.slowness}
			p2c := q.run()
			q.strategy = PeakEWMA
			ewma := q.run()
			t.Logf("%s, at %.0f %% of capacity: p2c %.2f, peak_ewma %.2f service times", row.name, 100*load, p2c, ewma)
			assert.Less(t, ewma, row.best*p2c)
		}
	}
}
