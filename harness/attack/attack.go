// Package attack drives load at one server: a warm-up in which every answer
// is checked, then a measured phase by vegeta (open loop) or wrk (closed
// loop), with the CPU clocks read around it. It refuses to return a sample
// that cannot be believed, to keep results in memory, and to have more
// requests in flight than it was given connections. Measure runs on the
// caller's goroutine and leaves none behind.
package attack

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/results"
)

// Target is what is asked for, and what every answer must be.
type Target struct {
	Address string // "host:port"
	Path    string // of the URL
	Length  int    // bytes of the body, which is origin.Document
}

// Load is how it is asked for.
type Load struct {
	Conns    int
	Rate     int // requests per second; 0 for a closed loop
	Warmup   time.Duration
	Measured time.Duration // wrk rounds it up to whole seconds
}

// Meters read CPU clocks. Origin is nil where no origin takes part. An error
// that is host.ErrUnsupported leaves the CPU columns out.
type Meters struct {
	Server, Origin func() (time.Duration, error)
}

// Generator is what makes the load.
type Generator struct {
	Wrk     string // path; "" makes vegeta drive the closed loop, too
	Cores   []int  // where wrk runs, one thread each
	Scratch string // existing directory for a script
	// StallMax is how long a phase may take beyond its duration before its
	// connections are closed and it counts as failed; 0 means 10 s.
	StallMax time.Duration
	// LateMax is how long after its planned end an open loop may have its
	// last answer; 0 means 50 ms and 5 % of the phase.
	LateMax time.Duration
}

const (
	stallMaxDefault = 10 * time.Second
	lateMaxDefault  = 50 * time.Millisecond
	// lateShare of the measured phase comes on top.
	lateShare = 0.05
)

// Sample is one measured phase that passed its checks.
type Sample struct {
	Requests int
	Values   map[string]float64 // by unit of results
	Notes    []string           // what limits the sample's meaning
}

// Unsound is the error of a sample that was refused.
type Unsound struct {
	Reasons []string
}

func (u *Unsound) Error() string { return strings.Join(u.Reasons, "; ") }

// phase is what one stretch of load did.
type phase struct {
	requests  int
	wall      time.Duration
	clientCPU time.Duration
	failures  failures
	latency   map[string]float64 // nanoseconds by unit
}

// Measure applies one load. An error is an *Unsound where the sample was
// refused, ctx's own where it ended, or says why there is no load at all.
func Measure(ctx context.Context, g Generator, target Target, load Load, meters Meters) (Sample, error) {
	if g.StallMax == 0 {
		g.StallMax = stallMaxDefault
	}
	if g.LateMax == 0 {
		g.LateMax = lateMaxDefault + time.Duration(lateShare*float64(load.Measured))
	}
	transport := newTransport(target, load.Conns)
	defer transport.close()
	warm, err := g.drive(ctx, transport, load, load.Warmup)
	if err != nil {
		return Sample{}, err
	}
	if err := warm.failures.refusal("warm-up"); err != nil {
		return Sample{}, err
	}
	byWrk := load.Rate == 0 && g.Wrk != ""
	if byWrk {
		transport.close() // wrk brings its own connections
	}
	before, err := meters.read()
	if err != nil {
		return Sample{}, err
	}
	var measured phase
	if byWrk {
		measured, err = g.wrk(ctx, target, load, transport.wire())
	} else {
		measured, err = g.drive(ctx, transport, load, load.Measured)
	}
	if err != nil {
		return Sample{}, err
	}
	after, err := meters.read()
	if err != nil {
		return Sample{}, err
	}
	return g.judge(measured, load, before, after)
}

// reading is the clocks at one moment.
type reading struct {
	server, origin time.Duration
	known          bool // the system has such clocks
	origins        bool // and there is an origin
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
	if errors.Is(err, host.ErrUnsupported) {
		return reading{}, nil
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
	r := reading{server: server, known: true}
	if err == nil && m.Origin != nil {
		r.origins = true
		r.origin, err = m.Origin()
	}
	return r, err
}

// saturatedMin is the share of its cores at which the generator's side is the
// limit.
const saturatedMin = 0.95

// judge turns a phase into a sample, or refuses it.
func (g Generator) judge(p phase, load Load, before, after reading) (Sample, error) {
	if err := p.failures.refusal("measured phase"); err != nil {
		return Sample{}, err
	}
	if p.requests == 0 || p.wall <= 0 {
		return Sample{}, &Unsound{Reasons: []string{"no request was completed"}}
	}
	rate := float64(p.requests) / p.wall.Seconds()
	if load.Rate > 0 && p.wall > load.Measured+g.LateMax {
		missed := fmt.Sprintf("rate missed: %.0f of %d requests per second", rate, load.Rate)
		return Sample{}, &Unsound{Reasons: []string{missed}}
	}
	s := Sample{Requests: p.requests, Values: map[string]float64{
		results.Throughput: rate,
		results.ClientCPU:  float64(p.clientCPU) / float64(p.requests),
		results.Errors:     0,
	}}
	for unit, v := range p.latency {
		s.Values[unit] = v
	}
	if !before.known {
		s.Notes = append(s.Notes, "CPU clocks of other processes cannot be read here")
		return s, nil
	}
	server := after.server - before.server
	client := p.clientCPU
	if before.origins {
		client += after.origin - before.origin
		s.Values[results.OriginCPU] = float64(after.origin-before.origin) / float64(p.requests)
	}
	s.Values[results.CPU] = float64(server) / float64(p.requests)
	s.Values[results.ServerBusy] = server.Seconds() / p.wall.Seconds()
	s.Values[results.ClientBusy] = client.Seconds() / p.wall.Seconds()
	s.note(load, max(1, len(g.Cores)))
	return s, nil
}

// note says what a closed loop measured if it was not the server.
func (s *Sample) note(load Load, clientCores int) {
	server, client := s.Values[results.ServerBusy], s.Values[results.ClientBusy]/float64(clientCores)
	if client >= saturatedMin && (load.Rate > 0 || server < results.SaturatedMin) {
		s.Notes = append(s.Notes, fmt.Sprintf("generator saturated (%.0f%% of its cores)", 100*client))
		return
	}
	if load.Rate == 0 && server < results.SaturatedMin {
		s.Notes = append(s.Notes, fmt.Sprintf("server busy only %.0f%%", 100*server))
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

// refusal returns an *Unsound if anything failed.
func (f *failures) refusal(step string) error {
	if f.count == 0 {
		return nil
	}
	reasons := []string{fmt.Sprintf("%s: %d errors", step, f.count)}
	return &Unsound{Reasons: append(reasons, f.texts...)}
}
