package results

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Part is what one of several generators saw of a load that they made together.
type Part struct {
	Path       string // for errors
	File       *File
	Histograms []Histogram
}

// OpenPart reads a results file and the histograms beside it.
func OpenPart(path string) (Part, error) {
	f, err := Open(path)
	if err != nil {
		return Part{}, err
	}
	all, err := OpenHistograms(path)
	return Part{Path: path, File: f, Histograms: all}, err
}

// ApartMax is how far apart samples of one load may have ended.
const ApartMax = time.Second

// Merge adds up what generators on several hosts saw of the same servers at the same
// time. Connections, rates and requests per second are sums; quantiles are those of
// all latencies, never means of quantiles, so a sample without its histogram (wrk
// keeps none) is an error; the generators' own CPU time is by all requests. What
// only the server's host knows, its CPU time above all, is left out: each generator
// would divide it by its own requests alone.
//
// Sample i of a name in each part has to be of the same time, as far as its end tells:
// within ApartMax by the clocks of the hosts.
func Merge(parts []Part) (*File, []Histogram, error) {
	if len(parts) < 2 {
		return nil, nil, fmt.Errorf("%d runs given: to merge takes two or more", len(parts))
	}
	merged := &File{Settings: []Setting{{Key: "generators", Value: fmt.Sprint(len(parts))}}}
	for _, s := range parts[0].File.Settings {
		same := func(p Part) bool { return p.File.Setting(s.Key) == s.Value }
		if !slices.ContainsFunc(parts[1:], func(p Part) bool { return !same(p) }) {
			merged.Settings = append(merged.Settings, s)
		}
	}
	var all []Histogram
	for _, name := range parts[0].File.Names() {
		samples, histograms, err := mergeName(parts, name)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		merged.Samples = append(merged.Samples, samples...)
		all = append(all, histograms...)
	}
	for _, p := range parts[1:] {
		for _, name := range p.File.Names() {
			if !slices.Contains(parts[0].File.Names(), name) {
				return nil, nil, fmt.Errorf("%s: %s has it and %s has not", name, p.Path, parts[0].Path)
			}
		}
	}
	return merged, all, nil
}

// mergeName merges the repetitions under a name, whose load is the sum of the parts'.
func mergeName(parts []Part, name Name) ([]Sample, []Histogram, error) {
	total := name
	total.Conns *= len(parts)
	total.Rate *= len(parts)
	all := make([]series, len(parts))
	for i, p := range parts {
		all[i] = p.series(name)
		if a, b := len(all[0].samples), len(all[i].samples); a != b {
			return nil, nil, fmt.Errorf("%d repetitions in %s, %d in %s", a, parts[0].Path, b, p.Path)
		}
	}
	kinds := Latencies
	if name.Mode != "open" {
		kinds = []Latency{Raw} // nothing is ever due in a closed loop
	}
	for _, s := range all {
		if err := s.complete(kinds); err != nil {
			return nil, nil, err
		}
	}
	var samples []Sample
	var histograms []Histogram
	for round := range all[0].samples {
		var each []Sample
		for _, s := range all {
			each = append(each, s.samples[round])
		}
		latencies := map[Latency]*hdrhistogram.Histogram{}
		for _, kind := range kinds {
			h, err := mergeRound(all, kind, round)
			if err != nil {
				return nil, nil, err
			}
			latencies[kind] = h.Counts
			h.Name = total
			histograms = append(histograms, h)
		}
		samples = append(samples, Sample{Name: total, Requests: requestsOf(each), Values: sumUp(each, latencies)})
	}
	return samples, histograms, nil
}

// series are the repetitions of one name in a part.
type series struct {
	path       string
	samples    []Sample // but for those that count system calls
	histograms map[Latency][]Histogram
}

// series returns what a part has under a name.
func (p Part) series(name Name) series {
	own := series{path: p.Path, histograms: map[Latency][]Histogram{}}
	for _, s := range p.File.Samples {
		if s.Name == name && !s.Counts() {
			own.samples = append(own.samples, s)
		}
	}
	for _, h := range p.Histograms {
		if h.Name == name {
			own.histograms[h.Latency] = append(own.histograms[h.Latency], h)
		}
	}
	return own
}

// complete says where a repetition lacks the histogram of a kind.
func (s series) complete(kinds []Latency) error {
	for _, kind := range kinds {
		if n := len(s.histograms[kind]); n != len(s.samples) {
			const text = "%s has %d repetitions and %d histograms: measure with -generator vegeta, as wrk keeps none"
			return fmt.Errorf(text, s.path, len(s.samples), n)
		}
	}
	return nil
}

// mergeRound merges the histograms of one repetition.
func mergeRound(all []series, kind Latency, round int) (Histogram, error) {
	sum := all[0].histograms[kind][round]
	sum.Counts = sum.Counts.Clone()
	for _, s := range all[1:] {
		h := s.histograms[kind][round]
		if apart := h.At.Sub(sum.At).Abs(); apart > ApartMax {
			const text = "repetition %d ended %v apart in %s and %s: " +
				"the generators have to start together, by clocks that agree"
			return sum, fmt.Errorf(text, round+1, apart, all[0].path, s.path)
		}
		if dropped := sum.Counts.Merge(h.Counts); dropped > 0 {
			return sum, errors.New("latencies of " + s.path + " are outside the range of the others")
		}
	}
	return sum, nil
}

func requestsOf(each []Sample) int {
	sum := 0
	for _, s := range each {
		sum += s.Requests
	}
	return sum
}

// sumUp returns the values of several samples of the same time.
func sumUp(each []Sample, latencies map[Latency]*hdrhistogram.Histogram) map[string]float64 {
	values := map[string]float64{}
	for _, unit := range []string{Throughput, Shed, GreedyBytes, GreedyThroughput, Errors} {
		for _, s := range each {
			if v, ok := s.Values[unit]; ok {
				values[unit] += v
			}
		}
	}
	cpu, known := 0.0, true
	for _, s := range each {
		v, ok := s.Values[ClientCPU]
		cpu, known = cpu+v*float64(s.Requests), known && ok
	}
	if known {
		values[ClientCPU] = cpu / float64(requestsOf(each))
	}
	raw := latencies[Raw]
	asked := raw
	if due := latencies[Corrected]; due != nil {
		asked = due
		values[RawMean], values[RawP99] = raw.Mean(), float64(raw.ValueAtQuantile(99))
	}
	values[Mean] = asked.Mean()
	values[P50] = float64(asked.ValueAtQuantile(50))
	values[P99] = float64(asked.ValueAtQuantile(99))
	return values
}
