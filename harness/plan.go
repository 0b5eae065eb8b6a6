package main

import (
	"fmt"
	"slices"

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
	counts  bool // system calls, and nothing else
}

// String names the step for people.
func (st step) String() string {
	when := fmt.Sprintf("round %d", st.round+1)
	if st.counts {
		when = "counting"
	}
	return fmt.Sprintf("%s %s, %s", st.cell, st.subject.Name, when)
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
