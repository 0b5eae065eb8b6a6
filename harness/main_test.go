package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/results"
)

// scratch has what several tests share.
var scratch string

// TestMain lets the test binary be the harness, and a server that goes wrong.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-") {
		var err error
		if scratch, err = os.MkdirTemp("", "harness-test"); err != nil {
			log.Fatal(err)
		}
		status := m.Run()
		_ = os.RemoveAll(scratch) // the status is of the tests
		os.Exit(status)
	}
	if os.Args[1] == "go-wrong" { // after so many answers, by an Atlas configuration
		after, err := strconv.Atoi(os.Args[2])
		if err == nil {
			err = goWrong(int64(after), os.Args[3])
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(run(os.Stdout, os.Stderr, os.Args[1:]))
}

// goWrong serves the right document, and then a shorter one, or ends.
func goWrong(after int64, config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	port := regexp.MustCompile(`(?m)^port += (\d+)$`).FindSubmatch(text)[1]
	var served atomic.Int64
	return http.ListenAndServe("127.0.0.1:"+string(port), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body := origin.Document(1024)
		if served.Add(1) > after && os.Getenv("GO_WRONG") == "end" {
			fmt.Fprintln(os.Stderr, "out of luck")
			os.Exit(4)
		}
		if served.Load() > after {
			body = body[:1000]
		}
		_, _ = w.Write(body)
	}))
}

// lab is a harness in a directory of its own, with a compare beside it that
// only repeats its arguments, and the directories it may write to.
type lab struct {
	t                 *testing.T
	harness, tmp, out string
}

func newLab(t *testing.T) lab {
	bin := t.TempDir()
	l := lab{t: t, harness: filepath.Join(bin, "harness"), tmp: t.TempDir(), out: filepath.Join(bin, "runs")}
	self, err := os.Executable()
	require.NoError(t, err)
	from, err := os.Open(self)
	require.NoError(t, err)
	defer from.Close()
	to, err := os.OpenFile(l.harness, os.O_CREATE|os.O_WRONLY, 0o755)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	require.NoError(t, os.WriteFile(filepath.Join(bin, "compare"), []byte("#!/bin/sh\necho compare \"$@\"\n"), 0o755))
	return l
}

// command returns `harness run` with tiny phases and the Go peer.
func (l lab) command(args ...string) *exec.Cmd {
	tiny := []string{"run", "-subject", "go-nethttp", "-generator", "vegeta", "-warmup", "10ms", "-duration", "30ms", "-out", l.out}
	cmd := exec.Command(l.harness, append(tiny, args...)...)
	// The race detector's exit would add a second to every server's end.
	cmd.Env = append(os.Environ(), "TMPDIR="+l.tmp, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// run runs it to its end and returns what it said and its exit status.
func (l lab) run(args ...string) (stdout, stderr string, status int) {
	cmd := l.command(args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	_ = cmd.Run() // the status tells
	l.requireClean()
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// requireClean checks that the harness left neither files nor processes.
func (l lab) requireClean() {
	left, err := os.ReadDir(l.tmp)
	require.NoError(l.t, err)
	require.Empty(l.t, left, "temporary files")
	require.Empty(l.t, l.processes(), "processes")
}

// processes returns the ids of processes whose arguments name the harness or
// its files.
func (l lab) processes() []string {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(l.t, err)
	var ids []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && (bytes.Contains(text, []byte(l.harness)) || bytes.Contains(text, []byte(l.tmp))) {
			ids = append(ids, filepath.Base(filepath.Dir(file)))
		}
	}
	return ids
}

func TestRun(t *testing.T) {
	l := newLab(t)
	stdout, stderr, status := l.run("-scenario", "static-1k,proxy-1k", "-count", "2")
	require.Zero(t, status, stderr)
	require.Contains(t, stderr, "round 2/2  static-1k c=500: go-nethttp")
	runs, err := filepath.Glob(filepath.Join(l.out, "*"))
	require.NoError(t, err)
	require.Len(t, runs, 1)
	require.Regexp(t, `/\d{8}T\d{6}Z-[0-9a-z-]+$`, runs[0])
	bench := filepath.Join(runs[0], "results.bench")
	require.Equal(t, "results: "+bench+"\ncompare table "+bench+"\ncompare report "+bench+"\n", stdout)

	f, err := results.Open(bench)
	require.NoError(t, err)
	require.Len(t, f.Names(), 4)
	for _, name := range f.Names() {
		require.Equal(t, "go-nethttp", name.Subject)
		if host.CallsCounted() == nil {
			require.Len(t, f.Values(name, results.Syscalls), 1, name)
		}
		for _, unit := range []string{results.CPU, results.Throughput, results.Mean, results.P99, results.ClientCPU} {
			require.Len(t, f.Values(name, unit), 2, "%s %s", name, unit)
		}
		require.Equal(t, []float64{0, 0}, f.Values(name, results.Errors))
	}
	for _, key := range []string{"form", "generator", "origin", "server-cores", "conntrack", "env-hash", "commit", "run"} {
		require.NotEmpty(t, f.Setting(key), key)
	}
	for _, key := range results.RunKeys {
		require.True(t, f.Setting(key) != "" || strings.HasSuffix(key, "-sha256"), key)
	}

	text, err := os.ReadFile(filepath.Join(runs[0], "manifest.json"))
	require.NoError(t, err)
	var m results.Manifest
	require.NoError(t, json.Unmarshal(text, &m))
	require.Len(t, uncounted(m.Order), 8)
	require.Equal(t, "harness", m.Argv[0])
	require.Contains(t, m.Scenarios, "proxy-1k")
	require.Contains(t, m.Subjects, "go-nethttp")
	require.NotEmpty(t, m.Facts)
}

// uncounted leaves out the samples that count system calls, which are not measured
// everywhere.
func uncounted(all []results.Step) []results.Step {
	return slices.DeleteFunc(all, func(s results.Step) bool { return s.Counted })
}

// Everything that a load can be made of, over TLS and through TCP mode.
func TestRunOfEveryWork(t *testing.T) {
	l := newLab(t)
	// Long enough for a handshake or two on a busy machine.
	stdout, stderr, status := l.run("-count", "1", "-duration", "300ms",
		"-scenario", "tls-static-1k,tls-proxy-1k-latency,tls-handshake-*,tcp-1k,static-1m")
	missed := regexp.MustCompile(`(?m)^refused: tls-proxy-1k-latency .*rate missed`).MatchString(stderr)
	if missed { // a busy machine, or the race detector: to refuse it is right
		require.Equal(t, exitInvalid, status, stderr)
		require.Equal(t, 1, strings.Count(stderr, "\nrefused: "), stderr)
	} else {
		require.Zero(t, status, stderr)
	}
	f, err := results.Open(strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: "))
	require.NoError(t, err)
	units := map[string]string{
		"tls-static-1k": results.CPU, "tls-proxy-1k-latency": results.RawP99, "tcp-1k": results.OriginCPU,
		"tls-handshake-full": results.HandshakeCPU, "tls-handshake-resumed": results.HandshakeCPU,
		"static-1m": results.Bytes,
	}
	if missed {
		delete(units, "tls-proxy-1k-latency")
	}
	require.Len(t, f.Names(), len(units)+1, "tls-static-1k has two")
	for _, name := range f.Names() {
		require.NotZero(t, f.Values(name, units[name.Scenario]), name)
		require.Equal(t, strings.HasPrefix(name.Scenario, "tls-"), name.TLS)
	}
	require.Equal(t, "TLSv1.3, TLS_AES_128_GCM_SHA256, X25519, ecdsa-p256", f.Setting("tls"))
	requireHistograms(t, strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: "), f)
}

// The points of curves: each a cell, by lengths, fields and connections, and on as
// many cores as there are.
func TestRunOfCurves(t *testing.T) {
	skipShort(t)
	l := newLab(t)
	stdout, stderr, status := l.run("-count", "1", "-scenario", "proxy-size,static-1k-headers,proxy-1k-connections,static-1k-cores")
	require.Zero(t, status, stderr)
	f, err := results.Open(strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: "))
	require.NoError(t, err)
	points := map[string]int{}
	for _, name := range f.Names() {
		require.NotZero(t, f.Values(name, results.CPU), name)
		points[name.Scenario+" "+name.Vary]++
	}
	require.Equal(t, map[string]int{
		"proxy-size length": 6, "static-1k-headers headers": 4, "proxy-1k-connections ": 1,
		"static-1k-cores cores": 1, // the peer has one worker at most
	}, points)
}

// More than can be done: an Atlas that answers by itself sheds nothing, which is a
// figure, and its memory is another.
func TestRunOfOverload(t *testing.T) {
	l := newLab(t)
	stdout, stderr, status := l.run("-count", "1", "-duration", "200ms", "-scenario", "overload",
		"-subject", "atlas", "-atlas", l.peerAtlas())
	if regexp.MustCompile(`(?m)^refused: overload .*rate missed`).MatchString(stderr) {
		require.Equal(t, exitInvalid, status, stderr) // a busy machine: to refuse it is right
		return
	}
	require.Zero(t, status, stderr)
	f, err := results.Open(strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: "))
	require.NoError(t, err)
	name := f.Names()[0]
	require.Equal(t, []float64{0}, f.Values(name, results.Shed))
	require.Positive(t, f.Values(name, results.Throughput)[0])
	require.Greater(t, f.Values(name, results.PeakResident)[0], 1e6)
	require.Empty(t, f.Values(name, results.CPU), "of both together, so of neither")
}

// A server and its origin beside a greedy client: the p99 with and without, and what
// that client got; a name of each, and the origin that can do it.
func TestRunOfGreedy(t *testing.T) {
	skipShort(t)
	l := newLab(t)
	stdout, stderr, status := l.run("-count", "1", "-scenario", "greedy-*", "-duration", "500ms")
	refused := regexp.MustCompile(`(?m)^refused: (\S+) .*`).FindAllStringSubmatch(stderr, -1)
	for _, one := range refused { // a busy machine, or the race detector: to refuse it is right
		require.Regexp(t, "rate missed|no work done", one[0])
		require.Equal(t, exitInvalid, status, stderr)
	}
	if len(refused) == 0 {
		require.Zero(t, status, stderr)
	}
	if len(refused) == 5 {
		return
	}
	f, err := results.Open(strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: "))
	require.NoError(t, err)
	require.Len(t, f.Names(), 5-len(refused))
	for _, name := range f.Names() {
		require.Positive(t, f.Values(name, results.P99Rise)[0], name)
		got := results.GreedyBytes
		if strings.HasSuffix(name.Scenario, "-pipeline") {
			got = results.GreedyThroughput
		}
		require.Positive(t, f.Values(name, got)[0], name)
		require.Empty(t, f.Values(name, results.CPU), name)
	}
}

// requireHistograms checks that every latency of every sample is kept beside it.
func requireHistograms(t *testing.T, bench string, f *results.File) {
	all, err := results.OpenHistograms(bench)
	require.NoError(t, err)
	for _, name := range f.Names() {
		requests := 0
		for _, s := range f.Samples {
			if s.Name == name && !s.Counts() {
				requests += s.Requests
			}
		}
		kinds := map[results.Latency]string{results.Raw: results.P99}
		if name.Mode == "open" {
			kinds = map[results.Latency]string{results.Corrected: results.P99, results.Raw: results.RawP99}
		}
		for kind, unit := range kinds {
			counts := results.Merged(all, name, kind)
			require.NotNil(t, counts, "%s %s", name, kind)
			require.EqualValues(t, requests, counts.TotalCount(), "%s %s", name, kind)
			require.InDelta(t, f.Values(name, unit)[0], counts.ValueAtQuantile(99), 1, "of one round")
		}
	}
}

func skipShort(t *testing.T) {
	if testing.Short() {
		t.Skip("seconds of servers that work, and of nothing new for the race detector")
	}
}

// peerAtlas returns an Atlas that is the Go peer.
func (l lab) peerAtlas() string {
	file := filepath.Join(l.t.TempDir(), "atlas")
	script := fmt.Sprintf("#!/bin/sh\nexec %s go-wrong 1000000000 \"$1\"\n", l.harness)
	require.NoError(l.t, os.WriteFile(file, []byte(script), 0o755))
	return file
}

// Two binaries of Atlas in one run, round by round.
func TestRunOther(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "static-1k", "-count", "2",
		"-subject", "", "-atlas", l.peerAtlas(), "-other", l.peerAtlas())
	require.Zero(t, status, stderr)
	require.Regexp(t, `round 1/2  static-1k c=100: atlas \S.*, atlas-other \S`, stderr)
	require.Regexp(t, `round 2/2  static-1k c=100: atlas-other \S.*, atlas \S`, stderr)
	bench, err := filepath.Glob(filepath.Join(l.out, "*", "results.bench"))
	require.NoError(t, err)
	f, err := results.Open(bench[0])
	require.NoError(t, err)
	require.NotEmpty(t, f.Setting("atlas-sha256"))
	require.NotEmpty(t, f.Setting("other-sha256"))
}

// The results must open in benchstat as the README of the lab promises.
func TestRunBenchstat(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "static-1k", "-count", "1")
	require.Zero(t, status, stderr)
	runs, err := filepath.Glob(filepath.Join(l.out, "*", "results.bench"))
	require.NoError(t, err)
	out, err := exec.Command("go", "tool", "benchstat", "-col", "/subject@(go-nethttp atlas)", runs[0]).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "cpu-sec/req")
	require.Contains(t, string(out), "Lab/scenario=static-1k/mode=closed/conns=100/tls=off")
}

// wrongAtlas returns an Atlas that answers wrongly after so many answers.
func (l lab) wrongAtlas(after int) string {
	file := filepath.Join(l.t.TempDir(), "atlas")
	script := fmt.Sprintf("#!/bin/sh\nexec %s go-wrong %d \"$1\"\n", l.harness, after)
	require.NoError(l.t, os.WriteFile(file, []byte(script), 0o755))
	return file
}

func TestRunRefuses(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "static-1k", "-count", "2", "-subject", "atlas,go-nethttp", "-atlas", l.wrongAtlas(1))
	require.Equal(t, exitInvalid, status, stderr)
	require.Contains(t, stderr, "refused: static-1k c=100 atlas, round 1: warm-up: ")
	require.Contains(t, stderr, "Content-Length 1000, want 1024")
	require.NotContains(t, stderr, "atlas, round 2: ", "it has left the cell")

	bench, err := filepath.Glob(filepath.Join(l.out, "*", "results.bench"))
	require.NoError(t, err)
	f, err := results.Open(bench[0])
	require.NoError(t, err)
	require.Len(t, f.Names(), 2)
	for _, name := range f.Names() {
		require.Equal(t, "go-nethttp", name.Subject, "no sample of a refused subject is stored")
		require.Len(t, f.Values(name, results.CPU), 2)
	}
}

// The warm-up sends 20 requests, the measured phase 200.
func TestRunRefusesWhenMeasured(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "static-1k-latency", "-duration", "100ms",
		"-subject", "atlas", "-atlas", l.wrongAtlas(50))
	require.Equal(t, exitInvalid, status, stderr)
	require.Contains(t, stderr, "measured phase: ")
	require.Contains(t, stderr, "nothing is stored")
	require.NoDirExists(t, l.out)
}

func TestRunStoresNothing(t *testing.T) {
	l := newLab(t)
	atlas := filepath.Join(t.TempDir(), "atlas")
	require.NoError(t, os.WriteFile(atlas, []byte("#!/bin/sh\necho no such key >&2; exit 1\n"), 0o755))
	_, stderr, status := l.run("-scenario", "static-1k", "-count", "1", "-subject", "atlas", "-atlas", atlas)
	require.Equal(t, exitInvalid, status)
	require.Contains(t, stderr, "no such key")
	require.Contains(t, stderr, "nothing is stored")
	require.NoDirExists(t, l.out)
}

// start starts a long run and waits until its origin and its peer are up.
func (l lab) start() *exec.Cmd {
	cmd := l.command("-scenario", "proxy-1k", "-duration", "1h")
	require.NoError(l.t, cmd.Start())
	require.Eventually(l.t, func() bool {
		// The harness, the peer, and the origin (nginx has a worker, too).
		return len(l.processes()) >= 3
	}, time.Minute, 10*time.Millisecond)
	return cmd
}

func TestRunInterrupted(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		l := newLab(t)
		cmd := l.start()
		require.NoError(t, cmd.Process.Signal(signal))
		_ = cmd.Wait() // the status tells
		require.Equal(t, exitUsage, cmd.ProcessState.ExitCode())
		l.requireClean()
		require.NoDirExists(t, l.out, "an interrupted run stores nothing")
	}
}

// Even a harness that is killed leaves no processes.
func TestRunKilled(t *testing.T) {
	l := newLab(t)
	cmd := l.start()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	require.Eventually(t, func() bool { return len(l.processes()) == 0 }, 30*time.Second, 10*time.Millisecond)
}

// The command line is answered before anything is started.
func TestCommandLine(t *testing.T) {
	l := newLab(t)
	for _, row := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"unknown scenario", []string{"-scenario", "statik"}, exitUsage, `no scenario matches "statik"`},
		{"unknown subject", []string{"-subject", "apache"}, exitUsage, `no subject is named "apache"`},
		{"atlas is not built", []string{"-subject", "atlas", "-atlas", "/no/atlas"}, exitUsage, "/no/atlas is missing: run `make build`"},
		{"no other Atlas is named", []string{"-subject", "atlas-other"}, exitUsage, "-other names no binary"},
		{"the other Atlas is not there", []string{"-subject", "atlas-other", "-other", "/no/other"},
			exitUsage, "/no/other, which -other names"},
		{"no subject for it", []string{"-subject", "haproxy", "-scenario", "static-1k"}, exitUsage, "can do the work of no scenario"},
		{"nothing is built", []string{"-subject", "", "-atlas", "/no/atlas"}, exitUsage, "/no/atlas is missing: run `make build`"},
		{"generator", []string{"-generator", "ab"}, exitUsage, `-generator "ab"`},
		{"negative", []string{"-count", "-1"}, exitUsage, "cannot be negative"},
		{"no rounds", []string{"-count", "0"}, exitUsage, "harness run: -count is 0"},
		{"no time", []string{"-duration", "0s"}, exitUsage, "-duration is 0"},
		{"no unit", []string{"-duration", "3"}, exitUsage, "harness run: invalid value \"3\" for flag -duration"},
		{"other Atlas that nobody measures", []string{"-subject", "go-nethttp", "-other", "/no/other"},
			exitUsage, "none of the subjects go-nethttp is atlas-other"},
		{"results into a file", []string{"-out", "main_test.go/runs"}, exitUsage, "-out main_test.go/runs: "},
		{"both forms", []string{"-quick", "-full"}, exitUsage, "exclude each other"},
		{"the curves of another form", []string{"-curves", "-full"}, exitUsage, "exclude each other"},
		{"no curve", []string{"-curves", "-scenario", "static-1k"}, exitUsage, `match "static-1k" is a curve`},
		{"argument", []string{"static-1k"}, exitUsage, `unexpected argument "static-1k"`},
		{"flag", []string{"-x"}, exitUsage, "not defined: -x"},
		{"help", []string{"-h"}, exitPass, "-scenario globs"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, stderr, status := l.run(row.args...)
			require.Equal(t, row.status, status)
			require.Contains(t, stderr, row.want)
		})
	}
}

// The scratch directory may be the first that is full.
func TestRunWithoutScratch(t *testing.T) {
	l := newLab(t)
	cmd := l.command("-scenario", "static-100m", "-count", "1")
	cmd.Args = append([]string{"/bin/sh", "-c", `ulimit -f 64; trap "" XFSZ; exec "$@"`, "sh", l.harness}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	said, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, exitUsage, cmd.ProcessState.ExitCode(), "%s", said)
	require.Contains(t, string(said), "file too large")
	require.NotContains(t, string(said), "panic")
	l.requireClean()
}

func TestCheckOut(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, checkOut(filepath.Join(dir, "not", "there")))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
	if os.Getuid() == 0 {
		require.ErrorContains(t, checkOut("/proc/nope"), "-out /proc/nope: ")
	}
}

func TestVerbs(t *testing.T) {
	for _, row := range []struct {
		name   string
		args   []string
		status int
		stdout []string
		stderr string
	}{
		{"none", nil, exitUsage, nil, "usage: harness"},
		{"unknown", []string{"measure"}, exitUsage, nil, `unknown verb "measure"`},
		{"help", []string{"help"}, exitPass, []string{"usage: harness"}, ""},
		{"help of a verb", []string{"help", "run"}, exitPass, nil, "Usage of harness run:\n"},
		{"help of a pair of verbs", []string{"help", "down"}, exitPass, nil, "Usage of harness down:\n"},
		{"help of none", []string{"help", "-x"}, exitPass, []string{"usage: harness"}, ""},
		{"help of probe", []string{"probe", "-h"}, exitPass, nil, "usage: harness probe URL\n"},
		{"probe of nothing", []string{"probe"}, exitUsage, nil, "usage: harness probe URL\n"},
		{"list", []string{"list"}, exitPass, []string{
			"static-1k", "proxy-1k-latency", "quick form: [100]", "handshakes, conns [64]", "nginx-readme", "haproxy"}, ""},
		{"list with an argument", []string{"list", "x"}, exitUsage, nil, `unexpected argument "x"`},
		{"doctor", []string{"doctor", "-atlas", "/no/atlas"}, exitPass,
			[]string{"conntrack", "load cores", "/no/atlas: run `make build`"}, ""},
		{"origin without documents", []string{"serve-origin", "-listen", "127.0.0.1:0", "-root", "/no/root"},
			exitUsage, nil, "no such file"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, row.status, run(&stdout, &stderr, row.args))
			for _, want := range row.stdout {
				require.Contains(t, stdout.String(), want)
			}
			require.Contains(t, stderr.String(), row.stderr)
		})
	}
}

func TestShowTablesWithoutCompare(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.NoError(t, showTables(t.Context(), &stdout, &stderr, filepath.Join(t.TempDir(), "harness"), "x.bench"))
	require.Contains(t, stderr.String(), "run `make build`, then `bin/compare table x.bench`")

	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "compare"), []byte("#!/bin/sh\nexit 3\n"), 0o755))
	err := showTables(t.Context(), &stdout, &stderr, filepath.Join(bin, "harness"), "x.bench")
	require.ErrorContains(t, err, "compare table: exit status 3")
}

// Whoever changes the list of facts in the head must keep it printable.
func TestHeadFacts(t *testing.T) {
	for i, key := range headFacts {
		require.False(t, slices.Contains(headFacts[:i], key), key)
		require.False(t, slices.Contains(results.RunKeys, key), key)
	}
}
