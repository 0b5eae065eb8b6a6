package balance

// roundRobin takes turns by weight, without bursts: 5, 1 and 1 give
// a a b a c a a, not a a a a a b c.
func roundRobin(ups []Upstream, tried []int, current []int64) int {
	return smooth(ups, tried, current, None)
}

// smooth is nginx's weighted round robin. At each pick every candidate gains
// its weight, the richest is taken and pays what all of them gained. So over
// a cycle, each is taken as often as its weight says, and the sum of current
// stays what it was: nobody runs away, also when candidates come and go.
//
// The candidates are the eligible upstreams, or of those only the ones as
// busy as like.
func smooth(ups []Upstream, tried []int, current []int64, like int) int {
	best, total := None, int64(0)
	for i := range ups {
		if !eligible(ups, tried, i) || like != None && busier(&ups[i], &ups[like]) != 0 {
			continue
		}
		weight := int64(ups[i].Weight)
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
