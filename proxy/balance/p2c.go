package balance

import "math/rand/v2"

// p2c draws two different candidates by weight and takes the one with fewer
// exchanges in flight for its weight (Mitzenmacher, The Power of Two Choices in
// Randomized Load Balancing, 2001). At rest both have none and the first one
// drawn is taken, so the requests follow the weights.
//
// It looks at two loads only. Where these are stale or not the whole truth, as
// with other proxies before the same upstreams, that is its virtue: they do not
// all run to the one that happens to look idle.
func p2c(ups []Upstream, weights []int64, total int64, rng *rand.PCG) int {
	first, second := pair(weights, total, rng)
	if second != None && busier(ups, weights, second, first) < 0 {
		return second
	}
	return first
}

// pair draws two different candidates by weight; second is None if there is
// only one, and first too if there is none.
func pair(weights []int64, total int64, rng *rand.PCG) (first, second int) {
	first = draw(weights, total, rng.Uint64())
	if first == None {
		return None, None
	}
	weight := weights[first]
	weights[first] = 0
	second = draw(weights, total-weight, rng.Uint64())
	weights[first] = weight
	return first, second
}
