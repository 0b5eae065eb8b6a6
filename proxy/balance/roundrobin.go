package balance

// smooth is nginx's weighted round robin: turns by weight without bursts, so 5,
// 1 and 1 give a a b a c a a, not a a a a a b c. At each pick every candidate
// gains its weight, the richest is taken and pays what all of them gained. So
// over a cycle each is taken as often as its weight says, and the sum of
// current stays what it was: nobody runs away, also when candidates come and
// go.
//
// The candidates are those with a weight, which may be another at each pick.
func smooth(weights, current []int64) int {
	best, total := None, int64(0)
	for i, weight := range weights {
		if weight == 0 {
			continue
		}
		current[i] += weight
		total += weight
		if best == None || current[i] > current[best] {
			best = i
		}
	}
	if best != None {
		current[best] -= total
	}
	return best
}
