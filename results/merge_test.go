package results

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// part is what a generator saw in some repetitions: its latencies, corrected and raw.
func part(t *testing.T, path string, repetitions ...[2][]int64) Part {
	p := Part{Path: path, File: &File{Settings: []Setting{{"lab", "1"}, {"run", path}}}}
	for i, one := range repetitions {
		for k, kind := range Latencies {
			h := histogram(t, "atlas", kind, one[k]...)
			h.At = h.At.Add(time.Duration(i) * time.Minute)
			p.Histograms = append(p.Histograms, h)
		}
		n := len(one[0])
		p.File.Samples = append(p.File.Samples, Sample{Name: p.Histograms[0].Name, Requests: n, Values: map[string]float64{
			CPU: 1, Throughput: float64(n), P99: 1, ClientCPU: float64(1000 * n), Errors: 0,
		}})
	}
	return p
}

func TestMerge(t *testing.T) {
	a := part(t, "a", [2][]int64{{1000, 2000}, {1000, 1000}}, [2][]int64{{5000}, {5000}})
	b := part(t, "b", [2][]int64{{3000, 4000, 900_000, 1_000_000}, {3000, 4000, 5000, 6000}}, [2][]int64{{7000}, {6000}})
	f, histograms, err := Merge([]Part{a, b})
	require.NoError(t, err)
	require.Equal(t, []Setting{{"generators", "2"}, {"lab", "1"}}, f.Settings, "what differs is of none")
	total := a.File.Samples[0].Name
	total.Conns, total.Rate = 128, 4000
	require.Equal(t, []Name{total}, f.Names())
	require.Len(t, f.Samples, 2)
	first := f.Samples[0]
	require.Equal(t, 6, first.Requests)
	require.NotContains(t, first.Values, CPU, "each generator divided it by its own requests")
	require.Equal(t, 6.0, first.Values[Throughput])
	require.Zero(t, first.Values[Errors])
	require.InEpsilon(t, (2*2000+4*4000)/6.0, first.Values[ClientCPU], 1e-9)
	require.InEpsilon(t, 1_000_000, first.Values[P99], 0.05, "of all latencies, not a mean of quantiles")
	require.InEpsilon(t, 3000, first.Values[P50], 0.05)
	require.InEpsilon(t, 6000, first.Values[RawP99], 0.05)
	require.InEpsilon(t, (1000+2000+3000+4000+900_000+1_000_000)/6.0, first.Values[Mean], 0.05)
	require.InEpsilon(t, 7000, f.Samples[1].Values[P99], 0.05)
	require.Len(t, histograms, 4)
	require.Equal(t, total, histograms[0].Name)
	require.EqualValues(t, 6, histograms[0].Counts.TotalCount())
	require.EqualValues(t, 2, a.Histograms[0].Counts.TotalCount(), "merging leaves what it merges")
}

func TestMergeRefuses(t *testing.T) {
	one := [2][]int64{{1000}, {1000}}
	a := part(t, "a", one, one)
	late := part(t, "late", one, one)
	late.Histograms[2].At = late.Histograms[2].At.Add(-1200 * time.Millisecond)
	bare := part(t, "bare", one, one)
	bare.Histograms = nil
	more := part(t, "more", one, one)
	more.File.Samples = append(more.File.Samples, Sample{Name: a.File.Samples[0].Name.Of("nginx-best"), Requests: 1})
	for want, parts := range map[string][]Part{
		"two or more":                      {a},
		"2 repetitions in a, 1 in b":       {a, part(t, "b", one)},
		"wrk keeps none":                   {a, bare},
		"repetition 2 ended 1.2s apart in": {a, late},
		"more has it and a has not":        {a, more},
		"1 repetitions in more, 0 in a":    {more, a},
	} {
		_, _, err := Merge(parts)
		require.ErrorContains(t, err, want)
	}
}

// A closed loop has one latency, and what counts system calls is another pass.
func TestMergeOfClosedLoop(t *testing.T) {
	closed := func(path string) Part {
		p := part(t, path, [2][]int64{{1000}, {1000}})
		name := Name{Scenario: "static-1k", Mode: "closed", Conns: 100, Subject: "atlas"}
		p.Histograms = slices.Delete(p.Histograms, 0, 1)
		p.Histograms[0].Name, p.File.Samples[0].Name = name, name
		p.File.Samples = append(p.File.Samples, Sample{Name: name, Requests: 1, Values: map[string]float64{Syscalls: 1}})
		return p
	}
	f, histograms, err := Merge([]Part{closed("a"), closed("b"), closed("c")})
	require.NoError(t, err)
	require.Len(t, f.Samples, 1)
	require.Len(t, histograms, 1)
	require.Equal(t, 300, f.Samples[0].Name.Conns)
	require.NotContains(t, f.Samples[0].Values, RawP99)
	require.InEpsilon(t, 1000, f.Samples[0].Values[P99], 0.05)
}
