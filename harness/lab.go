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

// runLab is the verb `run`.
func runLab(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	o, err := parseOptions(stderr, args)
	if err != nil {
		return exitOptions(stderr, "run", err)
	}
	log, err := measureAll(ctx, stderr, o)
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "\nharness run: interrupted; everything is stopped, nothing is stored\n")
		return exitUsage
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness run: %v\n", err)
		return exitUsage
	}
	for _, text := range log.refusals() {
		fmt.Fprintf(stderr, "refused: %s\n", text)
	}
	if len(log.samples()) == 0 {
		fmt.Fprintln(stderr, "harness run: no sample passed its checks, nothing is stored")
		return exitInvalid
	}
	path, err := log.store()
	if err != nil {
		fmt.Fprintf(stderr, "harness run: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(stdout, "results: %s\n", path)
	if err := showTables(ctx, stdout, stderr, o.programs.Harness, path); err != nil {
		fmt.Fprintf(stderr, "harness run: %v\n", err)
		return exitUsage
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
	s, err := openSession(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if noise != "" {
		s.warnings = append(s.warnings, noise)
	}
	if host.Value(facts, "conntrack") == "on" {
		s.warnings = append(s.warnings,
			"the kernel tracks loopback connections (NAT rules are loaded): about 10 % more CPU for every subject")
	}
	plan := planOf(o.scenarios, o.subjects, o.quick, o.form.rounds)
	log = newRunLog(s, facts)
	show := newProgress(stderr, plan)
	show.head(o, s)
	for i, st := range plan {
		if log.left(st) {
			continue
		}
		show.begin(i)
		sample, err := tryMeasure(ctx, s, st)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		log.add(st, sample, err)
		show.end(i, sample, err)
	}
	show.done()
	return log, nil
}

// tryMeasure measures a step, once more if the first sample is refused.
func tryMeasure(ctx context.Context, s *session, st step) (attack.Sample, error) {
	var refused []string
	for range attempts {
		sample, err := s.measure(ctx, st)
		if err == nil {
			if len(refused) > 0 {
				sample.Notes = append(sample.Notes, "second attempt: "+refused[0])
			}
			return sample, nil
		}
		if ctx.Err() != nil {
			return attack.Sample{}, ctx.Err()
		}
		refused = append(refused, err.Error())
	}
	if refused[0] == refused[1] {
		return attack.Sample{}, errors.New(refused[0] + " (twice)")
	}
	return attack.Sample{}, errors.New(strings.Join(refused, "; then: "))
}
