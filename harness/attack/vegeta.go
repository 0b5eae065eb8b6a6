package attack

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	vegeta "github.com/tsenart/vegeta/v12/lib"

	"atlas/harness/host"
	"atlas/results"
	"atlas/scenarios"
)

// WrkMax is the length of answers from which on wrk would be the limit: it
// reads 8 KB at a time, and vegeta over our transport 256.
const WrkMax = 1 << 20

// requests are phases of requests on connections that stay open.
type requests struct {
	g         Generator
	target    Target
	load      Load
	meters    Meters
	transport *transport
	byWrk     bool
	alone     *phase // before the greedy client came
	openCPU   time.Duration
	openWall  time.Duration
}

func newRequests(g Generator, target Target, load Load, meters Meters) *requests {
	r := &requests{
		g: g, target: target, load: load, meters: meters,
		transport: newTransport(target, load.Conns),
		byWrk:     g.ByWrk(target, load),
	}
	r.transport.brief = load.Of == scenarios.Connections
	if load.Shed {
		r.transport.full = &http.Response{
			Status: "503 Service Unavailable", StatusCode: http.StatusServiceUnavailable,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody,
		}
	}
	return r
}

// connsMany is how many connections are opened before anything is sent: all at
// once would be more than a server's backlog, and wait for a second.
const connsMany = 1000

// ByWrk says whether wrk makes a load. It counts what was answered, so to it a
// server that fell silent is one that was asked less.
func (g Generator) ByWrk(target Target, load Load) bool {
	if load.Of.Handshaking() || load.Of == scenarios.Idle {
		return false
	}
	return load.Rate == 0 && g.Wrk != "" && target.Length < WrkMax
}

// warmUp checks every answer, whoever drives the measured phase.
func (r *requests) warmUp(ctx context.Context) (phase, error) {
	if many := r.load.Conns >= connsMany && !r.transport.brief; many || r.byWrk && r.target.TLS != nil {
		if err := r.meterOpening(); err != nil {
			return phase{}, err
		}
	}
	p, err := r.g.drive(ctx, r.transport, r.load, r.load.Warmup)
	if r.byWrk {
		r.transport.close() // wrk brings its own connections
	}
	if err == nil && p.failures.count == 0 && r.load.Greedy != "" {
		err = r.measureAlone(ctx)
	}
	return p, err
}

// measureAlone is what the greedy client's neighbours have without it.
func (r *requests) measureAlone(ctx context.Context) error {
	alone, err := r.g.drive(ctx, r.transport, r.load, r.load.Measured)
	if err == nil {
		err = alone.failures.refusal("without the greedy client")
	}
	if err == nil {
		err = r.g.missed(alone, r.load)
	}
	r.alone = &alone
	return err
}

// meterOpening opens the connections by themselves and notes what that costs, if
// wrk is to open its own: it can do so nowhere but within the measured phase. A
// TLS handshake costs as much as twenty requests, and with OpenSSL takes about as
// long; without TLS wrk's take no time that counts, as it sends on the first of
// them before it has the last.
func (r *requests) meterOpening() error {
	before, err := r.meters.read()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := r.transport.open(r.load.Conns); err != nil {
		return &Unsound{Reasons: []string{"warm-up: " + err.Error()}}
	}
	wall := time.Since(began)
	after, err := r.meters.read()
	if r.byWrk {
		r.openCPU = after.server - before.server
	}
	if r.byWrk && r.target.TLS != nil {
		r.openWall = wall
	}
	return err
}

func (r *requests) opening() (cpu, wall time.Duration) { return r.openCPU, r.openWall }

func (r *requests) measure(ctx context.Context) (phase, error) {
	if r.load.Crowd > 0 {
		return r.measureCrowded(ctx)
	}
	if r.load.Greedy != "" {
		return r.measureGreedy(ctx)
	}
	if !r.byWrk {
		return r.g.drive(ctx, r.transport, r.load, r.load.Measured)
	}
	load := r.load
	if r.openWall > load.Measured/openingShare {
		load.Measured += r.openWall // on a machine so busy, little else might be measured
	}
	return r.g.wrk(ctx, r.target, load, r.transport.wire())
}

// openingShare of the measured phase may go to opening connections before it
// is made longer.
const openingShare = 4

// measureCrowded drives the load while others make handshakes at their rate.
func (r *requests) measureCrowded(ctx context.Context) (phase, error) {
	h := newHandshakers(r.g, r.target, Load{Conns: r.load.Conns})
	stop := h.pace(ctx, r.load.Crowd)
	p, err := r.g.drive(ctx, r.transport, r.load, r.load.Measured)
	beside := stop()
	p.failures.join(beside.failures)
	want := float64(r.load.Crowd) * beside.wall.Seconds()
	if err == nil && float64(beside.requests) < r.g.CrowdMin*want {
		p.failures.add(1, fmt.Sprintf("%d of %.0f handshakes beside the requests", beside.requests, want))
	}
	return p, err
}

func (r *requests) close() { r.transport.close() }

// drive is a phase of its own.
func (g Generator) drive(ctx context.Context, t *transport, load Load, d time.Duration) (phase, error) {
	f := newFold()
	clientCPU, err := g.fill(ctx, f, t, load, d)
	if err != nil {
		return phase{}, err
	}
	p := f.phase(load.Rate > 0)
	p.clientCPU = clientCPU
	return p, nil
}

// fill runs vegeta over t for d, after f.lead, and returns what that cost: at
// load.Rate from the clock, or as fast as the connections allow if that is 0. Workers
// are bounded by the connections: vegeta would otherwise answer one stall with new
// workers and connections without end, and the stall would never pass.
func (g Generator) fill(ctx context.Context, f *fold, t *transport, load Load, d time.Duration) (time.Duration, error) {
	d += f.lead
	bounded, cancel := context.WithTimeout(ctx, d+g.StallMax)
	defer cancel()
	attacker := vegeta.NewAttacker(
		vegeta.Client(&http.Client{Transport: t}),
		vegeta.Workers(uint64(load.Conns)),
		vegeta.MaxWorkers(uint64(load.Conns)),
	)
	targeter := vegeta.NewStaticTargeter(vegeta.Target{
		Method: http.MethodGet,
		URL:    "http://" + t.target.Address + t.target.Path,
	})
	undo := context.AfterFunc(bounded, func() {
		attacker.Stop()
		t.close()
	})
	defer undo()

	cpu := host.SelfCPU()
	// The pacers end the attack; vegeta's own duration could end it before a
	// single request on a machine that stalls.
	if load.Rate > 0 {
		p := newPacer(load.Rate, d)
		for r := range attacker.Attack(targeter, p, 0, "") {
			f.add(r, p.due(r.Seq), p.began.Add(f.lead), p.began.Add(d))
		}
	} else {
		p := eager{duration: d, least: uint64(load.Conns)}
		for r := range attacker.Attack(targeter, p, 0, "") {
			f.add(r, r.Timestamp, time.Time{}, time.Time{})
		}
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if bounded.Err() != nil {
		f.failures.add(1, fmt.Sprintf("stalled for %v", g.StallMax))
	}
	f.wall += f.last.Sub(f.first)
	f.first, f.last = time.Time{}, time.Time{}
	return host.SelfCPU() - cpu, nil
}

// fold gathers results as they come, in bounded memory. Vegeta's own metrics
// are a t-digest, which misplaces percentiles in the gap of a bimodal set by
// tens of percent; these histograms are exact to three digits everywhere.
type fold struct {
	corrected  *hdrhistogram.Histogram // from the instant a request was due
	raw        *hdrhistogram.Histogram // from the instant it was sent
	shed       *hdrhistogram.Histogram // of refusals that stand, as corrected
	failures   failures
	lead       time.Duration // at the beginning of each stretch of load, which is not counted
	led        int           // how many requests that were
	wall       time.Duration // of the stretches before
	first      time.Time     // earliest instant due
	last       time.Time     // latest end
	inTime     int           // of raw: had their answer before the stretch was over
	shedInTime int           // of shed, likewise
	late       time.Duration // of the request sent last, after it was due
	lastSent   time.Time
}

const (
	latencyMin    = int64(time.Microsecond)
	latencyMax    = int64(time.Minute)
	latencyDigits = 3
)

func newFold() *fold {
	return &fold{
		corrected: hdrhistogram.New(latencyMin, latencyMax, latencyDigits),
		raw:       hdrhistogram.New(latencyMin, latencyMax, latencyDigits),
		shed:      hdrhistogram.New(latencyMin, latencyMax, latencyDigits),
	}
}

// add takes one result that was due at an instant, and counts it if that was not
// before a time; what was answered by the time to was so while there was load.
func (f *fold) add(r *vegeta.Result, due, from, to time.Time) {
	// Our transport returns such an answer only where it stands; vegeta calls it
	// an error all the same.
	shed := r.Code == http.StatusServiceUnavailable
	if r.Error != "" && !shed {
		f.failures.add(1, r.Error)
		return
	}
	if due.Before(from) {
		f.led++
		return
	}
	end := r.End()
	if f.first.IsZero() || due.Before(f.first) {
		f.first = due
	}
	if end.After(f.last) {
		f.last = end
	}
	if r.Timestamp.After(f.lastSent) {
		f.lastSent, f.late = r.Timestamp, r.Timestamp.Sub(due)
	}
	inTime := 0
	if !end.After(to) {
		inTime = 1
	}
	if shed {
		f.shedInTime += inTime
		record(f.shed, end.Sub(due))
		return
	}
	f.inTime += inTime
	record(f.corrected, end.Sub(due))
	record(f.raw, r.Latency)
}

// record keeps values outside the histogram's range at its edge.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), latencyMin), latencyMax)) // in range by construction
}

// phase sums up. In a closed loop nothing is ever due, so there is no
// corrected latency to report beside the raw one.
func (f *fold) phase(open bool) phase {
	p := phase{
		requests: int(f.raw.TotalCount()),
		wall:     f.wall,
		failures: f.failures,
		latency: map[string]float64{
			results.Mean: f.corrected.Mean(),
			results.P50:  float64(f.corrected.ValueAtQuantile(50)),
			results.P99:  float64(f.corrected.ValueAtQuantile(99)),
		},
		histograms: histograms{results.Raw: f.raw},
		shed:       int(f.shed.TotalCount()),
		inTime:     f.inTime,
		shedInTime: f.shedInTime,
		late:       f.late,
	}
	if p.shed > 0 {
		p.latency[results.ShedP50] = float64(f.shed.ValueAtQuantile(50))
		p.latency[results.ShedP99] = float64(f.shed.ValueAtQuantile(99))
	}
	if open {
		p.histograms[results.Corrected] = f.corrected
		p.latency[results.RawMean] = f.raw.Mean()
		p.latency[results.RawP99] = float64(f.raw.ValueAtQuantile(99))
	}
	return p
}

// eager releases requests as fast as the workers take them: a closed loop. It
// ends after duration, but not before every connection had a request.
type eager struct {
	duration time.Duration
	least    uint64
}

// Pace never waits.
func (e eager) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	return 0, elapsed >= e.duration && hits >= e.least
}

// Rate is unknown beforehand, for which vegeta has 0.
func (e eager) Rate(time.Duration) float64 { return 0 }

// pacer releases requests at evenly spaced instants. Vegeta's own pacers sleep
// by the runtime's timers, which wake about a millisecond late and make up for
// it in bursts; and they leave the lateness out of the latency. This one keeps
// the schedule, so that latency can be counted from the instant due.
type pacer struct {
	interval time.Duration
	hits     uint64
	began    time.Time // set by the first Pace, before any result exists
}

func newPacer(rate int, d time.Duration) *pacer {
	interval := time.Second / time.Duration(rate)
	return &pacer{interval: interval, hits: max(1, uint64(d/interval))}
}

// Pace sleeps until the next request is due; vegeta then has nothing to wait for.
func (p *pacer) Pace(_ time.Duration, hits uint64) (wait time.Duration, stop bool) {
	if hits == 0 {
		p.began = time.Now()
	}
	if hits >= p.hits {
		return 0, true
	}
	host.SleepUntil(p.due(hits))
	return 0, false
}

// Rate returns requests per second, which vegeta asks for its reports.
func (p *pacer) Rate(time.Duration) float64 {
	return float64(time.Second) / float64(p.interval)
}

// due returns when request number seq should leave.
func (p *pacer) due(seq uint64) time.Time {
	return p.began.Add(time.Duration(seq) * p.interval)
}
