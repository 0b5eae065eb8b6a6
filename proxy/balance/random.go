package balance

import (
	"math/bits"
	"math/rand/v2"
)

// random takes each eligible upstream with a chance of its weight over the
// weight of all of them.
func random(ups []Upstream, tried []int, rng *rand.PCG) int {
	total := uint64(0)
	for i := range ups {
		if eligible(ups, tried, i) {
			total += uint64(ups[i].Weight)
		}
	}
	if total == 0 {
		return None
	}
	// The high half of the product is uniform below total but for a part of
	// total/2^64, which nobody can measure; a rejection loop would cost more.
	draw, _ := bits.Mul64(rng.Uint64(), total)
	for i := range ups {
		if !eligible(ups, tried, i) {
			continue
		}
		if weight := uint64(ups[i].Weight); draw >= weight {
			draw -= weight
			continue
		}
		return i
	}
	return None // not reached: draw is below the sum of the weights
}
