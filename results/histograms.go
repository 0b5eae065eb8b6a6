package results

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency says from when on a latency is counted.
type Latency string

// The two latencies. A closed loop has the raw one only: nothing is ever due.
const (
	Corrected Latency = "corrected" // from the instant a request was due
	Raw       Latency = "raw"       // from the instant it was really sent
)

// Latencies are the kinds in the order they are written.
var Latencies = []Latency{Corrected, Raw}

// Histogram is every latency of one sample, in nanoseconds, of one kind.
type Histogram struct {
	Name    Name
	Latency Latency
	At      time.Time // when the sample ended
	Counts  *hdrhistogram.Histogram
}

// tag names a histogram in the log.
func (h Histogram) tag() string { return h.Name.String() + latencyKey + string(h.Latency) }

const latencyKey = "/latency="

// WriteHistograms writes the format of HdrHistogram logs, version 1.3: a line
// for each histogram, in the order measured, with what it is of as its tag.
// Other programs read and merge them.
func WriteHistograms(w io.Writer, all []Histogram) error {
	out := bufio.NewWriter(w)
	log := hdrhistogram.NewHistogramLogWriter(out)
	if err := log.OutputLogFormatVersion(); err != nil {
		return err
	}
	if err := log.OutputLegend(); err != nil {
		return err
	}
	for _, h := range all {
		if _, err := ParseName(h.Name.String()); err != nil {
			return err
		}
		counts := h.Counts.Clone()
		counts.SetTag(h.tag())
		counts.SetStartTimeMs(h.At.UnixMilli())
		counts.SetEndTimeMs(h.At.UnixMilli())
		if err := log.OutputIntervalHistogram(counts); err != nil {
			return err
		}
	}
	return out.Flush()
}

// ReadHistograms reads what WriteHistograms wrote; name is for its errors.
func ReadHistograms(r io.Reader, name string) ([]Histogram, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	// The library's reader passes over what it does not know.
	lines := 0
	for line := range bytes.Lines(text) {
		if line[0] != '#' && line[0] != '"' {
			lines++
		}
	}
	log := hdrhistogram.NewHistogramLogReader(bytes.NewReader(text))
	var all []Histogram
	for {
		counts, err := log.NextIntervalHistogram()
		if err != nil {
			return nil, fmt.Errorf("%s: histogram %d: %w", name, len(all)+1, err)
		}
		if counts == nil && len(all) != lines {
			return nil, fmt.Errorf("%s: %d of its %d lines are no histograms", name, lines-len(all), lines)
		}
		if counts == nil {
			return all, nil
		}
		h, err := histogramOf(counts)
		if err != nil {
			return nil, fmt.Errorf("%s: histogram %d: %w", name, len(all)+1, err)
		}
		all = append(all, h)
	}
}

// histogramOf reads the tag.
func histogramOf(counts *hdrhistogram.Histogram) (Histogram, error) {
	text, kind, _ := strings.Cut(counts.Tag(), latencyKey)
	if kind != string(Corrected) && kind != string(Raw) {
		return Histogram{}, fmt.Errorf("tag %q ends in no %scorrected or %[2]sraw", counts.Tag(), latencyKey)
	}
	name, err := ParseName(text)
	if err != nil {
		return Histogram{}, err
	}
	at := time.UnixMilli(counts.EndTimeMs()).UTC()
	return Histogram{Name: name, Latency: Latency(kind), At: at, Counts: counts}, nil
}

// OpenHistograms reads the histograms beside a results file: x.hlog for
// x.bench. There are none where the file is missing, as wrk keeps none.
func OpenHistograms(bench string) ([]Histogram, error) {
	path := Beside(bench, ".hlog")
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ReadHistograms(file, path)
}

// Beside returns the path of what belongs to a results file.
func Beside(bench, ext string) string { return strings.TrimSuffix(bench, ".bench") + ext }

// Merged adds up the histograms of one kind under a name, over all its rounds.
// It returns nil where there are none.
func Merged(all []Histogram, name Name, kind Latency) *hdrhistogram.Histogram {
	var sum *hdrhistogram.Histogram
	for _, h := range all {
		switch {
		case h.Name != name || h.Latency != kind:
		case sum == nil:
			sum = h.Counts.Clone()
		default:
			sum.Merge(h.Counts)
		}
	}
	return sum
}
