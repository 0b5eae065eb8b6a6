package balance

import "math"

const (
	// decayNs is the time in which an estimate falls to 1/e of itself if nothing
	// is observed: 10 s in Finagle (Balancers.p2cPeakEwma), where the algorithm
	// is from, as in linkerd's proxy and in Envoy.
	decayNs = 10e9
	// unknownNs stands for the latency of an upstream that has been asked and has
	// not answered yet: Finagle's Penalty of some 39 hours.
	unknownNs = math.MaxInt64 >> 16
)

// latency is what one worker knows of how fast an upstream answers. The estimate
// jumps up to a latency that is higher and moves slowly to one that is lower,
// so a slow upstream is left at once and trusted again with time.
type latency struct {
	estimate float64 // nanoseconds, at the time at; 0: nothing is known
	at       int64
	asked    int64 // when a request last went there although nothing was known
}

// observe takes in that an answer took so long. The more time has passed since
// the last one, the more this one counts: answers do not come evenly.
func (l *latency) observe(took, now int64) {
	latest := math.Max(float64(took), 1)
	if latest < l.estimate {
		keep := decayed(now - l.at)
		latest = l.estimate*keep + latest*(1-keep)
	}
	l.estimate, l.at = latest, now
}

// expected is the latency to count with. Without an answer it goes down, so
// that one that was left is tried again. One of which nothing is known gets a
// request at once, to know more, and then no other before it has answered or has
// had the time to.
func (l *latency) expected(now int64) float64 {
	switch {
	case l.estimate > 0:
		return l.estimate * decayed(now-l.at)
	case l.asked == 0 || now-l.asked >= decayNs:
		return 0
	}
	return unknownNs
}

func decayed(elapsed int64) float64 {
	return math.Exp(-math.Max(float64(elapsed), 0) / decayNs)
}

// peakEWMA draws two different candidates by weight and takes the one that
// promises the earlier answer: its latency times the exchanges that would then
// be in flight. Where weights differ, exchanges count for the weight, and the
// one to come for the mean of both weights: so with equal weights it is
// Finagle's rule, and with equal latencies p2c, which at rest follows the
// weights.
func (p *Picker) peakEWMA(ups []Upstream, total, now int64) int {
	first, second := pair(p.weights, total, &p.rng)
	if first == None {
		return None
	}
	best := first
	if second != None && p.joins(&ups[second], now) {
		one := 2 / float64(p.weights[first]+p.weights[second])
		if p.cost(ups, second, one, now) < p.cost(ups, first, one, now) {
			best = second
		}
	}
	if l := &p.latencies[best]; l.estimate == 0 {
		l.asked = max(now, 1)
	}
	return best
}

func (p *Picker) cost(ups []Upstream, i int, one float64, now int64) float64 {
	return p.latencies[i].expected(now) * (float64(ups[i].InFlight)/float64(p.weights[i]) + one)
}

// joins tells whether an upstream may be the second of a pair: in its slow
// start as often as its share says. Of two upstreams each is in every pair, and
// the faster would get all requests however little it weighs.
func (p *Picker) joins(u *Upstream, now int64) bool {
	if p.slowStart == 0 {
		return true
	}
	portion := share(u.Since, now, p.slowStart)
	return portion == shareFull || int64(below(p.rng.Uint64(), shareFull)) < portion
}

// Observe tells PeakEWMA how long an upstream took for an answer that came at
// nowNs, by the clock of Request.Now; other strategies do not listen. What was
// too late counts with the time it was waited for. Failures that come quickly
// are not to be told: they would make the upstream look fast.
func (p *Picker) Observe(upstream int, tookNs, nowNs int64) {
	if p.latencies != nil {
		p.latencies[upstream].observe(tookNs, nowNs)
	}
}
