package balance

import "cmp"

// leastConnections takes the candidate with the fewest exchanges in flight for
// its weight. Candidates that tie take turns, by weight, as nginx has it: at
// low load nearly every pick is a tie at zero, and the first one found would
// get all of it. The weights of those that lose are cleared on the way.
func leastConnections(ups []Upstream, weights, current []int64) int {
	best, ties := None, 0
	for i, weight := range weights {
		if weight == 0 {
			continue
		}
		if best != None {
			order := busier(ups, weights, i, best)
			if order > 0 {
				weights[i] = 0
				continue
			}
			if order == 0 {
				ties++
				continue
			}
			clear(weights[best:i])
		}
		best, ties = i, 0
	}
	if ties == 0 {
		return best
	}
	return smooth(weights, current)
}

// busier compares the load of a and b for their weight: x/y < z/w without the
// division.
func busier(ups []Upstream, weights []int64, a, b int) int {
	return cmp.Compare(int64(ups[a].InFlight)*weights[b], int64(ups[b].InFlight)*weights[a])
}
