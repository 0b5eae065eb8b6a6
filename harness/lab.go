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
	if len(log.samples()) == 0 {
		fmt.Fprintf(stderr, "harness %s: no sample passed its checks, nothing is stored\n", verb)
		return exitInvalid
	}
	path, err := log.store()
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
		return exitUsage
	}
	fmt.Fprintf(stdout, "results: %s\n", path)
	if err := showTables(ctx, stdout, stderr, o.programs.Harness, path); err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
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
				sample.Notes = append(sample.Notes, secondAttempt+refused[0])
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
