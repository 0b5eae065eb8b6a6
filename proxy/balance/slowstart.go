package balance

// shareFull is the share of its weight that an upstream has after its slow
// start, and shareMin the one it begins with, as Envoy's min_weight_percent of
// 10 by default: one that gets nothing at all does not warm up.
const (
	shareFull = 1000
	shareMin  = shareFull / 10
)

// share is what an upstream that came up at since has of its weight at now: the
// part of the window that has passed. The line is straight, as in HAProxy and
// by default in Envoy. An upstream of since 0 was up when the configuration was
// loaded and starts at once, as in HAProxy: slowing down all of them together
// slows down none. Another worker's clock may be ahead of ours, so since may be
// after now.
func share(since, now, window int64) int64 {
	age := now - since
	if since == 0 || age >= window {
		return shareFull
	}
	return max(age*shareFull/window, shareMin)
}

// ramp scales the weights by the shares and returns their sum. So slow start is
// in the weights of a pick, and no strategy has to know of it. Weights stay
// integers, as smooth adds and subtracts them for as long as the process lives.
func ramp(ups []Upstream, weights []int64, now, window int64) (total int64) {
	for i := range weights {
		weights[i] *= share(ups[i].Since, now, window)
		total += weights[i]
	}
	return total
}
