package balance

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestShare(t *testing.T) {
	const window = int64(30 * time.Second)
	for _, row := range []struct {
		name       string
		since, age int64
		want       int64
	}{
		{"always up", 0, 0, shareFull},
		{"always up, on a young clock", 0, 5, shareFull},
		{"just up", 7, 0, shareMin},
		{"up in the future of this worker's clock", 7, -3, shareMin},
		{"the least for the first tenth", 7, window / 10, shareMin},
		{"then along the line", 7, window / 4, shareFull / 4},
		{"half way", 7, window / 2, shareFull / 2},
		{"nearly there", 7, window - 1, shareFull - 1},
		{"there", 7, window, shareFull},
		{"long there", 7, 1000 * window, shareFull},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, row.want, share(row.since, row.since+row.age, window))
		})
	}
	last := int64(0)
	for age := int64(0); age <= window; age += window / 977 {
		next := share(1, 1+age, window)
		assert.GreaterOrEqual(t, next, last, "it never falls")
		last = next
	}
}

// Turns go to an upstream that starts as its weight grows, and evenly: there is
// no burst at the start and none at the end.
func TestRoundRobinRamp(t *testing.T) {
	const window = 10_000
	ups := up(1, 1)
	p := New(Config{Strategy: RoundRobin, SlowStart: window}, ups)
	ups[1].Since = 1
	counts := make([]int, 12) // by tenth of the window
	gap := 0
	for now := int64(1); now <= 12*window/10; now++ {
		gap++
		if p.PickFor(Request{Now: now}, ups, nil) == 1 {
			counts[(now-1)/(window/10)]++
			// The first turn comes in the middle of a round, as with nginx.
			at := share(1, now, window)
			assert.GreaterOrEqual(t, int64(gap), shareFull/at/2, "at %d of %d", at, shareFull)
			gap = 0
		}
	}
	for tenth, count := range counts {
		// The mean share of the tenth, in a turn with the other's 1.
		mean := max(min(0.05+0.1*float64(tenth), 1), 0.1)
		assert.InDelta(t, mean/(1+mean)*window/10, count, 3, "tenth %d of %v", tenth, counts)
	}
}

// With a slow start workers begin apart and go on as without.
func TestSlowStartLeavesTurns(t *testing.T) {
	ups := up(5, 1, 1)
	for worker := range 7 {
		want := letters(New(Config{Strategy: RoundRobin, Worker: worker}, ups), ups, nil, 20)
		got := letters(New(Config{Strategy: RoundRobin, Worker: worker, SlowStart: time.Second}, ups), ups, nil, 20)
		assert.Equal(t, want, got)
	}
}

// The same for every strategy that weighs: of two at rest, the one that starts
// gets its share of its weight.
func TestSlowStart(t *testing.T) {
	const window, picks = 1000, 50_000
	for _, strategy := range []Strategy{RoundRobin, Random, LeastConnections, P2C, PeakEWMA} {
		for _, age := range []int64{0, 250, 500, 1000} {
			ups := up(2, 4)
			p := New(Config{Strategy: strategy, SlowStart: window}, ups)
			ups[1].Since = 1
			counts := count(p, Request{Now: 1 + age}, ups, picks)
			weight := 4 * float64(share(1, 1+age, window)) / shareFull
			assert.InEpsilon(t, weight/(2+weight)*picks, counts[1], 0.05, "%s at %d: %v", strategy, age, counts)
		}
	}
}

// Loads are compared for the weight of the moment.
func TestLeastConnectionsRamp(t *testing.T) {
	ups := busy([2]int32{10, 1}, [2]int32{1, 1})
	p := New(Config{Strategy: LeastConnections, SlowStart: 1000}, ups)
	assert.Equal(t, 1, p.PickFor(Request{Now: 100}, ups, nil))
	ups[1].Since = 1
	assert.Equal(t, 0, p.PickFor(Request{Now: 91}, ups, nil), "10/1 is a tie with 1/0.1")
	ups[1].InFlight = 2
	assert.Equal(t, 0, p.PickFor(Request{Now: 91}, ups, nil))
	assert.Equal(t, 1, p.PickFor(Request{Now: 501}, ups, nil))
}

// count picks n times and counts by upstream.
func count(p *Picker, req Request, ups []Upstream, n int) []int {
	counts := make([]int, len(ups))
	for range n {
		counts[p.PickFor(req, ups, nil)]++
	}
	return counts
}
