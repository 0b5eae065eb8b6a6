package stats

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Phase is a part of an exchange that takes its time.
type Phase uint8

// The phases. Queue, Connect and FirstByte are those of exchanges that had them:
// most find an upstream with room, and a connection to it.
const (
	Handshake Phase = iota // of TLS, with a client
	Queue                  // until an upstream had room
	Connect                // to an upstream, TLS with it included
	FirstByte              // from the request that went to an upstream to the head of its response
	Total                  // from the first byte of a request to the last one of its response
	phases
)

// String is the phase in one word, for a label.
func (p Phase) String() string {
	switch p {
	case Handshake:
		return "handshake"
	case Queue:
		return "queue"
	case Connect:
		return "connect"
	case FirstByte:
		return "first_byte"
	case Total:
		return "total"
	}
	return "unknown"
}

// bounds are the upper ends of a Histogram's buckets, both ends of the range that
// matters to somebody who waits: 1, 2, 5 for each power of ten. They are fixed, so
// that histograms of any two workers, processes and versions can be added.
var bounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second,
	10 * time.Second, 20 * time.Second, 50 * time.Second, 100 * time.Second,
}

// Buckets is how many a Histogram has; the last one is of what took longer than
// the last bound.
const Buckets = len(bounds) + 1

// Bounds are the upper ends of all buckets but the last, each in its bucket.
func Bounds() []time.Duration { return slices.Clone(bounds[:]) }

// start is the first bucket that a duration of so many bits can be in: there are
// at most two more to look at.
var start = func() (first [65]uint8) {
	for n := range first {
		shortest := int64(0)
		if n > 0 {
			shortest = 1 << (min(n, 63) - 1)
		}
		first[n] = uint8(bucketFrom(0, time.Duration(shortest)))
	}
	return first
}()

func bucketFrom(i int, d time.Duration) int {
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	return i
}

// Histogram says how often something took how long. One worker writes it and
// anybody reads it.
type Histogram struct {
	counts [Buckets]atomic.Int64
	sum    atomic.Int64 // nanoseconds
}

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketFrom(int(start[bits.Len64(uint64(d))]), d)].Add(1)
	h.sum.Add(int64(d))
}

// Times are those of one upstream on one worker.
type Times struct {
	FirstByte Histogram
	Total     Histogram
}

// upstreamsMax bounds the upstreams that have Times of their own, those that a
// configuration had before a change included: their numbers never go back.
const upstreamsMax = 2048

// Others is the name under which the upstreams beyond are counted together.
const Others = "(others)"

// Observe counts how long a phase took, of an exchange whose upstream has no part
// in it: for FirstByte and Total of others there is Upstream.
func (s *Stats) Observe(p Phase, d time.Duration) { s.Phases[p].Observe(d) }

// Upstream is where the times of an upstream are counted, always the same for a
// name. It takes a lock, so it is not for each request.
func (s *Stats) Upstream(name string) *Times {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.upstreams[name]; t != nil {
		return t
	}
	if len(s.upstreams) >= upstreamsMax {
		name = Others
	}
	t := s.upstreams[name]
	if t == nil {
		if s.upstreams == nil {
			s.upstreams = make(map[string]*Times)
		}
		t = new(Times)
		s.upstreams[name] = t
	}
	return t
}

// Distribution is one histogram of a Set, named the way it is exported. Those of
// one Name stand together and differ in the label.
type Distribution struct {
	Name   string // "phase_seconds"
	Label  string // name of the label: "phase"
	Of     string // value of the label: "connect"
	Help   string
	Counts [Buckets]int64 // of each bucket alone; see Bounds
	Sum    time.Duration
}

// Count is how many durations there were.
func (d *Distribution) Count() (n int64) {
	for _, bucket := range d.Counts {
		n += bucket
	}
	return n
}

func (d *Distribution) add(h *Histogram) {
	for i := range h.counts {
		d.Counts[i] += h.counts[i].Load()
	}
	d.Sum += time.Duration(h.sum.Load())
}

const (
	phaseHelp     = "Time that the parts of exchanges took; total is from the first byte of a request on."
	firstByteHelp = "Time from a request that went to the upstream to the head of its response."
	totalHelp     = "Time from the first byte of a request to the last one of the upstream's response to it."
)

// Distributions appends the histograms of all workers together to dst: one for
// each phase, then those of the upstreams in the order of their names.
func (s *Set) Distributions(dst []Distribution) []Distribution {
	first := len(dst)
	for p := range phases {
		dst = append(dst, Distribution{Name: "phase_seconds", Label: "phase", Of: p.String(), Help: phaseHelp})
	}
	byName := make(map[string][]*Times)
	for _, worker := range s.workers {
		for p := range phases {
			dst[first+int(p)].add(&worker.Phases[p])
		}
		worker.mu.Lock()
		for name, t := range worker.upstreams {
			byName[name] = append(byName[name], t)
			dst[first+int(FirstByte)].add(&t.FirstByte)
			dst[first+int(Total)].add(&t.Total)
		}
		worker.mu.Unlock()
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, kind := range []struct {
		name, help string
		of         func(*Times) *Histogram
	}{
		{"upstream_first_byte_seconds", firstByteHelp, func(t *Times) *Histogram { return &t.FirstByte }},
		{"upstream_total_seconds", totalHelp, func(t *Times) *Histogram { return &t.Total }},
	} {
		for _, name := range names {
			d := Distribution{Name: kind.name, Label: "upstream", Of: name, Help: kind.help}
			for _, t := range byName[name] {
				d.add(kind.of(t))
			}
			dst = append(dst, d)
		}
	}
	return dst
}
