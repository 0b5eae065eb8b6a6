package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"

	"atlas/results"
)

// writePart writes what one generator saw of an open loop.
func writePart(t *testing.T, dir string, slow int64) string {
	name := results.Name{Scenario: "static-1k-latency", Mode: "open", Conns: 64, Rate: 2000, Subject: "atlas"}
	var all []results.Histogram
	for _, kind := range results.Latencies {
		counts := hdrhistogram.New(1000, int64(time.Minute), 3)
		require.NoError(t, counts.RecordValues(1_000_000, 90))
		require.NoError(t, counts.RecordValues(slow, 10))
		all = append(all, results.Histogram{Name: name, Latency: kind, At: time.UnixMilli(1764000000000), Counts: counts})
	}
	path, err := store(dir, &results.File{Samples: []results.Sample{
		{Name: name, Requests: 100, Values: map[string]float64{results.Throughput: 2000}},
	}}, all)
	require.NoError(t, err)
	return path
}

func TestMerge(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	a, b := writePart(t, filepath.Join(dir, "a"), 2_000_000), writePart(t, filepath.Join(dir, "b"), 80_000_000)
	compare := func(status int, args ...string) string {
		var stdout, stderr bytes.Buffer
		require.Equal(t, status, run(&stdout, &stderr, append([]string{"merge"}, args...)), &stderr)
		return stdout.String() + stderr.String()
	}
	require.Contains(t, compare(exitUsage, a, b), "-o DIRECTORY")
	require.Contains(t, compare(exitInvalid, "-o", out, a), "two or more")
	require.Contains(t, compare(exitInvalid, "-o", out, a, filepath.Join(dir, "none")), "no such file")
	require.NoError(t, os.Remove(results.Beside(b, ".hlog")))
	require.Contains(t, compare(exitInvalid, "-o", out, a, b), "wrk keeps none")
	require.NoDirExists(t, out)

	b = writePart(t, filepath.Join(dir, "c"), 80_000_000)
	path := filepath.Join(out, "results.bench")
	require.Equal(t, "results: "+path+"\n", compare(exitPass, "-o", out, a, b))
	require.Contains(t, compare(exitUsage, "-o", out, a, b), "file exists")
	f, err := results.Open(path)
	require.NoError(t, err)
	require.Equal(t, 128, f.Samples[0].Name.Conns)
	require.Equal(t, 4000.0, f.Samples[0].Values[results.Throughput])
	require.InEpsilon(t, 80_000_000, f.Samples[0].Values[results.P99], 0.01)
	all, err := results.OpenHistograms(path)
	require.NoError(t, err)
	require.EqualValues(t, 200, all[0].Counts.TotalCount())
	for _, verb := range []string{"table", "report"} { // which do without the server's CPU time
		var stdout, stderr bytes.Buffer
		require.Equal(t, exitPass, run(&stdout, &stderr, []string{verb, path}), &stderr)
	}
}
