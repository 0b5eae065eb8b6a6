package main

import (
	"fmt"
	"time"

	"atlas/scenarios"
)

// verbCount counts and does nothing else.
const verbCount = "count"

// One round counts so many requests that a second one has little to add.
var countForm = form{name: "count", rounds: 1, warmup: quickForm.warmup, measured: countingMax}

const (
	// countScenarios are counted where none is named.
	countScenarios = "static-1k,proxy-1k"
	// countingMax is how long a run counts in a cell, whatever its form.
	countingMax = 500 * time.Millisecond
)

// counts is what of a run counts system calls.
type counts int

const (
	countsNothing counts = iota // where it is not allowed
	countsToo                   // a pass after all others
	countsOnly
)

// plan returns the steps of the run. Counting comes after everything else, because
// it slows the machine down.
func (o *options) plan() []step {
	switch o.counts {
	case countsOnly:
		return countsOf(planOf(o.scenarios, o.subjects, o.quick, o.form.rounds))
	case countsToo:
		once := planOf(o.scenarios, o.subjects, o.quick, 1)
		return append(byEach(planOf(o.scenarios, o.subjects, o.quick, o.form.rounds), o.generators), countsOf(once)...)
	}
	return byEach(planOf(o.scenarios, o.subjects, o.quick, o.form.rounds), o.generators)
}

// countsOf are the steps that count system calls, one for each step of a plan that
// has any per request: a closed loop, in which a server has as much to do at once as
// the connections allow.
func countsOf(plan []step) []step {
	var steps []step
	for _, st := range plan {
		load := st.cell.scenario.Load
		if load.Mode == scenarios.Closed && load.Of == scenarios.Requests && st.subject.Metered() {
			st.counts = true
			steps = append(steps, st)
		}
	}
	return steps
}

// settleCounts decides what is counted: whatever can be, where allowed says that
// this process may. A run goes on without, the verb `count` does not.
func (o *options) settleCounts(allowed func() error) error {
	only := o.counts == countsOnly
	for _, one := range o.subjects {
		if only && !one.Metered() {
			return fmt.Errorf("the system calls of %s cannot be counted, as its process is not known: "+
				"add it to -url, as in %s=http://host:port,pid=N", one.Name, one.Name)
		}
	}
	if len(countsOf(planOf(o.scenarios, o.subjects, o.quick, 1))) == 0 {
		if only {
			return fmt.Errorf("system calls are counted in loads of mode %q and of %q, and none of these is one",
				scenarios.Closed, scenarios.Requests)
		}
		return nil
	}
	err := allowed()
	switch {
	case err != nil && only:
		return err
	case err != nil:
		o.note("%v", err)
	case !only:
		o.counts = countsToo
	}
	if o.counting = o.form.measured; !only {
		o.counting = min(o.counting, countingMax)
	}
	return nil
}
