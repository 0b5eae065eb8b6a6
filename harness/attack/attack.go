// Package attack drives load at one server: a warm-up in which every answer
// is checked, then a measured phase, with the CPU clocks read around it. The
// open loop and large answers are vegeta's, the closed loop wrk's, handshakes
// and resting connections its own. It refuses to return a sample that cannot
// be believed, to keep results in memory, and to have more requests in flight
// than it was given connections. Measure runs on the caller's goroutine and
// leaves none behind.
package attack

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/results"
	"atlas/scenarios"
)

// Target is what is asked for, and what every answer must be.
type Target struct {
	Address string      // "host:port"
	TLS     *tls.Config // of the client; nil for plain connections
	Path    string      // of the URL
	Length  int         // bytes of the body, which is origin.Document
	Fields  []string    // of each request beside Host, without line ends
}

// Load is how it is asked for.
type Load struct {
	Of       scenarios.Work // "" means Requests
	Conns    int
	Rate     int // requests per second; 0 for a closed loop
	Crowd    int // full handshakes per second beside them; open loop only
	Greedy   scenarios.Greed
	Shed     bool // answers with status 503 stand, and are counted by themselves; open loop only
	Warmup   time.Duration
	Measured time.Duration // wrk rounds it up to whole seconds
}

// Meters read the clocks and the memory of processes. Origin is nil where no
// origin takes part. An error that is host.ErrUnsupported or host.ErrNoProcess
// leaves the CPU columns of the server out.
type Meters struct {
	Server, Origin func() (time.Duration, error)
	Kernel         func() (time.Duration, error) // the server's part there; nil where nobody asks
	Resident       func() (int64, error)         // bytes of the server's; for scenarios.Idle
	Peak           func() (int64, error)         // the most of them since its start; for Load.Shed
	// Calls reads the server's system calls. Where somebody asks for them there are
	// no other figures, because to count them slows everything down; and the load is
	// not wrk's, which opens connections while it is measured and leaves requests
	// unanswered at its end.
	Calls func() (host.Calls, error)
}

// Generator is what makes the load.
type Generator struct {
	Wrk     string // path; "" makes vegeta drive the closed loop, too
	Cores   []int  // where wrk runs, one thread each
	Scratch string // existing directory for a script
	Harness string // path of the program that is a greedy client; for Load.Greedy
	// StallMax is how long a phase may take beyond its duration before its
	// connections are closed and it counts as failed; 0 means 10 s.
	StallMax time.Duration
	// LateMax is how long after its planned end an open loop may have its
	// last answer; 0 means 50 ms and 5 % of the phase.
	LateMax time.Duration
	// CrowdMin is the share of the handshakes beside the requests that must
	// have been made; 0 means 0.9.
	CrowdMin float64
}

const (
	stallMaxDefault = 10 * time.Second
	lateMaxDefault  = 50 * time.Millisecond
	// lateShare of the measured phase comes on top.
	lateShare       = 0.05
	crowdMinDefault = 0.9
)

// Sample is one measured phase that passed its checks.
type Sample struct {
	Requests int
	Values   map[string]float64 // by unit of results
	Notes    []string           // what limits the sample's meaning
	// Histograms are the latencies, where the generator keeps every one.
	Histograms histograms
}

// Unsound is the error of a sample that was refused.
type Unsound struct {
	Reasons []string
}

func (u *Unsound) Error() string { return strings.Join(u.Reasons, "; ") }

// phase is what one stretch of load did.
type phase struct {
	requests   int // or handshakes
	wall       time.Duration
	clientCPU  time.Duration
	failures   failures
	latency    map[string]float64 // nanoseconds by unit
	shed       int                // answers with status 503 that stand
	inTime     int                // of requests: answered while there was load
	shedInTime int                // of shed, likewise
	late       time.Duration      // how long after it was due the last request was sent
	alone      *phase             // the same load without the greedy client, where there was one
	greedy     greedyWork         // and what that got done

	histograms histograms
}

// histograms are latencies in nanoseconds, by when they are counted from.
type histograms = map[results.Latency]*hdrhistogram.Histogram

// phases are the two stretches of one load. What the first leaves behind,
// connections or tickets, the second may use.
type phases interface {
	warmUp(context.Context) (phase, error)
	measure(context.Context) (phase, error)
	// opening is what of measure was spent on opening connections, as far as
	// that is not what is measured: the server's CPU time, and time.
	opening() (cpu, wall time.Duration)
	close()
}

// Measure applies one load. An error is an *Unsound where the sample was
// refused, ctx's own where it ended, or says why there is no load at all.
func Measure(ctx context.Context, g Generator, target Target, load Load, meters Meters) (Sample, error) {
	g = g.orDefaults(load)
	if meters.Calls != nil {
		g.Wrk = ""
	}
	if load.Of == scenarios.Idle {
		return g.measureIdle(ctx, target, load, meters)
	}
	var p phases
	if load.Of.Handshaking() {
		p = newHandshakers(g, target, load)
	} else {
		p = newRequests(g, target, load, meters)
	}
	defer p.close()
	warm, err := p.warmUp(ctx)
	if err != nil {
		return Sample{}, err
	}
	if err := warm.failures.refusal("warm-up"); err != nil {
		return Sample{}, err
	}
	before, err := meters.read()
	if err != nil {
		return Sample{}, err
	}
	measured, err := p.measure(ctx)
	if err != nil {
		return Sample{}, err
	}
	after, err := meters.read()
	if err != nil {
		return Sample{}, err
	}
	cpu, wall := p.opening()
	after.server -= cpu
	if measured.wall -= wall; wall > 0 && measured.wall < load.Measured/2 {
		return Sample{}, &Unsound{Reasons: []string{fmt.Sprintf("it takes %v to open the connections", wall)}}
	}
	s, err := g.judge(measured, target, load, before, after)
	if err == nil && load.Shed {
		err = s.shed(measured, load, meters)
	}
	return s, err
}

// orDefaults has what nobody set.
func (g Generator) orDefaults(load Load) Generator {
	if g.StallMax == 0 {
		g.StallMax = stallMaxDefault
	}
	if g.LateMax == 0 {
		g.LateMax = lateMaxDefault + time.Duration(lateShare*float64(load.Measured))
	}
	if g.CrowdMin == 0 {
		g.CrowdMin = crowdMinDefault
	}
	return g
}

// reading is the clocks at one moment.
type reading struct {
	server, origin time.Duration
	kernel         time.Duration
	unknown        error // why there is no clock to read, nil where there is one
	origins        bool  // there is an origin
	calls          host.Calls
	counted        bool // nothing but these is of interest
}

const (
	settleInterval = 5 * time.Millisecond
	settleTries    = 20
	// settledCPU per interval is an idle server: 2 % of a core.
	settledCPU = settleInterval / 50
)

// read waits until the server is idle, because the clock of a process that is
// running on another core may be a tick behind, and reads the clocks. A server
// that never rests (it may poll) is read after a bounded wait.
func (m Meters) read() (reading, error) {
	server, err := m.Server()
	if errors.Is(err, host.ErrUnsupported) || errors.Is(err, host.ErrNoProcess) {
		return reading{unknown: err}, nil
	}
	for range settleTries {
		if err != nil {
			return reading{}, err
		}
		time.Sleep(settleInterval)
		last := server
		if server, err = m.Server(); server-last < settledCPU {
			break
		}
	}
	r := reading{server: server}
	if err == nil && m.Calls != nil {
		r.counted = true
		r.calls, err = m.Calls()
	}
	if err == nil && m.Kernel != nil {
		r.kernel, err = m.Kernel()
	}
	if err == nil && m.Origin != nil {
		r.origins = true
		r.origin, err = m.Origin()
	}
	return r, err
}

// saturatedMin is the share of its cores at which the generator's side is the
// limit.
const saturatedMin = 0.95

// littleShare is by how much the requests in flight may differ from the
// connections of a closed loop. Over a whole phase they are the rate times the
// mean latency (Little's law): fewer, and connections waited for a server that
// stalled or for the generator; more, and wrk, which adds to its latencies what
// a stall should have delayed, added that much. With a neighbour on one core, 38
// of 120 samples are beyond it, all of them above
// (results/baseline/xeon-2-cores.bench).
const littleShare = 0.5

// bulkMin is the length of answers from which on bytes are worth counting.
const bulkMin = 100_000

// judge turns a phase into a sample, or refuses it.
func (g Generator) judge(p phase, target Target, load Load, before, after reading) (Sample, error) {
	if err := p.failures.refusal("measured phase"); err != nil {
		return Sample{}, err
	}
	if p.requests == 0 || p.wall <= 0 {
		return Sample{}, &Unsound{Reasons: []string{"no request was completed"}}
	}
	if err := g.missed(p, load); err != nil {
		return Sample{}, err
	}
	rate := float64(p.requests) / p.wall.Seconds()
	if load.Shed {
		// Who lets requests wait has answers to give when the load is over. They are
		// none that it kept up with, and their time none in which it had a load.
		rate = float64(p.inTime) / load.Measured.Seconds()
	}
	if before.counted {
		return counted(p, after.calls.Minus(before.calls)), nil
	}
	columns := columnsOf(load.Of)
	s := Sample{Requests: p.requests, Histograms: p.histograms, Values: map[string]float64{
		columns.rate:      rate,
		columns.clientCPU: float64(p.clientCPU) / float64(p.requests),
		results.Errors:    0,
	}}
	for unit, v := range p.latency {
		s.Values[unit] = v
	}
	s.noteLittle(load)
	if before.unknown != nil {
		s.Values[results.ClientBusy] = p.clientCPU.Seconds() / p.wall.Seconds()
		s.Notes = append(s.Notes, fmt.Sprintf("CPU time of the server is not measured: %v", before.unknown))
		s.noteGenerator(max(1, len(g.Cores)))
		return s, nil
	}
	server := after.server - before.server
	client := p.clientCPU
	if before.origins {
		client += after.origin - before.origin
		s.Values[results.OriginCPU] = float64(after.origin-before.origin) / float64(p.requests)
	}
	s.Values[columns.cpu] = float64(server) / float64(p.requests)
	if kernel := after.kernel - before.kernel; kernel > 0 && !load.Of.Handshaking() {
		s.Values[results.KernelCPU] = float64(min(kernel, server)) / float64(p.requests)
	}
	s.Values[results.ServerBusy] = server.Seconds() / p.wall.Seconds()
	s.Values[results.ClientBusy] = client.Seconds() / p.wall.Seconds()
	if !load.Of.Handshaking() && target.Length >= bulkMin && server > 0 {
		s.Values[results.Bytes] = float64(p.requests) * float64(target.Length) / server.Seconds()
	}
	if load.Greedy != "" {
		s.greedy(p, load.Greedy)
	}
	if load.Crowd > 0 || load.Shed || load.Greedy != "" {
		delete(s.Values, results.KernelCPU)
		delete(s.Values, columns.cpu) // of both together, so of neither
		delete(s.Values, columns.clientCPU)
		delete(s.Values, results.OriginCPU)
	}
	s.note(load, max(1, len(g.Cores)))
	return s, nil
}

// missed returns an *Unsound if a phase was not at the rate that was asked for.
func (g Generator) missed(p phase, load Load) error {
	over := p.wall - load.Measured
	// Who sheds may also let wait: then the last answer is late by right.
	if load.Rate == 0 || over <= g.LateMax || load.Shed && p.late <= g.LateMax {
		return nil
	}
	rate := float64(p.requests) / p.wall.Seconds()
	return &Unsound{Reasons: []string{fmt.Sprintf("rate missed: %.0f of %d requests per second", rate, load.Rate)}}
}

// shed adds what became of those that were refused, and what that took.
func (s *Sample) shed(p phase, load Load, meters Meters) error {
	s.Values[results.Shed] = float64(p.shedInTime) / load.Measured.Seconds()
	if meters.Peak == nil {
		return nil
	}
	peak, err := meters.Peak()
	if errors.Is(err, host.ErrUnsupported) || errors.Is(err, host.ErrNoProcess) {
		return nil
	}
	s.Values[results.PeakResident] = float64(peak)
	return err
}

// counted is the sample of a phase in which nothing but system calls was of interest.
func counted(p phase, calls host.Calls) Sample {
	return Sample{Requests: p.requests, Values: map[string]float64{
		results.Syscalls: float64(calls.All) / float64(p.requests),
		results.Enters:   float64(calls.Enters) / float64(p.requests),
		results.Errors:   0,
	}}
}

// columns are the units that a work is counted in.
type columns struct {
	rate, cpu, clientCPU string
}

func columnsOf(work scenarios.Work) columns {
	if work.Handshaking() {
		return columns{results.Handshakes, results.HandshakeCPU, results.ClientHandshakeCPU}
	}
	return columns{results.Throughput, results.CPU, results.ClientCPU}
}

// note says what a closed loop measured if it was not the server.
func (s *Sample) note(load Load, clientCores int) {
	server := s.Values[results.ServerBusy]
	if (load.Rate > 0 || server < results.SaturatedMin) && s.noteGenerator(clientCores) {
		return
	}
	if load.Rate == 0 && server < results.SaturatedMin {
		s.Notes = append(s.Notes, fmt.Sprintf("server busy only %.0f%%", 100*server))
	}
}

// noteGenerator says, and returns, whether the generator's side was the limit, unless
// the server was one as well.
func (s *Sample) noteGenerator(clientCores int) bool {
	client := s.Values[results.ClientBusy] / float64(clientCores)
	if client < saturatedMin {
		return false
	}
	s.Notes = append(s.Notes, fmt.Sprintf("generator saturated (%.0f%% of its cores)", 100*client))
	// Our half of a handshake costs as much as the server's: this rate is
	// as likely the generator's. The cost is the server's all the same.
	delete(s.Values, results.Handshakes)
	return true
}

// noteLittle says where rate and latency of a closed loop do not belong together.
func (s *Sample) noteLittle(load Load) {
	mean, known := s.Values[results.Mean]
	if load.Rate > 0 || load.Of.Handshaking() || load.Of == scenarios.Connections || !known {
		return
	}
	inFlight := s.Values[results.Throughput] * mean / 1e9
	if conns := float64(load.Conns); math.Abs(inFlight-conns) > littleShare*conns {
		s.Notes = append(s.Notes, fmt.Sprintf(
			"Little's law: rate times mean latency is %.0f requests in flight on %d connections", inFlight, load.Conns))
	}
}

// expected returns the checksum of the body that every answer must have.
func (t Target) expected() [sha256.Size]byte {
	return sha256.Sum256(origin.Document(t.Length))
}

// failuresKept bounds the distinct texts of failures that are remembered.
const failuresKept = 4

// failures counts requests that failed, by what was wrong.
type failures struct {
	count int
	texts []string
}

func (f *failures) add(n int, text string) {
	f.count += n
	if len(f.texts) < failuresKept && !slices.Contains(f.texts, text) {
		f.texts = append(f.texts, text)
	}
}

// join adds the failures of another.
func (f *failures) join(other failures) {
	f.count += other.count
	for _, text := range other.texts {
		f.add(0, text)
	}
}

// refusal returns an *Unsound if anything failed.
func (f *failures) refusal(step string) error {
	if f.count == 0 {
		return nil
	}
	reasons := []string{fmt.Sprintf("%s: %d errors", step, f.count)}
	return &Unsound{Reasons: append(reasons, f.texts...)}
}
