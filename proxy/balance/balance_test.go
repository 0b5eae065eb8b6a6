package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// up makes upstreams that are up, by weight.
func up(weights ...int32) []Upstream {
	ups := make([]Upstream, len(weights))
	for i, w := range weights {
		ups[i] = Upstream{ID: IDOf(fmt.Sprint("upstream-", i)), Weight: w, Up: true}
	}
	return ups
}

// equal makes n upstreams that are up, of weight 1.
func equal(n int) []Upstream {
	return up(slices.Repeat([]int32{1}, n)...)
}

// busy makes upstreams that are up, by exchanges in flight and weight.
func busy(pairs ...[2]int32) []Upstream {
	ups := equal(len(pairs))
	for i, p := range pairs {
		ups[i].InFlight, ups[i].Weight = p[0], p[1]
	}
	return ups
}

// letters picks n times and writes a for upstream 0, b for 1, - for None.
func letters(p *Picker, ups []Upstream, tried []int, n int) string {
	var b strings.Builder
	for range n {
		b.WriteByte("-abcdefgh"[p.Pick(ups, tried)+1])
	}
	return b.String()
}

func TestRoundRobin(t *testing.T) {
	down := up(1, 1, 1)
	down[1].Up = false
	for _, row := range []struct {
		name  string
		ups   []Upstream
		tried []int
		phase int
		want  string
	}{
		{"equal weights take turns", up(1, 1, 1), nil, 0, "abcabc"},
		{"a worker starts at its phase", up(1, 1, 1), nil, 1, "bcabca"},
		{"a phase past the cycle wraps", up(1, 1, 1), nil, 5, "cabcab"},
		{"equal weights over 1 take turns as well", up(7, 7), nil, 0, "ababab"},
		{"nginx's own example", up(5, 1, 1), nil, 0, "aabacaaaabacaa"},
		{"the phase keeps the order", up(5, 1, 1), nil, 2, "bacaaaabacaa"},
		{"weight 0 gets nothing", up(1, 0, 1), nil, 0, "acacac"},
		{"down gets nothing", down, nil, 0, "acacac"},
		{"tried gets nothing", up(1, 1, 1), []int{0, 2}, 0, "bbb"},
		{"one is enough", up(3), nil, 4, "aaa"},
		{"all of weight 0", up(0, 0), nil, 3, "---"},
		{"all tried", up(1, 1), []int{1, 0}, 0, "---"},
		{"no upstreams", nil, nil, 2, "---"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := NewPicker(RoundRobin, row.ups, row.phase, 0)
			assert.Equal(t, row.want, letters(p, row.ups, row.tried, len(row.want)))
		})
	}
}

// An upstream that was away must not get a burst when it comes back.
func TestRoundRobinComesBack(t *testing.T) {
	ups := up(1, 1)
	p := NewPicker(RoundRobin, ups, 0, 0)
	assert.Equal(t, "aba", letters(p, ups, nil, 3))
	ups[1].Up = false
	assert.Equal(t, "aaaaaaaa", letters(p, ups, nil, 8))
	ups[1].Up = true
	assert.Equal(t, "babababa", letters(p, ups, nil, 8))
}

func TestRoundRobinIsExactOverACycle(t *testing.T) {
	ups := up(1000, 1, 30, 0, 7)
	p := NewPicker(RoundRobin, ups, 3, 0)
	counts := make([]int32, len(ups))
	for range 1038 {
		counts[p.Pick(ups, nil)]++
	}
	assert.Equal(t, []int32{1000, 1, 30, 0, 7}, counts)
}

func TestWorkersStartApart(t *testing.T) {
	ups := up(1, 1, 1, 1)
	first := make([]int, len(ups))
	for worker := range 8 {
		first[NewPicker(RoundRobin, ups, worker, 0).Pick(ups, nil)]++
	}
	assert.Equal(t, []int{2, 2, 2, 2}, first)
}

func TestLeastConnections(t *testing.T) {
	down := busy([2]int32{0, 1}, [2]int32{5, 1})
	down[0].Up = false
	for _, row := range []struct {
		name  string
		ups   []Upstream
		tried []int
		phase int
		want  string
	}{
		{"the fewest", busy([2]int32{3, 1}, [2]int32{1, 1}, [2]int32{2, 1}), nil, 0, "bbb"},
		{"for its weight", busy([2]int32{3, 1}, [2]int32{4, 2}), nil, 0, "bbb"},
		{"ties take turns", busy([2]int32{2, 1}, [2]int32{2, 1}, [2]int32{9, 1}), nil, 0, "abab"},
		{"ties start at the phase", busy([2]int32{0, 1}, [2]int32{0, 1}, [2]int32{0, 1}), nil, 1, "bcabca"},
		{"ties follow the weight", busy([2]int32{0, 2}, [2]int32{0, 1}), nil, 0, "abaaba"},
		{"the same load for its weight is a tie", busy([2]int32{2, 2}, [2]int32{1, 1}), nil, 0, "abaaba"},
		{"down gets nothing", down, nil, 0, "bb"},
		{"tried gets nothing", busy([2]int32{0, 1}, [2]int32{5, 1}), []int{0}, 0, "bb"},
		{"weight 0 gets nothing", busy([2]int32{0, 0}, [2]int32{5, 1}), nil, 0, "bb"},
		{"all tried", busy([2]int32{0, 1}), []int{0}, 0, "-"},
		{"numbers near the limit", busy([2]int32{math.MaxInt32, 1000}, [2]int32{math.MaxInt32, 999}), nil, 0, "aa"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := NewPicker(LeastConnections, row.ups, row.phase, 0)
			assert.Equal(t, row.want, letters(p, row.ups, row.tried, len(row.want)))
		})
	}
}

// With exchanges that end at different speeds, load follows speed.
func TestLeastConnectionsFollowsSpeed(t *testing.T) {
	ups := up(1, 1)
	p := NewPicker(LeastConnections, ups, 0, 0)
	counts := [2]int{}
	var ends [2][]int // times at which exchanges end
	for now := range 10_000 {
		for i := range ends {
			for len(ends[i]) > 0 && ends[i][0] <= now {
				ends[i] = ends[i][1:]
				ups[i].InFlight--
			}
		}
		i := p.Pick(ups, nil)
		counts[i]++
		ups[i].InFlight++
		ends[i] = append(ends[i], now+[2]int{10, 30}[i])
	}
	assert.InDelta(t, 3, float64(counts[0])/float64(counts[1]), 0.2, "an upstream three times as fast: %v", counts)
}

// At rest every strategy follows the weights, with any keys.
func TestFollowsWeight(t *testing.T) {
	ups := up(1, 0, 3, 6)
	const picks = 100_000
	for _, strategy := range Strategies() {
		p := NewPicker(strategy, ups, 0, 42)
		counts := make([]int, len(ups))
		keys(picks, func(key uint64) { counts[p.PickFor(Request{Key: key}, ups, nil)]++ })
		assert.Zero(t, counts[1], strategy)
		for i, share := range map[int]float64{0: 0.1, 2: 0.3, 3: 0.6} {
			assert.InEpsilon(t, share*picks, counts[i], 0.05, "%s, upstream %d", strategy, i)
			// Five standard deviations of a binomial: once in two million seeds.
			assert.InDelta(t, share*picks, counts[i], 5*math.Sqrt(picks*share*(1-share)), "%s, upstream %d", strategy, i)
		}
	}
}

func TestRandomWorkersDiffer(t *testing.T) {
	ups := up(1, 1, 1, 1, 1, 1, 1, 1)
	one := letters(NewPicker(Random, ups, 0, 7), ups, nil, 40)
	assert.NotEqual(t, one, letters(NewPicker(Random, ups, 1, 7), ups, nil, 40), "by phase")
	assert.NotEqual(t, one, letters(NewPicker(Random, ups, 0, 8), ups, nil, 40), "by seed")
	assert.Equal(t, one, letters(NewPicker(Random, ups, 0, 7), ups, nil, 40), "the same again")
}

// whatever makes upstreams and a request of which anything may be true.
func whatever(rng *rand.Rand, ups []Upstream) (req Request, tried []int) {
	now := 1 + rng.Int64N(2000)
	for i := range ups {
		ups[i].Up = rng.IntN(3) == 0
		ups[i].InFlight = rng.Int32N(5)
		ups[i].Since = rng.Int64N(2) * rng.Int64N(3000)
		if rng.IntN(20) == 0 {
			ups[i].Weight = rng.Int32N(4)
		}
	}
	req = Request{Key: rng.Uint64N(2) * rng.Uint64(), Now: now}
	if rng.IntN(4) == 0 {
		req.Stick = ups[rng.IntN(len(ups))].ID
	}
	for range rng.IntN(3) {
		tried = append(tried, rng.IntN(len(ups)))
	}
	return req, tried
}

// Whatever happens to the upstreams: a pick is of one that is up, has a weight
// and was not tried, and None means that there is no such one.
func TestPickIsEligible(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, strategy := range Strategies() {
		for _, slowStart := range []time.Duration{0, 1000} {
			ups := up(0, 1, 2, 3, 0, 1, 2, 3, 1000)
			p := New(Config{Strategy: strategy, Worker: 3, Seed: 1, SlowStart: slowStart}, ups)
			for range 10_000 {
				req, tried := whatever(rng, ups)
				may := make([]bool, len(ups))
				for i, u := range ups {
					may[i] = u.Up && u.Weight > 0 && !slices.Contains(tried, i)
				}
				picked := p.PickFor(req, ups, tried)
				some := slices.Contains(may, true)
				if some != (picked != None) || picked != None && !may[picked] {
					t.Fatalf("%s: picked %d of %+v, tried %v", strategy, picked, ups, tried)
				}
				if at := slices.IndexFunc(ups, func(u Upstream) bool { return u.ID == req.Stick }); at >= 0 && may[at] {
					require.Equal(t, at, picked, "the cookie's")
				}
				if picked != None {
					p.Observe(picked, rng.Int64N(1000), req.Now)
				}
			}
			var sum int64
			most := 2 * shareFull * int64(1000+3*len(ups))
			for _, c := range p.current {
				sum += c
				assert.Less(t, max(c, -c), most, "%s: credit does not pile up: %v", strategy, p.current)
			}
			assert.Zero(t, sum, strategy)
		}
	}
}

// What a strategy does not need changes no pick of it, and what it needs does.
func TestNeeds(t *testing.T) {
	for _, strategy := range Strategies() {
		for name, change := range map[string]struct {
			needed bool
			apply  func(*Picker, *Request, []Upstream, *rand.Rand)
		}{
			"in flight": {strategy.Needs().InFlight, func(_ *Picker, _ *Request, ups []Upstream, rng *rand.Rand) {
				ups[rng.IntN(len(ups))].InFlight = rng.Int32N(9)
			}},
			"key": {strategy.Needs().Key, func(_ *Picker, req *Request, _ []Upstream, rng *rand.Rand) {
				req.Key = rng.Uint64()
			}},
			"latency": {strategy.Needs().Latency, func(p *Picker, _ *Request, ups []Upstream, rng *rand.Rand) {
				p.Observe(rng.IntN(len(ups)), rng.Int64N(1000), 1)
			}},
			"now": {strategy.Needs().Latency, func(_ *Picker, req *Request, _ []Upstream, rng *rand.Rand) {
				req.Now += rng.Int64N(decayNs)
			}},
		} {
			plain, changed := up(1, 2, 3), up(1, 2, 3)
			one, other := NewPicker(strategy, plain, 1, 5), NewPicker(strategy, changed, 1, 5)
			rng := rand.New(rand.NewPCG(1, 2))
			req, same := Request{}, 0
			for range 1000 {
				change.apply(other, &req, changed, rng)
				if one.Pick(plain, nil) == other.PickFor(req, changed, nil) {
					same++
				}
			}
			assert.Equal(t, change.needed, same < 1000, "%s, %s: %d the same", strategy, name, same)
		}
	}
}

func TestAllocsPick(t *testing.T) {
	for _, strategy := range Strategies() {
		ups := up(1, 2, 3, 4, 5, 6, 7, 8)
		p := NewPicker(strategy, ups, 0, 1)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			tried := [2]int{1, 2}
			p.Pick(ups, tried[:])
			p.PickFor(Request{Key: 7, Now: 9}, ups, tried[:])
			p.Observe(1, 100, 10)
		}), strategy)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, strategy := range Strategies() {
		for _, n := range []int{2, 8, 64} {
			b.Run(fmt.Sprintf("strategy=%s/upstreams=%d", strategy, n), func(b *testing.B) {
				ups := equal(n)
				p := NewPicker(strategy, ups, 0, 1)
				for i := range ups {
					p.Observe(i, 1_000_000, 1)
				}
				req := Request{Key: 1}
				b.ReportAllocs()
				for b.Loop() {
					req.Now += 10_000
					req.Key = req.Key*prime1 + 1 // somewhere else in the table
					p.PickFor(req, ups, nil)
				}
			})
		}
	}
}
