package results

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/perf/benchfmt"
)

func sample(subject string, cpu float64) Sample {
	return Sample{
		Name:     Name{Scenario: "static-1k", Mode: "closed", Conns: 100, Subject: subject},
		Requests: 1000,
		Values:   map[string]float64{CPU: cpu, Throughput: 98765, P99: 1200000, ServerBusy: 0.987, Errors: 0},
	}
}

func file() *File {
	return &File{
		Settings: []Setting{{"lab", "1"}, {"kernel", "6.18.44"}, {"commit", "ab12cd3"}},
		Samples:  []Sample{sample("nginx-best", 8500), sample("atlas", 7300), sample("atlas", 7400), sample("nginx-best", 8600)},
	}
}

func TestRoundTrip(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, Write(&text, file()))
	got, err := Read(&text, "x.bench")
	require.NoError(t, err)
	require.Equal(t, file(), got)
	atlas := got.Names()[1]
	require.Equal(t, "atlas", atlas.Subject)
	require.Equal(t, []float64{7300, 7400}, got.Values(atlas, CPU))
	require.Equal(t, "6.18.44", got.Setting("kernel"))
	require.Empty(t, got.Setting("no-such"))
	require.Empty(t, got.Values(atlas, P50), "a unit that is missing")
}

// What was counted in a pass of its own does not break the pairs of the others.
func TestValuesOfCounts(t *testing.T) {
	f := file()
	atlas := f.Names()[1]
	f.Samples = append(f.Samples, Sample{Name: atlas, Requests: 1000, Values: map[string]float64{Syscalls: 0.3, Enters: 0, Errors: 0}})
	var text bytes.Buffer
	require.NoError(t, Write(&text, f))
	require.Contains(t, text.String(), "subject=atlas 1000 0.3000 syscalls/req 0.0000 enters/req 0 errors\n")
	got, err := Read(&text, "x.bench")
	require.NoError(t, err)
	require.Equal(t, []float64{7300, 7400}, got.Values(atlas, CPU))
	require.Equal(t, []float64{0, 0}, got.Values(atlas, Errors))
	require.Equal(t, []float64{0.3}, got.Values(atlas, Syscalls))
	require.Equal(t, []float64{0}, got.Values(atlas, Enters))
	require.Empty(t, got.Values(got.Names()[0], Syscalls))
}

// The directions must reach x/perf: it knows none for units it did not invent.
func TestWriteDeclaresDirections(t *testing.T) {
	var text bytes.Buffer
	require.NoError(t, Write(&text, file()))
	reader := benchfmt.NewReader(&text, "x.bench")
	for reader.Scan() {
		_, wrong := reader.Result().(*benchfmt.SyntaxError)
		require.False(t, wrong, "%v", reader.Result())
	}
	for _, u := range Units {
		require.Equal(t, u.Better, reader.Units().GetBetter(u.Name), u.Name)
	}
}

func TestNames(t *testing.T) {
	for _, row := range []struct {
		text string
		want Name
	}{
		{"Lab/scenario=static-1k/mode=closed/conns=100/tls=off/subject=atlas",
			Name{Scenario: "static-1k", Mode: "closed", Conns: 100, Subject: "atlas"}},
		{"Lab/scenario=proxy-1k-latency/mode=open/conns=64/rate=2000/tls=on/subject=nginx-best",
			Name{Scenario: "proxy-1k-latency", Mode: "open", Conns: 64, Rate: 2000, TLS: true, Subject: "nginx-best"}},
		{"Lab/scenario=static-size/mode=closed/conns=32/length=0/tls=off/subject=atlas",
			Name{Scenario: "static-size", Mode: "closed", Conns: 32, Vary: "length", At: "0", Subject: "atlas"}},
	} {
		got, err := ParseName(row.text)
		require.NoError(t, err)
		require.Equal(t, row.want, got)
		require.Equal(t, row.text, got.String())
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, row := range []struct{ name, text string }{
		{"another benchmark", "ParseRequest/headers=8"},
		{"keys out of order", "Lab/mode=closed/scenario=a/conns=1/tls=off/subject=b"},
		{"no subject", "Lab/scenario=a/mode=closed/conns=1/tls=off"},
		{"subject that looks like GOMAXPROCS", "Lab/scenario=a/mode=closed/conns=1/tls=off/subject=b-2"},
		{"scenario that looks like GOMAXPROCS", "Lab/scenario=a-1/mode=closed/conns=1/tls=off/subject=b"},
		{"a key that nothing varies", "Lab/scenario=a/mode=closed/conns=1/colour=1/tls=off/subject=b"},
		{"two keys that vary", "Lab/scenario=a/mode=closed/conns=1/cores=1/length=1/tls=off/subject=b"},
		{"rate in a closed loop", "Lab/scenario=a/mode=closed/conns=1/rate=5/tls=off/subject=b"},
		{"open loop without a rate", "Lab/scenario=a/mode=open/conns=1/tls=off/subject=b"},
		{"count beyond an int", "Lab/scenario=a/mode=closed/conns=99999999999999999999/tls=off/subject=b"},
	} {
		t.Run(row.name, func(t *testing.T) {
			n, err := ParseName(row.text)
			require.Error(t, err)
			require.Zero(t, n)
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(*File)
		want  string
	}{
		{"key with a capital", func(f *File) { f.Settings[0].Key = "Lab" }, `setting "Lab"`},
		{"value of two lines", func(f *File) { f.Settings[1].Value = "a\nBenchmarkLab" }, "setting kernel"},
		{"empty value", func(f *File) { f.Settings[1].Value = "" }, "setting kernel"},
		{"unknown unit", func(f *File) { f.Samples[0].Values["furlongs"] = 1 }, `unknown unit "furlongs"`},
		{"name outside the grammar", func(f *File) { f.Samples[0].Name.Subject = "a b" }, "benchmark name"},
		{"no requests", func(f *File) { f.Samples[0].Requests = 0 }, "without requests"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := file()
			row.spoil(f)
			var text bytes.Buffer
			require.ErrorContains(t, Write(&text, f), row.want)
			require.Zero(t, text.Len(), "nothing is written of a file that cannot be read back")
		})
	}
}

func TestReadRefuses(t *testing.T) {
	const line = "BenchmarkLab/scenario=a/mode=closed/conns=1/tls=off/subject=b 10 5 req/s\n"
	for _, row := range []struct{ name, text, want string }{
		{"empty", "", "holds no samples"},
		{"only settings", "lab: 1\n", "holds no samples"},
		{"broken line", line + "BenchmarkLab/x 1 y\n", "x.bench:2"},
		{"foreign benchmark", "BenchmarkOther 1 5 req/s\n", `x.bench:1: benchmark name "Other"`},
		{"foreign unit", strings.Replace(line, "req/s", "ns/op", 1), `x.bench:1: unknown unit "ns/op"`},
		{"not a number", strings.Replace(line, " 5 ", " NaN ", 1), "x.bench:1: NaN req/s"},
		{"two machines in one file", "cpu: a\n" + line + "cpu: b\n" + line, `x.bench:4: setting cpu changes to "b"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			f, err := Read(strings.NewReader(row.text), "x.bench")
			require.ErrorContains(t, err, row.want)
			require.Nil(t, f)
		})
	}
}

func TestOpen(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none.bench"))
	require.ErrorIs(t, err, os.ErrNotExist)
	empty := filepath.Join(t.TempDir(), "empty.bench")
	require.NoError(t, os.WriteFile(empty, nil, 0o644))
	_, err = Open(empty)
	require.True(t, errors.Is(err, ErrEmpty))
}

func TestPublished(t *testing.T) {
	p, err := LoadPublished()
	require.NoError(t, err)
	require.Len(t, p.Throughput, 2)
	for _, table := range p.Throughput {
		require.Len(t, table.Rows, 2, table.Title)
		for _, row := range table.Rows {
			require.Positive(t, row.Atlas)
			require.Positive(t, row.Nginx)
		}
	}
	require.Len(t, p.Latency, 3)
	require.InDelta(t, 0.22, p.TLS.Overhead(), 0.005, "as the README says")
}

func FuzzRead(f *testing.F) {
	var text bytes.Buffer
	require.NoError(f, Write(&text, file()))
	f.Add(text.String())
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Read(strings.NewReader(text), "x.bench")
		if err != nil {
			require.Nil(t, got, "an error comes without a value")
			return
		}
		require.NotEmpty(t, got.Samples)
	})
}
