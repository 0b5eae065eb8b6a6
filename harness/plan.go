package main

import (
	"fmt"
	"slices"
	"time"

	"atlas/harness/subject"
	"atlas/results"
	"atlas/scenarios"
)

// cell is one load: a scenario, where that varies a key one of its Each, at one
// connection count.
type cell struct {
	scenario *scenarios.Scenario
	conns    int
}

// String names the cell for people.
func (c cell) String() string {
	if c.scenario.Load.Mode == scenarios.Open {
		return fmt.Sprintf("%s %d/s", c.scenario.Name, c.scenario.Load.Rate)
	}
	if at := c.scenario.At; at.Vary != "" {
		return fmt.Sprintf("%s %s=%s", c.scenario.Name, at.Vary, at.At)
	}
	return fmt.Sprintf("%s c=%d", c.scenario.Name, c.conns)
}

// name is the cell's benchmark name for a subject.
func (c cell) name(subject string) results.Name {
	return results.Name{
		Scenario: c.scenario.Name,
		Mode:     string(c.scenario.Load.Mode),
		Conns:    c.conns,
		Rate:     c.scenario.Load.Rate,
		Vary:     c.scenario.At.Vary,
		At:       c.scenario.At.At,
		TLS:      c.scenario.Target.TLS != scenarios.Plain,
		Subject:  subject,
	}
}

// step is one sample to take.
type step struct {
	round   int // from 0
	cell    cell
	subject subject.Subject
	counts  bool   // system calls, and nothing else
	by      string // one of several generators, "" if the run has one
}

// apart says whether a step is of another cell than one before it, or of another pass.
func (st step) apart(from step) bool {
	return st.cell != from.cell || st.round != from.round || st.by != from.by || st.counts != from.counts
}

// String names the step for people.
func (st step) String() string {
	when := fmt.Sprintf("round %d", st.round+1)
	if st.counts {
		when = "counting"
	}
	return fmt.Sprintf("%s %s, %s", st.cell, st.subject.Name, when)
}

// ofForm leaves those scenarios that belong to the form, each value of a key that
// varies by itself.
func (o *options) ofForm(all []*scenarios.Scenario) []*scenarios.Scenario {
	return eachOf(slices.DeleteFunc(slices.Clone(all), func(s *scenarios.Scenario) bool {
		return len(s.Load.Counts(o.quick)) == 0 || o.curves && !s.Curve() || o.noCurves && s.Curve()
	}))
}

// stepBeside is what a sample takes beside its phases: to start the server, to wait
// until it is idle, and to stop it.
const stepBeside = 500 * time.Millisecond

// connTime is how long a step is measured at least for each connection of a closed
// loop: wrk opens them in that time. With 10,000 of them a second was over before the
// first answer of any server.
const connTime = 500 * time.Microsecond

// measuredOf is how long the load of a step is measured.
func (o *options) measuredOf(st step) time.Duration {
	if st.counts {
		return o.counting
	}
	measured := o.form.measured
	if load := st.cell.scenario.Load; load.Mode == scenarios.Closed && load.Of == scenarios.Requests {
		measured = max(measured, time.Duration(st.cell.conns)*connTime)
	}
	return measured
}

// lasts estimates how long a plan takes, its counting pass included.
func (o *options) lasts(plan []step) (all time.Duration) {
	for i, st := range plan {
		if o.together && !takesTurns(st.cell.scenario) && i > 0 && cellLength(plan[i-1:]) > 1 {
			all += stepBeside // it starts with the one before it
			continue
		}
		measured := o.measuredOf(st)
		if !st.counts && st.cell.scenario.Load.Greedy != "" {
			measured *= 2 // without the greedy client, and beside it
		}
		all += o.form.warmup + measured + stepBeside
	}
	return all
}

// aboutStep is what estimates of more than two of it are rounded to.
const aboutStep = 5 * time.Minute

// about says how much a form measures, and how long that takes on so many cores
// with all subjects that it has where everything is installed.
func (f form) about(cores int) string {
	all, err := scenarios.Match(scenarios.Files, "*")
	if err != nil {
		return err.Error() // these files are compiled in, and tested
	}
	names := []string{"atlas", "atlas-netpoll", "nginx-best", "nginx-readme", "floor"}
	if f != quickForm {
		names = append(names, "haproxy")
	}
	subjects, err := subject.Named(names)
	if err != nil {
		return err.Error()
	}
	o := &options{
		form: f, quick: f == quickForm, curves: f == curvesForm, noCurves: f == fullForm,
		subjects: subjects, counts: countsToo, counting: min(f.measured, countingMax),
	}
	o.scenarios = o.ofForm(all)
	if err := o.fitCores(cores); err != nil {
		return err.Error()
	}
	lasts := o.lasts(o.plan()).Round(time.Minute)
	if lasts > 2*aboutStep {
		lasts = lasts.Round(aboutStep)
	}
	return fmt.Sprintf("%d rounds of %v, about %.0f minutes for all", f.rounds, f.measured, lasts.Minutes())
}

// byEach has every cell of every round once by each generator, if there are several:
// there and back, so that a round's figures by one pair with those by another.
func byEach(plan []step, generators []string) (all []step) {
	if len(generators) < 2 {
		return plan
	}
	for len(plan) > 0 {
		n := cellLength(plan)
		order := slices.Clone(generators)
		if plan[0].round%2 == 1 {
			slices.Reverse(order)
		}
		for _, by := range order {
			for _, st := range plan[:n] {
				st.by = by
				all = append(all, st)
			}
		}
		plan = plan[n:]
	}
	return all
}

// planOf orders the samples of a run. Rounds are outermost, so that a slow
// quarter of an hour falls on every cell alike; within a cell the subjects are
// measured next to each other, there and back (A B, B A), so that a drift
// within a round falls on every subject alike. A subject that cannot do a
// scenario's work is not in its cells. The quick form has not all cells.
func planOf(all []*scenarios.Scenario, subjects []subject.Subject, quick bool, rounds int) []step {
	var steps []step
	for round := range rounds {
		order := slices.Clone(subjects)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range all {
			for _, conns := range s.Load.Counts(quick) {
				for _, one := range order {
					if one.Declines(s) != nil {
						continue
					}
					steps = append(steps, step{round: round, cell: cell{scenario: s, conns: conns}, subject: one})
				}
			}
		}
	}
	return steps
}
