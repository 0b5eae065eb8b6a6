package balance

import "math/bits"

// draw takes each candidate with a chance of its weight over total, the weight
// of all of them. Bits are 64 random ones.
func draw(weights []int64, total int64, random uint64) int {
	// The high half of the product is uniform below total but for a part of
	// total/2^64, which nobody can measure; a rejection loop would cost more.
	high, _ := bits.Mul64(random, uint64(total))
	rest := int64(high)
	for i, weight := range weights {
		if rest < weight {
			return i
		}
		rest -= weight
	}
	return None // total is 0
}
