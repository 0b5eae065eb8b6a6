package main

import (
	"fmt"
	"net/http"
	"time"

	"atlas/proxy/loop"
)

// waits are Atlas's time-outs in this test: short, so that they pass.
var waits = struct{ header, body, write, idle, connect, upstream, drain time.Duration }{
	header: 2 * time.Second, body: 3 * time.Second, write: 3 * time.Second, idle: 5 * time.Second,
	connect: time.Second, upstream: 2 * time.Second, drain: 10 * time.Second,
}

// rules are what Atlas is held to, and how hard it is made for it. What may never
// happen stands in verdict and in line.receive: a wrong byte, an answer to another
// request, a body cut short that looks whole, a request lost or doubled.
var rules = struct {
	workers int
	clients int

	storm, calm   time.Duration // how long upstreams are killed and stopped, and left alone
	shortestStorm time.Duration
	grace         time.Duration // how long a trouble may still be felt when it is over

	heads      uint8         // how often an idempotent request may reach upstreams
	sharesFrom time.Duration // how long a run must be to have shares: one storm is most of a short one
	errorShare float64       // of all requests that well-behaved clients made
	calmShare  float64       // of them, errors while all was well: of what excuse calls slow and stale
	calmCount  int           // and so many more
	minimum    int           // answers in a second of the run, or it has tested nothing

	heap       uint64 // bytes that may be in use more at the end than behind the warm-up
	resident   int    // kB, likewise
	tasksKept  int64  // idle tasks that a worker keeps
	hung       time.Duration
	failureMax int // the run ends then
}{
	workers: 2, clients: 32,
	storm: 7 * time.Second, calm: 3 * time.Second, shortestStorm: 300 * time.Millisecond, grace: 500 * time.Millisecond,
	heads: 3, sharesFrom: 20 * time.Second, errorShare: 0.15, calmShare: 0.01, calmCount: 5, minimum: 20,
	// Free lists grow with what is in flight at once: at most 5 MiB of send
	// chunks and 1 MiB of relay buffers a worker. A leak of one relay buffer a
	// request is 64 MiB in a thousand of them.
	heap: 8 << 20, resident: 24 << 10, tasksKept: 16,
	hung: 30 * time.Second, failureMax: 10,
}

// verdict says what is wrong with what became of a request; "" is nothing.
func verdict(f fate, a arrivals) string {
	most := uint8(1)
	if f&idempotent != 0 {
		most = rules.heads
	}
	switch {
	case a.heads > most:
		return fmt.Sprintf("doubled: it reached upstreams %d times", a.heads)
	case a.bodies > a.heads:
		return "more bodies than heads arrived"
	case f&headSent == 0 && a.heads > 0:
		return "it arrived, though not all of its head was sent"
	case f&sent == 0 && a.bodies > 0:
		return "it arrived whole, though not all of it was sent"
	case f&answered != 0 && a.bodies == 0:
		return "lost: it was answered, and no upstream had all of it"
	case f&refused != 0 && f&idempotent == 0 && a.heads > 0:
		return "it was refused as if nobody had it, and an upstream had"
	}
	return ""
}

// answer is what a client got.
type answer struct {
	status   int    // 0: no head came
	whole    bool   // with all of the body
	closing  bool   // it said that it is the last one of its connection
	err      error  // why it is not whole
	said     string // the body of what is no 200
	from, to time.Time
}

func (a *answer) String() string {
	return fmt.Sprintf("status %d %q, whole %v, %v, after %v",
		a.status, a.said, a.whole, a.err, a.to.Sub(a.from).Round(time.Millisecond))
}

// judge decides whether an answer may be what it is.
func (run *chaos) judge(l *line, a *ask, got *answer) {
	upstreamHadIt := got.status == http.StatusOK && (got.whole || a.act != actEcho)
	if upstreamHadIt && !a.faulty() {
		run.ledger.mark(a.id, answered)
	}
	if got.status == http.StatusServiceUnavailable {
		run.ledger.mark(a.id, refused)
	}
	switch {
	case a.faulty():
		run.count(fmt.Sprintf("faulty %d", got.status))
		broken := !got.whole && (got.status == 0 || got.status == http.StatusOK)
		if !broken && got.status != http.StatusBadGateway && run.excuse(l, a, got) == "" {
			run.fail("id %d (%s): %s: got %s, and the upstream misbehaved", a.id, l.kind, a, got)
		}
		return
	case got.whole && (got.status == http.StatusOK || got.status == http.StatusForbidden && a.act == actEarly):
		run.count("good")
		return
	}
	why := run.excuse(l, a, got)
	if why == "" {
		run.fail("id %d (%s): %s: got %s, and nothing excuses that", a.id, l.kind, a, got)
		return
	}
	run.count("error " + why)
	if a.idempotent() && a.bodiless() && got.status >= 500 {
		why += ", which might have been repeated"
	}
	run.count(fmt.Sprintf("%d %q, %s", got.status, got.said, why))
}

// excuse says why a request of a well-behaved client may have failed. "" is
// nothing.
func (run *chaos) excuse(l *line, a *ask, got *answer) string {
	took := got.to.Sub(got.from)
	switch got.status {
	case 0, http.StatusOK, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		http.StatusRequestTimeout:
	case http.StatusForbidden:
		if a.act != actEarly {
			return ""
		}
	default:
		return ""
	}
	if got.whole && got.status == http.StatusGatewayTimeout && took < min(waits.connect, waits.upstream) {
		return "" // a time-out that has not passed
	}
	switch {
	case got.whole && got.status < 400:
		return "" // faulty upstreams do not give that
	case l.halfClosed && !got.whole:
		return "half" // who ends its direction is taken for gone while an upstream is asked
	case got.status != http.StatusRequestTimeout && run.weather.rough(got.from, got.to):
		return "rough"
	case got.status == http.StatusBadGateway && !(a.idempotent() && a.bodiless()):
		// The upstream closed the idle connection just then: what may not be
		// repeated, or is not in our hands any more, is not.
		return "stale"
	case took >= min(waits.connect, waits.upstream, waits.header, waits.body, waits.write):
		return "slow" // of a machine that has no time for us
	}
	return ""
}

// excusable are the errors that happen while all is well, which are few.
var excusable = []string{"error stale", "error slow"}

// idleTasks is how many tasks may exist when nothing happens.
func idleTasks(engine loop.Engine) int64 {
	if engine == loop.IOUring {
		return int64(rules.workers) * rules.tasksKept
	}
	return 0
}
