package loop

import "time"

// progressMax is the longest time over which a slow receiver is judged. A window
// that was full opens again in steps, of a segment or a sixteenth of the receive
// buffer: over less time one who takes bytes steadily could be seen to take none.
const progressMax = 30 * time.Second

// progress judges the receiver of a send whose write deadline has passed, by what
// its TCP has acknowledged: that a socket has room again says little about it, as
// megabytes may lie in between.
//
// Until a deadline passes nothing is known and nothing is asked. The first time
// gives the receiver one interval, and each interval that it used well another.
type progress struct {
	interval time.Duration // of judgement; none if the deadline was set to interrupt
	since    Instant       // when it began; 0: no deadline has passed
	acked    uint64        // by then
}

// restart is told of a deadline that the connection's owner sets.
func (p *progress) restart(at, now Instant) {
	*p = progress{interval: min(time.Duration(at-now), progressMax)}
}

// deserves reports that the receiver may have another interval. One that was
// refused may be asked about again.
func (p *progress) deserves(rate int64, acked uint64, now Instant) bool {
	if p.since != 0 && float64(acked-p.acked) < float64(rate)*time.Duration(now-p.since).Seconds() {
		return false
	}
	p.since, p.acked = now, acked
	return true
}
