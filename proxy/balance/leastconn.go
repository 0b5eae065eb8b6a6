package balance

import "cmp"

// leastConnections takes the eligible upstream with the fewest exchanges in
// flight for its weight. Upstreams that tie take turns, by weight, as nginx
// has it: at low load nearly every pick is a tie at zero, and the first one
// found would get all of it.
func leastConnections(ups []Upstream, tried []int, current []int64) int {
	best, alone := None, false
	for i := range ups {
		if !eligible(ups, tried, i) {
			continue
		}
		if best == None {
			best, alone = i, true
			continue
		}
		switch busier(&ups[i], &ups[best]) {
		case -1:
			best, alone = i, true
		case 0:
			alone = false
		}
	}
	if best == None || alone {
		return best
	}
	return smooth(ups, tried, current, best)
}

// busier compares load for weight: a/b < c/d without the division.
func busier(a, b *Upstream) int {
	return cmp.Compare(int64(a.InFlight)*int64(b.Weight), int64(b.InFlight)*int64(a.Weight))
}
