package main

import (
	"context"
	"fmt"
	"time"

	"atlas/harness/attack"
	"atlas/results"
	"atlas/scenarios"
)

// togetherSlice is the length of the loads that a sample of -together is made of.
const togetherSlice = 250 * time.Millisecond

// duetable says why a scenario's load cannot go to several servers at once, if so:
// what they are compared by is the CPU time of a request, and not their speed.
func duetable(s *scenarios.Scenario) error {
	if s.Load.Mode != scenarios.Closed || s.Load.Of != scenarios.Requests {
		return fmt.Errorf("scenario %s: several servers at once take loads of mode %q and of %q only",
			s.Name, scenarios.Closed, scenarios.Requests)
	}
	return nil
}

// fitTogether makes a run one of all subjects of a cell at once.
func (o *options) fitTogether() error {
	for _, s := range o.scenarios {
		if err := duetable(s); err != nil {
			return err
		}
		if s.Shared.Cores > 0 {
			return fmt.Errorf("scenario %s: its servers share the cores of the load, so it takes one at a time", s.Name)
		}
	}
	for _, one := range o.subjects {
		if one.ByURL() {
			return fmt.Errorf("subject %s: -together starts every server anew, and that one runs already", one.Name)
		}
	}
	o.form.name += ", together"
	o.generator, o.counts = generatorVegeta, countsNothing
	return nil
}

// together takes a sample of each subject of a cell in one round, while all of them
// run on the server's cores and are loaded at once: what the machine does to one, it
// does to the others. The samples have what a request costs, and no rates: those are
// what the subjects leave each other.
func (s *session) together(ctx context.Context, group []step) (samples []attack.Sample, err error) {
	var arms []arm
	for _, st := range group {
		arms = append(arms, arm{st.subject.Name, st.subject})
	}
	form := s.options.form
	slices, err := s.atOnce(ctx, group[0].cell, arms, gateForm{
		warmup: form.warmup, slice: togetherSlice, slices: max(1, int(form.measured/togetherSlice)),
	})
	if err != nil {
		return nil, err
	}
	for i, all := range slices {
		var sum attack.Slice
		for _, one := range all {
			sum.Requests += one.Requests
			sum.CPU += one.CPU
		}
		if sum.CPU <= 0 {
			return nil, fmt.Errorf("the CPU clock of %s does not go on", arms[i].name)
		}
		samples = append(samples, attack.Sample{Requests: sum.Requests, Values: map[string]float64{
			results.CPU: float64(sum.CPU) / float64(sum.Requests), results.Errors: 0,
		}})
	}
	return samples, nil
}
