package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"atlas/harness/attack"
	"atlas/harness/host"
)

// attempts is how often a sample may be tried: once more after a refusal,
// because a neighbour on the machine can spoil one.
const attempts = 2

// secondAttempt begins the note of a sample whose first attempt was refused.
const secondAttempt = "second attempt: "

// runLab is the verbs `run` and `count`.
func runLab(ctx context.Context, stdout, stderr io.Writer, verb string, args []string) int {
	o, err := parseOptions(stderr, verb, args)
	if err != nil && ctx.Err() == nil { // an interruption makes Compose fail, which is asked for its file
		return exitOptions(stderr, verb, err)
	}
	var log *runLog
	if err == nil {
		log, err = measureAll(ctx, stderr, o)
	}
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "\nharness %s: interrupted; everything is stopped, nothing is stored\n", verb)
		return exitUsage
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
		return exitUsage
	}
	for _, text := range log.refusals() {
		fmt.Fprintf(stderr, "refused: %s\n", text)
	}
	if len(log.samples(o.generators[0])) == 0 { // a cell that is left is so by all of them
		fmt.Fprintf(stderr, "harness %s: no sample passed its checks, nothing is stored\n", verb)
		return exitInvalid
	}
	for _, by := range o.generators {
		path, err := log.store(by)
		if err != nil {
			fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
			return exitUsage
		}
		fmt.Fprintf(stdout, "results: %s\n", path)
		if err := showTables(ctx, stdout, stderr, o.programs.Harness, path); err != nil {
			fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
			return exitUsage
		}
	}
	if len(log.refusals()) > 0 {
		return exitInvalid
	}
	return exitPass
}

// measureAll takes every sample of the plan. Its error means that there is no
// run; a sample that was refused is in the log.
func measureAll(ctx context.Context, stderr io.Writer, o *options) (log *runLog, err error) {
	noise := host.Noise()
	facts := host.Facts()
	if o.launch() != launchProcess { // whose figures have no such line, and go on comparing
		facts = append(facts, host.Fact{Key: "launch", Value: o.launch()})
	}
	s, err := openSession(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if noise != "" {
		s.warnings = append(s.warnings, noise)
	}
	facts = append(facts, s.hosts.facts()...)
	if host.Value(facts, "conntrack") == "on" {
		s.warnings = append(s.warnings,
			"the kernel tracks loopback connections (NAT rules are loaded): about 10 % more CPU for every subject")
	}
	plan := o.plan()
	log = newRunLog(s, facts)
	show := newProgress(stderr, plan)
	show.head(o, s)
	for i := 0; i < len(plan); {
		group := plan[i : i+1]
		if o.together {
			group = plan[i : i+cellLength(plan[i:])]
		}
		if !log.left(group[0]) { // of several at once, all or none have
			show.begin(i)
			samples, err := tryMeasure(ctx, s, group)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			for n, st := range group {
				log.add(st, samples[n], err)
				show.end(i+n, samples[n], err)
			}
		}
		i += len(group)
	}
	show.done()
	return log, nil
}

// cellLength is how many steps of a plan from the first on are of one cell and round.
func cellLength(plan []step) int {
	for n, st := range plan {
		if st.cell != plan[0].cell || st.round != plan[0].round {
			return n
		}
	}
	return len(plan)
}

// tryMeasure measures a step, or several at once, and once more if the first samples
// are refused. It returns one for each step, without values if there is an error.
func tryMeasure(ctx context.Context, s *session, group []step) ([]attack.Sample, error) {
	none := make([]attack.Sample, len(group))
	var refused []string
	for range attempts {
		samples, err := s.measureAtOnce(ctx, group)
		if err == nil {
			if len(refused) > 0 {
				samples[0].Notes = append(samples[0].Notes, secondAttempt+refused[0])
			}
			return samples, nil
		}
		if ctx.Err() != nil {
			return none, ctx.Err()
		}
		refused = append(refused, err.Error())
	}
	if refused[0] == refused[1] {
		return none, errors.New(refused[0] + " (twice)")
	}
	return none, errors.New(strings.Join(refused, "; then: "))
}

func (s *session) measureAtOnce(ctx context.Context, group []step) ([]attack.Sample, error) {
	if s.options.together {
		return s.together(ctx, group)
	}
	sample, err := s.measure(ctx, group[0])
	return []attack.Sample{sample}, err
}
