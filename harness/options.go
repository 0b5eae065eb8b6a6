package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
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
	out       string
	generator string
	programs  subject.Programs
	argv      []string
	// notes are what the run goes on without; they are stored with it.
	notes []string
}

// errShown is the error of a command line that flag has already explained.
var errShown = errors.New("shown")

// parseOptions reads the flags of `run`.
func parseOptions(stderr io.Writer, args []string) (*options, error) {
	flags := flag.NewFlagSet("harness run", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("scenario", "*", "comma-separated `globs` of scenarios")
	names := flags.String("subject", "",
		"comma-separated `names` of subjects (default: Atlas on both engines, and both nginx profiles)")
	full := flags.Bool("full", false, "the long form: 10 rounds of 5 s, about 25 minutes")
	quick := flags.Bool("quick", false, "the short form, which is the default: 6 rounds of 1 s, under 4 minutes")
	count := flags.Int("count", 0, "`rounds`, instead of the form's")
	warmup := flags.Duration("warmup", 0, "`time` of the warm-up, instead of the form's")
	measured := flags.Duration("duration", 0,
		"`time` measured, instead of the form's; wrk rounds it up to whole seconds")
	out := flags.String("out", "results/runs", "`directory` for the results")
	atlas := flags.String("atlas", "bin/atlas", "`path` of Atlas's binary")
	generator := flags.String("generator", generatorAuto,
		"of the closed loop: wrk, vegeta, or auto for wrk where it is installed")
	if status, ok := parse(flags, args); !ok {
		if status == exitPass {
			return nil, flag.ErrHelp
		}
		return nil, errShown
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &options{
		form: quickForm, out: *out, generator: *generator,
		programs: subject.Programs{Atlas: absolute(*atlas), Harness: self},
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
	if o.scenarios, err = scenarios.Match(scenarios.Files, *pattern); err != nil {
		return nil, err
	}
	if o.subjects, err = o.choose(*names); err != nil {
		return nil, err
	}
	if len(planOf(o.scenarios, o.subjects, 1)) == 0 {
		return nil, fmt.Errorf("subject %s can do the work of no scenario that matches %q", *names, *pattern)
	}
	return o, o.chooseGenerator()
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
func (o *options) choose(names string) ([]subject.Subject, error) {
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
	return chosen, nil
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
