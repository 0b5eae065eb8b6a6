package results

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"
)

// histogram holds some values for a subject.
func histogram(t *testing.T, subject string, kind Latency, values ...int64) Histogram {
	counts := hdrhistogram.New(1000, int64(time.Minute), 3)
	for _, v := range values {
		require.NoError(t, counts.RecordValue(v))
	}
	name := Name{Scenario: "static-1k-latency", Mode: "open", Conns: 64, Rate: 2000, Subject: subject}
	return Histogram{Name: name, Latency: kind, At: time.UnixMilli(1764000000123).UTC(), Counts: counts}
}

func TestHistogramsRoundTrip(t *testing.T) {
	all := []Histogram{
		histogram(t, "atlas", Corrected, 150_000, 160_000, 2_000_000),
		histogram(t, "atlas", Raw, 140_000, 150_000),
		histogram(t, "nginx-best", Corrected, 170_000),
		histogram(t, "atlas", Corrected, 900_000),
	}
	path := filepath.Join(t.TempDir(), "results.bench")
	var text bytes.Buffer
	require.NoError(t, WriteHistograms(&text, all))
	require.NoError(t, os.WriteFile(Beside(path, ".hlog"), text.Bytes(), 0o644))
	got, err := OpenHistograms(path)
	require.NoError(t, err)
	require.Len(t, got, len(all))
	for i, h := range all {
		require.Equal(t, h.Name, got[i].Name)
		require.Equal(t, h.Latency, got[i].Latency)
		require.Equal(t, h.At, got[i].At)
		require.True(t, h.Counts.Equals(got[i].Counts))
	}
	sum := Merged(got, all[0].Name, Corrected)
	require.EqualValues(t, 4, sum.TotalCount())
	require.InEpsilon(t, 2_000_000, sum.Max(), 0.001)
	require.EqualValues(t, 3, got[0].Counts.TotalCount(), "merging leaves what it merges")
	require.Nil(t, Merged(got, all[2].Name, Raw))
}

func TestOpenHistogramsOfNone(t *testing.T) {
	all, err := OpenHistograms(filepath.Join(t.TempDir(), "results.bench"))
	require.NoError(t, err)
	require.Empty(t, all)
}

func TestReadHistogramsRefuses(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, WriteHistograms(&text, []Histogram{histogram(t, "atlas", Raw, 150_000)}))
	whole := text.String()
	for _, row := range []struct{ name, text, want string }{
		{"a line that is none", whole + "1,2\n", "1 of its 2 lines are no histograms"},
		{"an unknown kind", strings.Replace(whole, "latency=raw", "latency=cooked", 1), "ends in no /latency=corrected or /latency=raw"},
		{"an unknown name", strings.Replace(whole, "scenario=", "szenario=", 1), "histogram 1: benchmark name"},
		{"cut off", whole[:len(whole)-20], "histogram 1: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NotEqual(t, whole, row.text)
			got, err := ReadHistograms(strings.NewReader(row.text), "x.hlog")
			require.ErrorContains(t, err, row.want)
			require.Nil(t, got)
		})
	}
	bad := histogram(t, "a b", Raw, 1)
	require.ErrorContains(t, WriteHistograms(&text, []Histogram{bad}), "benchmark name")
}

func TestOpenManifest(t *testing.T) {
	dir := t.TempDir()
	bench := filepath.Join(dir, "xeon.bench")
	m, err := OpenManifest(bench)
	require.NoError(t, err)
	require.Nil(t, m)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(`{"run": "a"}`), 0o644))
	m, err = OpenManifest(bench)
	require.NoError(t, err)
	require.Equal(t, "a", m.Run)
	own := filepath.Join(dir, "xeon.json")
	require.NoError(t, os.WriteFile(own, []byte(`{"run": "b", "facts": [{"key": "thp", "value": "always"}]}`), 0o644))
	m, err = OpenManifest(bench)
	require.NoError(t, err)
	require.Equal(t, "b", m.Run, "its own comes first")
	require.Equal(t, []Fact{{"thp", "always"}}, m.Facts)
	require.NoError(t, os.WriteFile(own, []byte(`{`), 0o644))
	_, err = OpenManifest(bench)
	require.ErrorContains(t, err, "xeon.json: ")
}
