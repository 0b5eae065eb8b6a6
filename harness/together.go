package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"atlas/harness/attack"
	"atlas/harness/subject"
	"atlas/results"
	"atlas/scenarios"
)

// togetherSlice is the length of the loads that a sample of -together is made of.
const togetherSlice = 250 * time.Millisecond

// togetherStretch is how long one of several generators has the servers before the next.
const togetherStretch = time.Second

// duetable says why a scenario's load cannot go to several servers at once, if so:
// what they are compared by is the CPU time of a request, and not their speed.
func duetable(s *scenarios.Scenario) error {
	if s.Load.Mode != scenarios.Closed || s.Load.Of != scenarios.Requests {
		return fmt.Errorf("scenario %s: several servers at once take loads of mode %q and of %q only",
			s.Name, scenarios.Closed, scenarios.Requests)
	}
	return nil
}

// takesTurns says whether a scenario's load can go to several servers in turns:
// what they are compared by is the tail at a rate.
func takesTurns(s *scenarios.Scenario) bool {
	return s.Load.Mode == scenarios.Open && s.Load.Handshakes == 0 && !s.Load.Shed && s.Load.Greedy == ""
}

// wrkTogether says whether wrk can be one of several that load servers at once. It
// opens connections in the time that is measured, which is nothing but over TLS.
func wrkTogether(s *scenarios.Scenario) bool {
	return s.Load.Mode == scenarios.Closed && s.Target.TLS == scenarios.Plain && s.Target.Length < attack.WrkMax
}

// fitTogether makes a run one of all subjects of a cell at once.
func (o *options) fitTogether() error {
	byWrk := slices.Contains(o.generators, generatorWrk)
	for _, s := range o.scenarios {
		if err := duetable(s); err != nil && !takesTurns(s) {
			return err
		}
		switch {
		case s.Shared.Cores > 0:
			return fmt.Errorf("scenario %s: its servers share the cores of the load, so it takes one at a time", s.Name)
		case byWrk && !wrkTogether(s):
			return fmt.Errorf("scenario %s: of several servers at once wrk does closed loops only, without TLS and "+
				"with small answers", s.Name)
		}
	}
	for _, one := range o.subjects {
		if one.ByURL() {
			return fmt.Errorf("subject %s: -together starts every server anew, and that one runs already", one.Name)
		}
	}
	o.form.name += results.FormTogether
	o.counts = countsNothing
	return nil
}

// together takes a sample of each subject of a cell in one round, while all of them
// run on the server's cores and are loaded at once: what the machine does to one, it
// does to the others. The samples have what a request costs, and each one's share of the
// core, but no rates: those are what the subjects leave each other. With an open loop they take turns. Steps by
// several generators, one after the other in the group, are of the same processes.
func (s *session) together(ctx context.Context, group []step) (samples []attack.Sample, err error) {
	var arms []arm
	for _, st := range group {
		if st.by == group[0].by {
			arms = append(arms, arm{st.subject.Name, st.subject})
		}
	}
	if takesTurns(group[0].cell.scenario) {
		return s.inTurns(ctx, group[0], arms)
	}
	var by []string
	for _, st := range group {
		if one := s.by(st); !slices.Contains(by, one) {
			by = append(by, one)
		}
	}
	sums := make([]attack.Slice, len(group))
	err = s.atOnce(ctx, group[0].cell, arms, s.options.form.warmup, func(d *attack.Duet) error {
		return s.alternate(ctx, d, by, func(n, i int, did attack.Slice) {
			sum := &sums[n*len(arms)+i]
			sum.Requests += did.Requests
			sum.CPU += did.CPU
			sum.Wall += did.Wall
		})
	})
	if err != nil {
		return nil, err
	}
	for i, sum := range sums {
		if sum.CPU <= 0 {
			return nil, fmt.Errorf("the CPU clock of %s does not go on", group[i].subject.Name)
		}
		samples = append(samples, attack.Sample{Requests: sum.Requests, Values: map[string]float64{
			results.CPU:        float64(sum.CPU) / float64(sum.Requests),
			results.ServerBusy: sum.CPU.Seconds() / sum.Wall.Seconds(),
			results.Errors:     0,
		}})
	}
	return samples, nil
}

// alternate loads servers by one generator for a while and then by the next, there and
// back, until each has had the time of a sample. It tells what the i-th arm did in every
// slice of the n-th generator.
func (s *session) alternate(
	ctx context.Context, d *attack.Duet, by []string, tell func(n, i int, did attack.Slice),
) error {
	measured := s.options.form.measured
	stretch := min(measured, togetherStretch)
	order := make([]int, len(by))
	for n := range order {
		order[n] = n
	}
	for range measured / stretch {
		for _, n := range order {
			take, length, times := d.Slice, togetherSlice, max(1, int(stretch/togetherSlice))
			if by[n] == generatorWrk {
				take, length, times = d.SliceByWrk, stretch, 1
			}
			for range times {
				did, err := take(ctx, length)
				if err != nil {
					return err
				}
				for i, one := range did {
					tell(n, i, one)
				}
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// inTurns has the servers of a cell take turns at its open loop.
func (s *session) inTurns(ctx context.Context, st step, arms []arm) (samples []attack.Sample, err error) {
	err = s.sideBySide(ctx, st.cell, arms, func(all []*subject.Running) error {
		var turns []attack.Turn
		for i, running := range all {
			turns = append(turns, attack.Turn{
				Name: arms[i].name, Target: s.target(st.cell, running), Meters: s.meters(st, running),
			})
		}
		samples, err = s.generator.Turns(ctx, turns, s.load(st), togetherSlice)
		return err
	})
	return samples, err
}

// arm is one of several servers that are loaded at once, with its name for errors.
type arm struct {
	name    string
	subject subject.Subject
}

// atOnce has servers loaded all at the same time, each with the connections of the
// cell, after a warm-up in which all answers are checked.
func (s *session) atOnce(
	ctx context.Context, c cell, arms []arm, warmup time.Duration, load func(*attack.Duet) error,
) error {
	return s.sideBySide(ctx, c, arms, func(all []*subject.Running) error {
		var loaded []attack.Arm
		for i, running := range all {
			target := s.target(c, running)
			loaded = append(loaded, attack.Arm{Name: arms[i].name, Target: target, CPU: running.Meter.CPU})
		}
		duet, err := s.generator.OpenDuet(loaded, c.conns)
		if err != nil {
			return err
		}
		defer duet.Close()
		if _, err := duet.Slice(ctx, warmup); err != nil {
			return err
		}
		return load(duet)
	})
}

// sideBySide starts servers on the server's cores, measures them, and stops them.
func (s *session) sideBySide(
	ctx context.Context, c cell, arms []arm, measure func([]*subject.Running) error,
) (err error) {
	var all []*subject.Running
	for _, one := range arms {
		running, err := s.launcher.Start(ctx, one.subject, s.site(c), s.cores.Server)
		if err != nil {
			return &spoiltError{fmt.Errorf("%s: %w", one.name, err)}
		}
		defer func() {
			if stopped := running.Stop(); err == nil && stopped != nil {
				err = &spoiltError{stopped}
			}
		}()
		all = append(all, running)
	}
	if err := measure(all); err != nil {
		return spoil(ctx, err, all)
	}
	return nil
}

// spoil is the error of a measurement. A server that died explains it best.
func spoil(ctx context.Context, err error, all []*subject.Running) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, running := range all {
		if ended := running.Ended(); ended != nil {
			return &spoiltError{errors.Join(err, ended)}
		}
	}
	return &spoiltError{err}
}
