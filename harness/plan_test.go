package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/results"
	"atlas/scenarios"
)

// testPlan is a plan of two subjects, two scenarios and three cells.
func testPlan(t *testing.T, rounds int) []step {
	all, err := scenarios.Match(scenarios.Files, "static-*")
	require.NoError(t, err)
	subjects, err := subject.Named([]string{"atlas", "nginx-best"})
	require.NoError(t, err)
	return planOf(all, subjects, rounds)
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

// A subject that serves no files is in no cell of a static scenario.
func TestPlanOfWhatCanBeServed(t *testing.T) {
	all, err := scenarios.Match(scenarios.Files, "static-1k,proxy-1k")
	require.NoError(t, err)
	subjects, err := subject.Named([]string{"haproxy", "nginx-best"})
	require.NoError(t, err)
	cells := map[string][]string{}
	for _, st := range planOf(all, subjects, 1) {
		cells[st.cell.String()] = append(cells[st.cell.String()], st.subject.Name)
	}
	require.Equal(t, map[string][]string{
		"static-1k c=100": {"nginx-best"}, "static-1k c=500": {"nginx-best"},
		"proxy-1k c=100": {"haproxy", "nginx-best"}, "proxy-1k c=500": {"haproxy", "nginx-best"},
	}, cells)
}

func TestCellNames(t *testing.T) {
	plan := testPlan(t, 1)
	require.Equal(t, "Lab/scenario=static-1k/mode=closed/conns=100/tls=off/subject=atlas", plan[0].cell.name("atlas").String())
	require.Equal(t, "Lab/scenario=static-1k-latency/mode=open/conns=64/rate=2000/tls=off/subject=atlas",
		plan[4].cell.name("atlas").String())
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
	for _, s := range log.samples() {
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
	for _, f := range []form{quickForm, fullForm} {
		require.Zero(t, f.rounds%2, "there and back")
	}
	f := quickForm
	require.NoError(t, f.override(0, 0, 0))
	require.Equal(t, quickForm, f)
	require.NoError(t, f.override(3, 0, 0))
	require.Equal(t, 3, f.rounds)
	require.Equal(t, "quick, changed", f.name, "a changed form does not pass for the form")
}
