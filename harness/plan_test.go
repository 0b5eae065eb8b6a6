package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/results"
	"atlas/scenarios"
)

// testPlan is a plan of two subjects, two scenarios and three cells.
func testPlan(t *testing.T, rounds int) []step {
	return testPlanOf(t, "static-1k,static-1k-latency", false, rounds)
}

func testPlanOf(t *testing.T, pattern string, quick bool, rounds int) []step {
	all, err := scenarios.Match(scenarios.Files, pattern)
	require.NoError(t, err)
	return planOf(all, testSubjects(t), quick, rounds)
}

func testSubjects(t *testing.T) []subject.Subject {
	subjects, err := subject.Named([]string{"atlas", "nginx-best"})
	require.NoError(t, err)
	return subjects
}

func TestPlan(t *testing.T) {
	var got []string
	for _, st := range testPlan(t, 2) {
		got = append(got, fmt.Sprintf("%d %s %s", st.round, st.cell, st.subject.Name))
	}
	require.Equal(t, []string{
		"0 static-1k c=100 atlas", "0 static-1k c=100 nginx-best",
		"0 static-1k c=500 atlas", "0 static-1k c=500 nginx-best",
		"0 static-1k-latency 2000/s atlas", "0 static-1k-latency 2000/s nginx-best",
		"1 static-1k c=100 nginx-best", "1 static-1k c=100 atlas",
		"1 static-1k c=500 nginx-best", "1 static-1k c=500 atlas",
		"1 static-1k-latency 2000/s nginx-best", "1 static-1k-latency 2000/s atlas",
	}, got)
}

// The quick form has what its scenarios say, floor in what is not over TLS, and
// must stay well under ten minutes with its five subjects: a sample takes half a
// second beside its phases.
func TestPlanOfQuickForm(t *testing.T) {
	all, err := scenarios.Match(scenarios.Files, "*")
	require.NoError(t, err)
	subjects, err := subject.Named([]string{"atlas", "atlas-netpoll", "nginx-best", "nginx-readme", "floor"})
	require.NoError(t, err)
	plan := planOf(all, subjects, true, quickForm.rounds)
	var got []string
	count := map[string]int{}
	for _, st := range plan {
		if st.round == 0 && !slices.Contains(got, st.cell.String()) {
			got = append(got, st.cell.String())
		}
		count[st.subject.Name]++
	}
	require.Equal(t, []string{
		"proxy-1k c=100", "proxy-1k-latency 2000/s", "static-1k c=100", "static-1k-latency 2000/s",
		"tls-proxy-1k c=100", "tls-proxy-1k-latency 2000/s",
	}, got)
	sample := quickForm.warmup + quickForm.measured + 500*time.Millisecond
	require.Less(t, time.Duration(len(plan))*sample, 310*time.Second)
	require.Equal(t, 4*quickForm.rounds, count["floor"])
	require.Equal(t, 6*quickForm.rounds, count["atlas"])
}

// Where all share their cores, who has one worker at most takes no part; and
// where there are fewer cores, nobody does.
func TestPlanOfSharedCores(t *testing.T) {
	all, err := scenarios.Match(scenarios.Files, "readme-*,static-1k")
	require.NoError(t, err)
	subjects, err := subject.Named([]string{"atlas", "floor", "haproxy", "nginx-readme"})
	require.NoError(t, err)
	cells := map[string][]string{}
	for _, st := range planOf(all, subjects, false, 1) {
		cells[st.cell.String()] = append(cells[st.cell.String()], st.subject.Name)
	}
	require.Equal(t, map[string][]string{
		"static-1k c=100": {"atlas", "floor", "nginx-readme"}, "static-1k c=500": {"atlas", "floor", "nginx-readme"},
		"readme-static-1k c=100": {"atlas", "nginx-readme"}, "readme-static-1k c=500": {"atlas", "nginx-readme"},
		"readme-proxy-1k c=100": {"atlas", "haproxy", "nginx-readme"}, "readme-proxy-1k c=500": {"atlas", "haproxy", "nginx-readme"},
		"readme-tls-proxy-1k c=100": {"atlas", "haproxy", "nginx-readme"},
	}, cells)

	o := &options{scenarios: slices.Clone(all)}
	require.NoError(t, o.fitCores(4))
	require.Len(t, o.scenarios, 4)
	require.Empty(t, o.notes)
	require.NoError(t, o.fitCores(3))
	require.Len(t, o.scenarios, 1)
	require.Contains(t, o.notes, "readme-static-1k needs 4 cores, and 3 may be used")
	o.scenarios, err = scenarios.Match(scenarios.Files, "readme-static-1k")
	require.NoError(t, err)
	require.EqualError(t, o.fitCores(2), "readme-static-1k needs 4 cores, and 2 may be used")

	s := &session{allowed: []int{3, 5, 6, 7, 9}, cores: host.Cores{Server: []int{3}, Client: []int{5, 6, 7, 9}}}
	require.Equal(t, []int{3, 5, 6, 7}, s.sides(all[0]).Server)
	require.Equal(t, []int{3, 5, 6, 7}, s.sides(all[0]).Client)
	require.Equal(t, 4, s.site(cell{scenario: all[0], conns: 100}).Share)
	require.Equal(t, s.cores, s.sides(all[3]))
}

// A subject that serves no files is in no cell of a static scenario.
func TestPlanOfWhatCanBeServed(t *testing.T) {
	all, err := scenarios.Match(scenarios.Files, "static-1k,proxy-1k,tcp-1k")
	require.NoError(t, err)
	subjects, err := subject.Named([]string{"haproxy", "nginx-best"})
	require.NoError(t, err)
	cells := map[string][]string{}
	for _, st := range planOf(all, subjects, false, 1) {
		cells[st.cell.String()] = append(cells[st.cell.String()], st.subject.Name)
	}
	require.Equal(t, map[string][]string{
		"static-1k c=100": {"nginx-best"}, "static-1k c=500": {"nginx-best"},
		"proxy-1k c=100": {"haproxy", "nginx-best"}, "proxy-1k c=500": {"haproxy", "nginx-best"},
		"tcp-1k c=100": {"haproxy", "nginx-best"},
	}, cells)
}

func TestCellNames(t *testing.T) {
	plan := testPlan(t, 1)
	require.Equal(t, "Lab/scenario=static-1k/mode=closed/conns=100/tls=off/subject=atlas", plan[0].cell.name("atlas").String())
	require.Equal(t, "Lab/scenario=static-1k-latency/mode=open/conns=64/rate=2000/tls=off/subject=atlas",
		plan[4].cell.name("atlas").String())
	secure := testPlanOf(t, "tls-handshake-full", false, 1)
	require.Equal(t, "Lab/scenario=tls-handshake-full/mode=closed/conns=64/tls=on/subject=atlas",
		secure[0].cell.name("atlas").String())
}

// What is stored pairs round by round: a subject that was refused once in a
// cell is gone from all of it, and only from it.
func TestRunLogPairs(t *testing.T) {
	plan := testPlan(t, 3)
	log := newRunLog(&session{options: &options{}}, []host.Fact{{Key: "cpu", Value: "x"}})
	for i, st := range plan {
		if log.left(st) {
			continue
		}
		var err error
		if i == 6 { // round 2, static-1k c=100, nginx-best
			err = errors.New("3 errors")
		}
		log.add(st, attack.Sample{Requests: 1, Values: map[string]float64{results.CPU: float64(i)}}, err)
	}
	count := map[string]int{}
	for _, s := range log.samples("") {
		count[fmt.Sprintf("%s c=%d %s", s.Name.Scenario, s.Name.Conns, s.Name.Subject)]++
	}
	require.Equal(t, map[string]int{
		"static-1k c=100 atlas": 3, // without nginx-best
		"static-1k c=500 atlas": 3, "static-1k c=500 nginx-best": 3,
		"static-1k-latency c=64 atlas": 3, "static-1k-latency c=64 nginx-best": 3,
	}, count)
	require.Equal(t, []string{"static-1k c=100 nginx-best, round 2: 3 errors"}, log.refusals())
}

func TestProgressPlain(t *testing.T) {
	var out bytes.Buffer
	plan := testPlan(t, 2)
	p := newProgress(&out, plan)
	sample := attack.Sample{Values: map[string]float64{results.CPU: 7310, results.Throughput: 98123}}
	for i := range plan {
		p.begin(i)
		var err error
		if i == 3 {
			err = errors.New("3 errors")
		}
		p.end(i, sample, err)
	}
	p.done()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 6+1+1, "a line for each cell and round, one refusal, one at the end")
	require.Regexp(t, `^16%  \S+ left  round 1/2  static-1k c=100: atlas 7.3 us 98.1k/s, nginx-best 7.3 us 98.1k/s$`, lines[0])
	require.Equal(t, "refused, and the subject leaves this cell: static-1k c=500 nginx-best: 3 errors", lines[1])
	require.NotContains(t, out.String(), "\x1b", "no terminal, no control characters")
}

func TestProgressTerminal(t *testing.T) {
	var out bytes.Buffer
	plan := testPlan(t, 1)
	p := newProgress(&out, plan)
	p.terminal = true
	p.begin(0)
	p.end(0, attack.Sample{}, nil)
	p.begin(1)
	require.Equal(t, 2, strings.Count(out.String(), "\r\x1b[K"), "one line, rewritten")
	require.Contains(t, out.String(), "round 1/1  static-1k c=100  nginx-best")
	require.NotContains(t, out.String(), "\n")
}

func TestBrief(t *testing.T) {
	for _, row := range []struct {
		want   string
		values map[string]float64
	}{
		{"x 7.3 us 98.1k/s", map[string]float64{results.CPU: 7310, results.Throughput: 98123}},
		{"x 7.3 us p99 1.50 ms", map[string]float64{results.CPU: 7310, results.RawP99: 1, results.P99: 1.5e6}},
		{"x 150.0 us 6.7 GB/cpu-s 6.5k/s",
			map[string]float64{results.CPU: 150e3, results.Bytes: 6.7e9, results.Throughput: 6500}},
		{"x 245 us 3.1k/s", map[string]float64{results.HandshakeCPU: 245e3, results.Handshakes: 3100}},
		{"x 245 us", map[string]float64{results.HandshakeCPU: 245e3}},
		{"x 3.04 calls", map[string]float64{results.Syscalls: 3.0412, results.Enters: 0}},
		{"x 822 bytes", map[string]float64{results.Resident: 822}},
	} {
		require.Equal(t, row.want, brief("x", attack.Sample{Values: row.values}))
	}
}

func TestDocuments(t *testing.T) {
	target := func(path string, length int) *scenarios.Scenario {
		return &scenarios.Scenario{Name: "x", Target: scenarios.Target{Path: path, Length: length}}
	}
	got, err := documents([]*scenarios.Scenario{target("/a", 1), target("/b", 2), target("/a", 1)})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"/a": 1, "/b": 2}, got)
	_, err = documents([]*scenarios.Scenario{target("/a", 1), target("/a", 2)})
	require.ErrorContains(t, err, "wants /a of 2 bytes, another one of 1")

	all, err := scenarios.Match(scenarios.Files, "*")
	require.NoError(t, err)
	_, err = documents(all)
	require.NoError(t, err, "the scenarios of this repository go together")
}

func TestForms(t *testing.T) {
	require.GreaterOrEqual(t, fullForm.rounds, 10)
	for _, f := range []form{quickForm, fullForm, curvesForm} {
		require.Zero(t, f.rounds%2, "there and back")
	}
	f := quickForm
	require.NoError(t, f.override(0, 0, 0))
	require.Equal(t, quickForm, f)
	require.NoError(t, f.override(3, 0, 0))
	require.Equal(t, 3, f.rounds)
	require.Equal(t, "quick, changed", f.name, "a changed form does not pass for the form")
}

// The long form is one that people run, and what documents say of how long forms
// take is what the plans say.
func TestAbout(t *testing.T) {
	require.Equal(t, "6 rounds of 1s, about 5 minutes for all", quickForm.about(2))
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	for _, f := range []form{fullForm, curvesForm} {
		require.Contains(t, string(readme), f.about(2)+" on two cores")
	}
	require.NotEqual(t, fullForm.about(2), fullForm.about(4), "the README's own set-up is for four")

	o := &options{form: form{warmup: time.Second, measured: 2 * time.Second}, counting: countingMax}
	plain := cell{scenario: &scenarios.Scenario{}}
	require.Equal(t, 4500*time.Millisecond+2*stepBeside, o.lasts([]step{{cell: plain}, {cell: plain, counts: true}}))
}

// A closed loop has time for each of its connections, which wrk opens while it is
// measured; nothing else lasts longer for having more.
func TestMeasuredOf(t *testing.T) {
	o := &options{form: quickForm, counting: countingMax}
	of := func(mode scenarios.Mode, work scenarios.Work, conns int) step {
		s := new(scenarios.Scenario)
		s.Load.Mode, s.Load.Of = mode, work
		return step{cell: cell{scenario: s, conns: conns}}
	}
	crowd := of(scenarios.Closed, scenarios.Requests, 10_000)
	require.Equal(t, 5*time.Second, o.measuredOf(crowd))
	require.Equal(t, 5*time.Second, (&session{options: o}).load(crowd).Measured)
	require.Equal(t, time.Second, o.measuredOf(of(scenarios.Closed, scenarios.Requests, 500)))
	require.Equal(t, time.Second, o.measuredOf(of(scenarios.Open, scenarios.Requests, 10_000)))
	require.Equal(t, time.Second, o.measuredOf(of(scenarios.Closed, scenarios.Idle, 10_000)))
	crowd.counts = true
	require.Equal(t, countingMax, o.measuredOf(crowd))
}

// Every scenario is in one form at least, and a curve in one alone.
func TestForm(t *testing.T) {
	all, err := scenarios.Match(scenarios.Files, "*")
	require.NoError(t, err)
	names := func(o options) (names []string) {
		for _, s := range o.ofForm(all) {
			names = append(names, s.Name)
		}
		return slices.Compact(names)
	}
	curves, full := names(options{curves: true}), names(options{noCurves: true})
	require.Equal(t, []string{
		"proxy-1k-conns", "proxy-1k-cores", "proxy-1k-headers", "proxy-size",
		"static-1k-conns", "static-1k-cores", "static-1k-headers", "static-size",
	}, curves)
	require.Len(t, append(curves, full...), len(all))
	for _, name := range names(options{quick: true}) {
		require.Contains(t, full, name)
	}
}

// A curve's points are cells of their own, with their value in the name; floor is
// not in what it cannot do.
func TestPlanOfCurves(t *testing.T) {
	all, err := scenarios.Match(scenarios.Files, "static-size,static-1k-c*s,proxy-1k-connections")
	require.NoError(t, err)
	subjects, err := subject.Named([]string{"atlas", "floor"})
	require.NoError(t, err)
	cells := map[string][]string{}
	names := map[results.Name]bool{}
	for _, st := range planOf(eachOf(all), subjects, false, 1) {
		cells[st.cell.String()] = append(cells[st.cell.String()], st.subject.Name)
		names[st.cell.name(st.subject.Name)] = true
	}
	both, alone := []string{"atlas", "floor"}, []string{"atlas"}
	require.Equal(t, map[string][]string{
		"static-size length=0": both, "static-size length=1024": both, "static-size length=10240": both,
		"static-size length=102400": both, "static-size length=1048576": both, "static-size length=10485760": both,
		"static-1k-cores cores=1": both, "static-1k-cores cores=2": alone, "static-1k-cores cores=4": alone,
		"static-1k-connections c=64": alone, "proxy-1k-connections c=64": both,
		"static-1k-conns c=1": both, "static-1k-conns c=10": both, "static-1k-conns c=100": both,
		"static-1k-conns c=500": both, "static-1k-conns c=1000": both, "static-1k-conns c=5000": both,
		"static-1k-conns c=10000": both,
	}, cells)
	require.Len(t, names, 6*2+4+3+7*2, "each is stored by a name of its own")

	all, err = scenarios.Match(scenarios.Files, "overload")
	require.NoError(t, err)
	require.Len(t, planOf(all, subjects, false, 1), 1, "floor has no bound")
	o := &options{scenarios: all, programs: subject.Programs{Compose: &subject.Compose{}}}
	require.EqualError(t, o.fitLaunch(), "overload is left out: its origin is none of -launch compose")
	all, err = scenarios.Match(scenarios.Files, "greedy-*")
	require.NoError(t, err)
	require.Len(t, planOf(all, subjects, false, 1), 5+3, "floor relays, and has one answer")
	o = &options{form: form{warmup: time.Second, measured: 2 * time.Second}}
	require.Equal(t, 8*(time.Second+2*2*time.Second+stepBeside), o.lasts(planOf(all, subjects, false, 1)))
	o = &options{scenarios: all, programs: subject.Programs{Compose: &subject.Compose{}}}
	require.NoError(t, o.fitLaunch())
	require.Equal(t, []string{"greedy-proxy-upload is left out: its origin is none of -launch compose"}, o.notes)
	all, err = scenarios.Match(scenarios.Files, "static-size,static-1k-c*s,proxy-1k-connections")
	require.NoError(t, err)
	o = &options{scenarios: eachOf(all)}
	require.NoError(t, o.fitCores(2))
	require.Equal(t, []string{"static-1k-cores needs 4 cores, and 2 may be used"}, o.notes)
	_, err = documents(o.scenarios)
	require.NoError(t, err)
}

// A count of connections that would run out of open files or ports is left out, and said.
func TestFitConns(t *testing.T) {
	const ports = 28_232
	all, err := scenarios.Match(scenarios.Files, "*-1k-conns,idle-conns,static-1k")
	require.NoError(t, err)
	require.EqualValues(t, 41_024, filesWanted(all))
	o := &options{scenarios: all}
	require.NoError(t, o.fitConns(20_600, ports))
	require.Equal(t, all, o.scenarios)
	require.Empty(t, o.notes)

	counts := func() map[string][]int {
		counts := map[string][]int{}
		for _, s := range o.scenarios {
			counts[s.Name] = s.Load.Conns
		}
		return counts
	}
	require.NoError(t, o.fitConns(20_000, ports))
	require.Equal(t, []string{"proxy-1k-conns c=10000 is left out: it needs 20512 open files, and the hard limit is 20000, " +
		"which needs CAP_SYS_RESOURCE to go beyond: raise it (ulimit -Hn, LimitNOFILE= of systemd)"}, o.notes)
	require.Equal(t, map[string][]int{
		"proxy-1k-conns": {1, 10, 100, 500, 1000, 5000, 9000}, "static-1k-conns": {1, 10, 100, 500, 1000, 5000, 10_000},
		"idle-conns": {5000}, "static-1k": {100, 500},
	}, counts())
	require.Len(t, all[1].Load.Conns, 8, "what was read stays as it is")

	o = &options{scenarios: all}
	require.NoError(t, o.fitConns(20_600, 20_000))
	require.Equal(t, []string{
		"proxy-1k-conns c=10000 is left out: it needs 20512 local ports, and there are 20000: " +
			"widen net.ipv4.ip_local_port_range (sysctl)",
		"static-1k-conns c=10000 is left out: it needs 20512 local ports, and there are 20000: " +
			"widen net.ipv4.ip_local_port_range (sysctl)",
	}, o.notes)
	require.Len(t, counts()["static-1k-conns"], 6)

	o = &options{scenarios: all[:1]}
	require.ErrorContains(t, o.fitConns(5000, ports), "idle-conns c=5000 is left out: it needs 5512 open files")
}

func TestFieldsOf(t *testing.T) {
	require.Empty(t, fieldsOf(&scenarios.Scenario{}))
	fields := fieldsOf(&scenarios.Scenario{Load: scenarios.Traffic{Headers: 2, Of: scenarios.Connections}})
	require.Equal(t, []string{"X-Lab-Field-00: 0123456789abcd", "X-Lab-Field-01: 0123456789abcd", "Connection: close"}, fields)
	require.Len(t, fields[0]+"\r\n", 32)
}
