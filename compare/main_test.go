package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden runs the program and compares all it says, and its exit status, with
// testdata/name.golden. Paths below dir print as DIR.
func golden(t *testing.T, name, dir string, args ...string) {
	var stdout, stderr bytes.Buffer
	status := run(&stdout, &stderr, args)
	got := fmt.Sprintf("$ compare %s\n%s-- stderr --\n%s-- status %d --\n", strings.Join(args, " "), &stdout, &stderr, status)
	if dir != "" {
		got = strings.ReplaceAll(got, dir, "DIR")
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	if string(want) != got {
		require.NoError(t, os.WriteFile(filepath.Join("testdata", name+".got"), []byte(got), 0o644))
	}
	require.Equal(t, string(want), got)
}

// spec is a made-up run.
type spec struct {
	rounds   int
	subjects []string
	slower   float64 // factor on Atlas's cost
	starved  bool    // the server is never saturated
	only     string  // prefix of the scenarios, "" for all
	quick    bool    // without the cells of 500 connections
	curves   bool    // of nothing else, and a load that is more than can be done
	counted  bool    // with a pass that counts system calls
	counts   bool    // with nothing else
	commit   string
	// unmetered is a subject whose CPU time nobody knows.
	unmetered string
	generator string // "" for wrk
}

// costs are nanoseconds of CPU for a static request.
var costs = map[string]float64{
	"atlas": 5000, "atlas-other": 5500, "atlas-netpoll": 6500, "nginx-best": 6000, "nginx-readme": 9000, "go-nethttp": 20000,
	"floor": 3000, "caddy": 12000, "theirs": 8000,
}

// write makes a results file whose figures are plausible and always the same.
func write(t *testing.T, path string, s spec) {
	random := rand.New(rand.NewPCG(uint64(s.rounds), uint64(7+len(s.generator))))
	f := &results.File{Settings: []results.Setting{
		{Key: "lab", Value: "1"}, {Key: "form", Value: fmt.Sprintf("quick: %d rounds of 1s after 300ms", s.rounds)},
		{Key: "server-cores", Value: "0"}, {Key: "client-cores", Value: "1"}, {Key: "generator", Value: cmp.Or(s.generator, "wrk")},
		{Key: "cpu", Value: "Test CPU"}, {Key: "cores", Value: "2"}, {Key: "kernel", Value: "6.18.44"},
		{Key: "conntrack", Value: "off"}, {Key: "go", Value: "go1.26.8"}, {Key: "env-hash", Value: "abc123"},
		{Key: "tls", Value: "TLSv1.3, TLS_AES_128_GCM_SHA256, X25519, ecdsa-p256"}, {Key: "openssl", Value: "OpenSSL 3.0.19"},
		{Key: "commit", Value: s.commit}, {Key: "date", Value: "2026-11-23T13:00:00Z"},
	}}
	cells := []results.Name{
		{Scenario: "proxy-1k", Mode: "closed", Conns: 100}, {Scenario: "proxy-1k", Mode: "closed", Conns: 500},
		{Scenario: "proxy-1k-latency", Mode: "open", Conns: 64, Rate: 2000},
		{Scenario: "static-1k", Mode: "closed", Conns: 100}, {Scenario: "static-1k", Mode: "closed", Conns: 500},
		{Scenario: "static-1k-latency", Mode: "open", Conns: 64, Rate: 2000},
		{Scenario: "static-1m", Mode: "closed", Conns: 10},
		{Scenario: "tls-proxy-1k", Mode: "closed", Conns: 100, TLS: true},
		{Scenario: "tls-proxy-1k", Mode: "closed", Conns: 500, TLS: true},
		{Scenario: "tls-proxy-1k-latency", Mode: "open", Conns: 64, Rate: 2000, TLS: true},
		{Scenario: "tls-handshake-full", Mode: "closed", Conns: 64, TLS: true},
		{Scenario: "idle-conns", Mode: "closed", Conns: 5000},
	}
	if s.curves {
		cells = nil
		for _, conns := range []int{1, 10, 100, 500, 1000, 10_000} {
			cells = append(cells, results.Name{Scenario: "static-1k-conns", Mode: "closed", Conns: conns})
		}
		for _, at := range []string{"0", "1024", "10240", "10485760"} {
			cells = append(cells, results.Name{Scenario: "static-size", Mode: "closed", Conns: 32, Vary: "length", At: at})
		}
		cells = append(cells, results.Name{Scenario: "overload", Mode: "open", Conns: 4000, Rate: 4000})
		cells = append(cells, results.Name{Scenario: "greedy-proxy-download", Mode: "open", Conns: 50, Rate: 2000},
			results.Name{Scenario: "greedy-static-pipeline", Mode: "open", Conns: 50, Rate: 2000})
		for _, at := range []string{"1", "2"} {
			cells = append(cells, results.Name{Scenario: "static-1k-cores", Mode: "closed", Conns: 100, Vary: "cores", At: at})
		}
	}
	for range s.rounds {
		drift := 1 + 0.1*random.Float64()
		for _, cell := range cells {
			if !strings.HasPrefix(cell.Scenario, s.only) || s.quick && cell.Conns == 500 {
				continue
			}
			for _, subject := range s.subjects {
				if subject == "floor" && cell.TLS {
					continue
				}
				cost := costs[subject] * drift * (1 + 0.01*random.NormFloat64())
				if strings.Contains(cell.Scenario, "proxy") {
					cost *= 2
				}
				if cell.TLS {
					cost *= 1.2
				}
				if subject == "atlas" {
					cost *= s.slower
				}
				f.Samples = append(f.Samples, sampleOf(cell.Of(subject), cost, s.starved))
				if s.unmetered != "" {
					f.Samples[len(f.Samples)-1].Values[results.KernelCPU] = cost * 0.8
				}
				if subject == s.unmetered {
					for _, unit := range unmeteredUnits {
						delete(f.Samples[len(f.Samples)-1].Values, unit)
					}
				}
			}
		}
	}
	if s.counts {
		f.Samples = nil
	}
	for _, cell := range cells {
		one := strings.HasPrefix(cell.Scenario, s.only) && cell.Mode == "closed" && strings.HasSuffix(cell.Scenario, "-1k")
		for _, subject := range s.subjects {
			if one && (s.counted || s.counts) && !(s.quick && cell.Conns == 500) {
				f.Samples = append(f.Samples, callsOf(cell.Of(subject)))
			}
		}
	}
	file, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, results.Write(file, f))
	require.NoError(t, file.Close())
}

// callsOf is what a server calls, which depends on how it works.
func callsOf(name results.Name) results.Sample {
	values := map[string]float64{results.Syscalls: costs[name.Subject] / 2000, results.Enters: 0, results.Errors: 0}
	if name.Subject == "atlas" || name.Subject == "floor" {
		values[results.Syscalls], values[results.Enters] = 0.25+float64(name.Conns)/1e4, 0.125
	}
	return results.Sample{Name: name, Requests: 10_000, Values: values}
}

// sampleOf derives a sample from what a request costs the server.
func sampleOf(name results.Name, cost float64, starved bool) results.Sample {
	busy := 0.98
	if starved {
		busy = 0.5
	}
	rate := busy * 1e9 / cost
	if name.Mode == "open" {
		rate = float64(name.Rate)
		busy = rate * cost / 1e9
	}
	values := map[string]float64{results.Errors: 0}
	switch name.Scenario {
	case "idle-conns":
		values[results.Resident], values[results.ResidentBefore] = cost/6, 9e6
		return results.Sample{Name: name, Requests: name.Conns, Values: values}
	case "tls-handshake-full":
		values[results.HandshakeCPU], values[results.ClientHandshakeCPU] = 40*cost, 250_000
		values[results.ServerBusy], values[results.ClientBusy] = busy, 0.9
		if !starved {
			values[results.Handshakes] = rate / 40
		}
		return results.Sample{Name: name, Requests: int(rate / 40), Values: values}
	case "overload":
		return results.Sample{Name: name, Requests: 2000, Values: map[string]float64{
			results.Errors: 0, results.Throughput: 1e7 / cost, results.Shed: 4000 - 1e7/cost, results.P50: 500e6, results.P99: 510e6,
			results.ShedP50: 100 * cost, results.ShedP99: 300 * cost, results.PeakResident: 2e7, results.ServerBusy: 0.2,
			results.ClientBusy: 0.5,
		}}
	case "greedy-proxy-download", "greedy-static-pipeline":
		got, much := results.GreedyBytes, 1e12/cost
		if name.Scenario == "greedy-static-pipeline" {
			got, much = results.GreedyThroughput, 1e9/cost
		}
		return results.Sample{Name: name, Requests: 2000, Values: map[string]float64{
			results.Errors: 0, results.Throughput: 2000, results.P50: 50 * cost, results.P99: 150 * cost, results.AloneP99: 100 * cost,
			results.P99Rise: 1.5, got: much, results.ServerBusy: 1, results.ClientBusy: 0.5,
		}}
	case "static-1m":
		values[results.Bytes] = 1 << 20 / cost * 1e9
	}
	maps.Copy(values, map[string]float64{
		results.CPU: cost, results.Throughput: rate, results.Mean: 100 * cost, results.P50: 90 * cost, results.P99: 250 * cost,
		results.ClientCPU: 5000, results.ServerBusy: busy, results.ClientBusy: 0.6,
	})
	if name.Mode == "open" {
		values[results.RawMean], values[results.RawP99] = 80*cost, 200*cost
	}
	if strings.Contains(name.Scenario, "proxy") {
		values[results.OriginCPU] = 6000
	}
	return results.Sample{Name: name, Requests: int(rate), Values: values}
}

var (
	usual     = []string{"atlas", "atlas-netpoll", "nginx-best", "nginx-readme"}
	withFloor = append(slices.Clone(usual), "floor") // as the quick form has them
	// unmeteredUnits are those that rest on the server's clock.
	unmeteredUnits = []string{results.CPU, results.KernelCPU, results.ServerBusy, results.OriginCPU, results.Bytes}
)

func TestTable(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "results.bench")
	for _, row := range []struct {
		name string
		spec spec
	}{
		{"table", spec{rounds: 6, subjects: usual, slower: 1, commit: "aaaaaaa"}},
		{"table-starved", spec{rounds: 1, subjects: usual, slower: 1, starved: true, commit: "aaaaaaa"}},
		{"table-without-atlas", spec{rounds: 6, subjects: []string{"nginx-best", "nginx-readme"}, slower: 1, commit: "aaaaaaa"}},
		{"table-quick", spec{rounds: 6, subjects: usual, slower: 1, quick: true, commit: "aaaaaaa"}},
		{"table-other", spec{rounds: 6, subjects: []string{"atlas", "atlas-other"}, slower: 1, commit: "aaaaaaa"}},
		{"table-floor", spec{rounds: 6, subjects: withFloor, slower: 1, only: "static-1k", commit: "aaaaaaa"}},
		{"table-curves", spec{rounds: 6, subjects: withFloor, slower: 1, curves: true, commit: "aaaaaaa"}},
		{"table-counted", spec{rounds: 6, subjects: withFloor, slower: 1, only: "proxy-1k", quick: true, counted: true,
			commit: "aaaaaaa"}},
		{"table-counts", spec{rounds: 1, subjects: withFloor, slower: 1, counts: true, commit: "aaaaaaa"}},
		{"table-brought", spec{rounds: 6, subjects: []string{"atlas", "nginx-best", "caddy", "theirs"}, slower: 1,
			only: "static-1", unmetered: "theirs", commit: "aaaaaaa"}},
		{"table-brought-alone", spec{rounds: 6, subjects: []string{"atlas", "theirs"}, slower: 1,
			only: "static-1k", unmetered: "theirs", commit: "aaaaaaa"}},
		{"table-atlas-alone", spec{rounds: 6, subjects: []string{"atlas"}, slower: 1, only: "static-1m", commit: "aaaaaaa"}},
		{"table-alone", spec{rounds: 6, subjects: []string{"go-nethttp"}, slower: 1, only: "static-1m", commit: "aaaaaaa"}},
		{"table-without-nginx", spec{rounds: 6, subjects: []string{"atlas", "go-nethttp"}, slower: 1, commit: "aaaaaaa"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			write(t, path, row.spec)
			golden(t, row.name, dir, "table", path)
		})
	}
}

// The page has a curve over each thing that a scenario varies, and one of the
// multiples of floor, with what they say in words; a curve of many points has no
// chart for each of them.
func TestReportCurves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.bench")
	write(t, path, spec{rounds: 6, subjects: withFloor, slower: 1, curves: true, commit: "aaaaaaa"})
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(&stdout, &stderr, []string{"report", path}), &stderr)
	page, err := os.ReadFile(filepath.Join(filepath.Dir(path), "report.html"))
	require.NoError(t, err)
	captions := regexp.MustCompile(`<figcaption>(.*)</figcaption>`).FindAllStringSubmatch(string(page), -1)
	var titles []string
	for _, c := range captions {
		titles = append(titles, c[1])
	}
	for _, over := range []string{"connections", "length of the body", "cores, with a worker on each"} {
		require.Contains(t, titles, "CPU per request over "+over)
		require.Contains(t, titles, "Requests per second over "+over)
		require.Contains(t, titles, "CPU per request, times floor over "+over)
	}
	require.Contains(t, titles, "CPU per request, 2 cores")
	require.NotContains(t, titles, "CPU per request, 100 connections")
	require.Regexp(t, `aria-label="CPU per request, times floor over connections: medians atlas from 1\.[67]\d* to 1\.[67]`, string(page))
	for _, tick := range []string{">10k<", ">10 MB<", ">0 B<"} {
		require.Contains(t, string(page), tick)
	}
}

// A run that only counted says so, instead of an overview of what it has not.
func TestReportOfCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.bench")
	pageOf := func(counts bool) string {
		write(t, path, spec{rounds: 1, subjects: withFloor, slower: 1, counts: counts, commit: "aaaaaaa"})
		var stdout, stderr bytes.Buffer
		require.Zero(t, run(&stdout, &stderr, []string{"report", path}), &stderr)
		page, err := os.ReadFile(filepath.Join(filepath.Dir(path), "report.html"))
		require.NoError(t, err)
		return string(page)
	}
	const only, glance, latencies = "This run counted system calls and measured nothing", "At a glance", "No latencies were kept"
	counted := pageOf(true)
	require.Contains(t, counted, only)
	require.Contains(t, counted, "System calls per request, 100 connections")
	require.NotContains(t, counted, glance)
	require.NotContains(t, counted, latencies)
	measured := pageOf(false)
	require.NotContains(t, measured, only)
	require.Contains(t, measured, glance)
	require.Contains(t, measured, latencies)
}

func TestVerdict(t *testing.T) {
	dir := t.TempDir()
	old, new := filepath.Join(dir, "old.bench"), filepath.Join(dir, "new.bench")
	write(t, old, spec{rounds: 10, subjects: usual, slower: 1, only: "static-1k", commit: "aaaaaaa"})
	for _, row := range []struct {
		name string
		spec spec
	}{
		{"verdict-pass", spec{rounds: 12, subjects: usual, slower: 1, only: "static-1k", commit: "bbbbbbb"}},
		{"verdict-regression", spec{rounds: 12, subjects: usual, slower: 1.1, only: "static-1k", commit: "bbbbbbb"}},
		{"verdict-few-samples", spec{rounds: 3, subjects: usual, slower: 1.1, only: "static-1k", commit: "bbbbbbb"}},
		{"verdict-subject-vanished", spec{rounds: 12, subjects: usual[1:], slower: 1, only: "static-1k", commit: "bbbbbbb"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			write(t, new, row.spec)
			golden(t, row.name, dir, "verdict", old, new)
		})
	}
}

// A run in which nobody's CPU time is known for one subject is a page, is compared
// with another, and has its ratios with it.
func TestBrought(t *testing.T) {
	dir := t.TempDir()
	old, new := filepath.Join(dir, "old.bench"), filepath.Join(dir, "new.bench")
	s := spec{
		rounds: 8, subjects: []string{"atlas", "nginx-best", "theirs"}, slower: 1, only: "static-1k", unmetered: "theirs", commit: "a",
	}
	write(t, old, s)
	writeLatencies(t, old)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "old.json"), []byte(
		`{"foreign": {"theirs": {"url": "http://10.0.0.5:80"}, "mine": {"program": "/bin/mine", "file": "name"}}}`), 0o644))
	s.rounds, s.commit = 9, "b"
	write(t, new, s)
	golden(t, "verdict-brought", dir, "verdict", old, new)

	s.subjects = []string{"theirs"}
	write(t, new, s)
	for _, bench := range []string{old, new} {
		var stdout, stderr bytes.Buffer
		require.Zero(t, run(&stdout, &stderr, []string{"report", "-o", filepath.Join(dir, "x.html"), bench}), &stderr)
		page, err := os.ReadFile(filepath.Join(dir, "x.html"))
		require.NoError(t, err)
		require.NotContains(t, string(page), "NaN")
		require.NotContains(t, string(page), "Inf")
		require.Contains(t, string(page), "Requests per second, 100 connections")
		require.Equal(t, bench == old, strings.Contains(string(page), "http://10.0.0.5:80"))
		require.Equal(t, bench == old, strings.Contains(string(page), "/bin/mine"))
	}
}

// What is missing, empty or broken never passes.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.bench")
	write(t, good, spec{rounds: 6, subjects: usual, slower: 1, commit: "aaaaaaa"})
	empty := filepath.Join(dir, "empty.bench")
	require.NoError(t, os.WriteFile(empty, nil, 0o644))
	broken := filepath.Join(dir, "broken.bench")
	require.NoError(t, os.WriteFile(broken, []byte("BenchmarkLab/x 1 2\n"), 0o644))
	policy := filepath.Join(dir, "policy.toml")
	require.NoError(t, os.WriteFile(policy, []byte("alfa = 1\n"), 0o644))
	none := filepath.Join(dir, "none")
	folder := filepath.Join(dir, "folder")
	require.NoError(t, os.Mkdir(folder, 0o755))

	for _, row := range []struct {
		name string
		args []string
	}{
		{"refuse-missing", []string{"verdict", none, good}},
		{"refuse-empty", []string{"verdict", good, empty}},
		{"refuse-broken", []string{"verdict", broken, good}},
		{"refuse-table", []string{"table", none}},
		{"refuse-folder", []string{"table", folder}},
		{"refuse-runs", []string{"serve", "-runs", none}},
		{"refuse-report", []string{"report", none}},
		{"refuse-report-out", []string{"report", "-o", filepath.Join(none, "x.html"), good}},
		{"refuse-policy", []string{"verdict", "-policy", policy, good, good}},
		{"refuse-no-policy", []string{"verdict", "-policy", none, good, good}},
		{"refuse-one-file", []string{"verdict", good}},
		{"refuse-flag", []string{"table", "-x", good}},
		{"refuse-verb", []string{"judge"}},
		{"usage", nil},
		{"help", []string{"help"}},
		{"verb-help", []string{"verdict", "-h"}},
		{"verb-help-numbers", []string{"numbers", "-h"}},
		{"verb-help-table", []string{"help", "table"}},
		{"refuse-no-document", []string{"numbers"}},
	} {
		t.Run(row.name, func(t *testing.T) { golden(t, row.name, dir, row.args...) })
	}
}

// A run's folder means the results in it.
func TestBenchPath(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(folder, benchName)
	require.Equal(t, file, benchPath(folder))
	require.Equal(t, file, benchPath(file))
	require.Equal(t, "none", benchPath("none"))
}
