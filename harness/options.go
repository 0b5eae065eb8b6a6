package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// form is how much a run measures.
type form struct {
	name             string
	rounds           int
	warmup, measured time.Duration
}

// Six rounds are the fewest whose median has a finite confidence interval, and
// an even number, so that every subject is first as often as last.
var (
	quickForm = form{name: "quick", rounds: 6, warmup: 300 * time.Millisecond, measured: time.Second}
	fullForm  = form{name: "full", rounds: 10, warmup: time.Second, measured: 5 * time.Second}
)

// Generators that -generator can name.
const (
	generatorAuto   = "auto"
	generatorWrk    = "wrk"
	generatorVegeta = "vegeta"
)

// options are what the command line asks for.
type options struct {
	scenarios []*scenarios.Scenario
	subjects  []subject.Subject
	form      form
	quick     bool // only the cells of the quick form
	out       string
	generator string
	programs  subject.Programs
	argv      []string
	// notes are what the run goes on without; they are stored with it.
	notes []string
}

// errShown is the error of a command line that flag has already explained.
var errShown = errors.New("shown")

// exitOptions is the exit status of a verb whose options were not to be had, and
// says why unless flag has.
func exitOptions(stderr io.Writer, verb string, err error) int {
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitPass
	case !errors.Is(err, errShown):
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
	}
	return exitUsage
}

// parseOnly is parse for those who return options: its errors are for
// exitOptions.
func parseOnly(flags *flag.FlagSet, args []string) error {
	switch status, ok := parse(flags, args); {
	case ok:
		return nil
	case status == exitPass:
		return flag.ErrHelp
	}
	return errShown
}

// findPrograms are ours that subjects are made of.
func findPrograms(atlas string) (subject.Programs, error) {
	self, err := os.Executable()
	return subject.Programs{Atlas: absolute(atlas), Harness: self}, err
}

// parseOptions reads the flags of `run`.
func parseOptions(stderr io.Writer, args []string) (*options, error) {
	flags := flag.NewFlagSet("harness run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("scenario", "",
		"comma-separated `globs` of scenarios (default: those of the form; harness list tells)")
	names := flags.String("subject", "",
		"comma-separated `names` of subjects (default: Atlas on both engines, both nginxes, in the long form HAProxy)")
	full := flags.Bool("full", false, "the long form: 10 rounds of 5 s, about 100 minutes for all")
	quick := flags.Bool("quick", false, "the short form, which is the default: 6 rounds of 1 s, about 4 minutes")
	count := flags.Int("count", 0, "`rounds`, instead of the form's")
	warmup := flags.Duration("warmup", 0, "`time` of the warm-up, instead of the form's")
	measured := flags.Duration("duration", 0,
		"`time` measured, instead of the form's; wrk rounds it up to whole seconds")
	out := flags.String("out", "results/runs", "`directory` for the results")
	atlas := flags.String("atlas", "bin/atlas", "`path` of Atlas's binary")
	otherAtlas := flags.String("other", "",
		"`path` of another Atlas, the subjects atlas-other and atlas-netpoll-other; alone, it is compared with atlas")
	generator := flags.String("generator", generatorAuto,
		"of the closed loop: wrk, vegeta, or auto for wrk where it is installed")
	if err := parseOnly(flags, args); err != nil {
		return nil, err
	}
	programs, err := findPrograms(*atlas)
	if err != nil {
		return nil, err
	}
	o := &options{
		form: quickForm, out: *out, generator: *generator,
		programs: programs,
		argv:     append([]string{"harness", "run"}, args...),
	}
	if *quick && *full {
		return nil, errors.New("-quick and -full exclude each other")
	}
	if *full {
		o.form = fullForm
	}
	if err := o.form.override(*count, *warmup, *measured); err != nil {
		return nil, err
	}
	if *otherAtlas != "" {
		o.programs.Other = absolute(*otherAtlas)
	}
	o.quick = *pattern == "" && !*full
	return o, o.settle(*pattern, *names, *full)
}

// settle chooses what is measured and by what.
func (o *options) settle(pattern, names string, full bool) (err error) {
	if pattern == "" {
		pattern = "*"
	}
	if o.scenarios, err = scenarios.Match(scenarios.Files, pattern); err != nil {
		return err
	}
	o.scenarios = slices.DeleteFunc(o.scenarios, func(s *scenarios.Scenario) bool {
		return len(s.Load.Counts(o.quick)) == 0
	})
	if o.subjects, err = o.choose(names, full); err != nil {
		return err
	}
	o.leaveOut()
	if len(planOf(o.scenarios, o.subjects, o.quick, 1)) == 0 {
		return fmt.Errorf("subject %s can do the work of no scenario that matches %q", names, pattern)
	}
	return o.chooseGenerator()
}

// leaveOut takes work from subjects for which this machine lacks a part, and
// notes what is not measured for that.
func (o *options) leaveOut() {
	for i, whole := range o.subjects {
		here, missing := whole.Here(o.programs)
		o.subjects[i] = here
		for _, s := range o.scenarios {
			if whole.Serves(s.Target.Kind) && !here.Serves(s.Target.Kind) {
				o.note("%s takes no part in %s: %v", whole.Name, s.Name, missing)
			}
		}
	}
}

// String says what a figure of this form rests on.
func (f form) String() string {
	return fmt.Sprintf("%s: %d rounds of %v after %v", f.name, f.rounds, f.measured, f.warmup)
}

// override replaces what was given.
func (f *form) override(rounds int, warmup, measured time.Duration) error {
	if rounds < 0 || warmup < 0 || measured < 0 {
		return errors.New("-count, -warmup and -duration cannot be negative")
	}
	if rounds > 0 {
		f.rounds = rounds
	}
	if warmup > 0 {
		f.warmup = warmup
	}
	if measured > 0 {
		f.measured = measured
	}
	if rounds > 0 || warmup > 0 || measured > 0 {
		f.name += ", changed"
	}
	return nil
}

// choose returns the subjects named, all of which must be there, or the usual
// ones as far as this machine has them.
func (o *options) choose(names string, full bool) ([]subject.Subject, error) {
	if names == "" && o.programs.Other != "" {
		names = "atlas,atlas-other"
	}
	if names != "" {
		chosen, err := subject.Named(strings.Split(strings.ReplaceAll(names, " ", ""), ","))
		if err != nil {
			return nil, err
		}
		for _, s := range chosen {
			if err := s.Missing(o.programs); err != nil {
				return nil, fmt.Errorf("subject %s: %w", s.Name, err)
			}
		}
		return chosen, nil
	}
	usual := []string{"atlas", "atlas-netpoll", "nginx-best", "nginx-readme"}
	if uring := host.IOURing(); uring != "available" {
		o.note("atlas is left out, atlas-netpoll stays: io_uring is %s", uring)
		usual = usual[1:]
	}
	chosen, err := subject.Named(usual)
	if err != nil {
		return nil, err
	}
	if err := chosen[0].Missing(o.programs); err != nil {
		return nil, err
	}
	if err := chosen[len(chosen)-1].Missing(o.programs); err != nil {
		o.note("no nginx to compare with, go-nethttp takes its place: %v", err)
		peer, err := subject.Named([]string{"go-nethttp"})
		if err != nil {
			return nil, err
		}
		chosen = append(chosen[:len(chosen)-2], peer...)
	}
	if !full {
		return chosen, nil
	}
	haproxy, err := subject.Named([]string{"haproxy"})
	if err != nil {
		return nil, err
	}
	if err := haproxy[0].Missing(o.programs); err != nil {
		o.note("haproxy is left out: %v", err)
		return chosen, nil
	}
	return append(chosen, haproxy...), nil
}

// chooseGenerator settles who drives the closed loop.
func (o *options) chooseGenerator() error {
	_, missing := host.Find("wrk")
	switch {
	case o.generator == generatorVegeta:
	case o.generator == generatorWrk && missing != nil:
		return missing
	case o.generator == generatorAuto && missing != nil:
		o.note("vegeta drives the closed loop, too: %v", missing)
		o.generator = generatorVegeta
	case o.generator == generatorAuto, o.generator == generatorWrk:
		o.generator = generatorWrk
	default:
		return fmt.Errorf("-generator %q: want wrk, vegeta or auto", o.generator)
	}
	return nil
}

func (o *options) note(format string, args ...any) {
	o.notes = append(o.notes, fmt.Sprintf(format, args...))
}
