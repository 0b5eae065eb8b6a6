package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// gateForm is how much a gate measures.
type gateForm struct {
	restarts, slices int
	slice, warmup    time.Duration
}

// Six restarts are one of each order of three arms.
var (
	gateUsual = gateForm{restarts: 6, slices: 24, slice: 250 * time.Millisecond, warmup: 300 * time.Millisecond}
	gateQuick = gateForm{restarts: 6, slices: 12, slice: 250 * time.Millisecond, warmup: 200 * time.Millisecond}
)

// The usual scenarios of a gate, one for each way that bytes take through Atlas.
const gateScenarios = "static-1k,static-100k,proxy-1k,tcp-1k,tls-static-1k,tls-proxy-1k"

// gateOptions are what the command line asks for.
type gateOptions struct {
	*options
	duet      gateForm
	base      string // git ref
	engine    string
	policy    string // file, "" for compare's own
	stages    int
	anyway    bool     // measure equal binaries, too
	logged    bool     // the candidate writes an access log
	metered   bool     // the candidate has an admin listener
	binaries  [2]built // base and candidate
	candidate []string // environment of the candidate, beside ours
}

// built is a binary and what it was built from.
type built struct {
	path, commit string
}

// runGate is the verb `gate`.
func runGate(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	o, err := parseGate(stderr, args)
	if err != nil {
		return exitOptions(stderr, "gate", err)
	}
	scratch, err := os.MkdirTemp("", "atlas-gate-")
	if err == nil {
		defer os.RemoveAll(scratch)
		err = o.build(ctx, stderr, scratch)
	}
	if err != nil {
		return failGate(ctx, stdout, stderr, "gate", err)
	}
	if same, err := sameFiles(o.binaries[0].path, o.binaries[1].path); err == nil && same && !o.anyway {
		fmt.Fprintln(stdout, "verdict: pass. Base and candidate are the same binary, byte for byte: "+
			"nothing was measured, and nothing is to be done.")
		return exitPass
	}
	status, err := o.measure(ctx, stdout, stderr)
	if err != nil {
		return failGate(ctx, stdout, stderr, "gate", err)
	}
	return status
}

// failGate tells why there is no verdict, or that the verdict is invalid, and returns
// the exit status.
func failGate(ctx context.Context, stdout, stderr io.Writer, verb string, err error) int {
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "\nharness %s: interrupted; everything is stopped\n", verb)
		return exitUsage
	}
	if _, ok := errors.AsType[*spoiltError](err); ok {
		fmt.Fprintf(stdout, "verdict: invalid. %v. No duet came about, so it says nothing of the cost: "+
			"mend that, or choose another base.\n", err)
		return exitInvalid
	}
	fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
	return exitUsage
}

// spoiltError is the error of an arm that does not start, ends, or answers wrongly.
type spoiltError struct{ err error }

func (s *spoiltError) Error() string { return s.err.Error() }

// parseGate reads the flags of `gate`.
func parseGate(stderr io.Writer, args []string) (*gateOptions, error) {
	flags := flag.NewFlagSet("harness gate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := newGateOptions(append([]string{"harness", "gate"}, args...))
	flags.StringVar(&o.base, "base", "", "git `ref` to compare the tree with")
	flags.StringVar(&o.binaries[0].path, "base-binary", "", "`path` of an Atlas to be the base, instead")
	flags.StringVar(&o.binaries[1].path, "candidate-binary", "",
		"`path` of an Atlas to be the candidate, instead of the tree")
	flags.BoolVar(&o.anyway, "anyway", false, "measure binaries that are equal, too")
	flags.BoolVar(&o.logged, "logged", false,
		"the candidate writes an access log: what does that cost? Goes with -anyway and one binary twice")
	flags.BoolVar(&o.metered, "metered", false, "the candidate has an admin listener with its metrics, likewise")
	pattern := o.flags(flags)
	if err := parseOnly(flags, args); err != nil {
		return nil, err
	}
	if (o.base == "") == (o.binaries[0].path == "") {
		return nil, errors.New("name a -base to compare the tree with, such as origin/main, or a -base-binary")
	}
	return o, o.settle(*pattern)
}

func newGateOptions(argv []string) *gateOptions {
	return &gateOptions{options: &options{argv: argv}, stages: 2}
}

// flags adds those that gate, selftest and calibrate share.
func (o *gateOptions) flags(flags *flag.FlagSet) (pattern *string) {
	flags.StringVar(&o.out, "out", "results/runs", "`directory` for the results")
	flags.StringVar(&o.engine, "engine", "", "of Atlas: io_uring or netpoll (default: io_uring where it is)")
	flags.StringVar(&o.policy, "policy", "", "`file` with the limits, instead of compare's own")
	flags.BoolVar(&o.quick, "quick", false, "half as many slices")
	flags.IntVar(&o.duet.restarts, "restarts", 0, "`starts` of all arms in a stage, instead of 6")
	flags.IntVar(&o.duet.slices, "slices", 0, "`slices` of a start, instead of the form's")
	flags.DurationVar(&o.duet.slice, "slice", 0, "`time` of a slice, instead of 250ms")
	return flags.String("scenario", gateScenarios, "comma-separated `globs` of scenarios")
}

// settle completes the options.
func (o *gateOptions) settle(pattern string) (err error) {
	form := gateUsual
	if o.quick {
		form = gateQuick
	}
	if o.duet.restarts < 0 || o.duet.slices < 0 || o.duet.slice < 0 {
		return errors.New("-restarts, -slices and -slice cannot be negative")
	}
	o.duet.warmup = form.warmup
	for _, one := range []struct{ to, from *int }{{&o.duet.restarts, &form.restarts}, {&o.duet.slices, &form.slices}} {
		if *one.to == 0 {
			*one.to = *one.from
		}
	}
	if o.duet.slice == 0 {
		o.duet.slice = form.slice
	}
	if o.engine == "" {
		o.engine = "io_uring"
		if there := host.IOURing(); there != "available" {
			o.engine = "netpoll"
			o.note("the arms run on the engine netpoll: io_uring is %s", there)
		}
	}
	if o.programs, err = findPrograms("bin/atlas"); err != nil {
		return err
	}
	if o.scenarios, err = scenarios.Match(scenarios.Files, pattern); err != nil {
		return err
	}
	for _, s := range o.scenarios {
		if err := duetable(s); err != nil {
			return err
		}
		if len(s.Each()) > 1 {
			return fmt.Errorf("scenario %s: a duet takes none that varies a key", s.Name)
		}
	}
	return checkOut(o.out)
}

// measure runs the stages and has compare judge them. It returns compare's status.
func (o *gateOptions) measure(ctx context.Context, stdout, stderr io.Writer) (status int, err error) {
	facts := host.Facts()
	s, err := openSession(ctx, o.options)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	copies, err := os.MkdirTemp("", "atlas-arms-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(copies)
	run := newDuetRun(o, s, facts, stderr)
	if run.arms, err = o.arms(copies); err != nil {
		return 0, err
	}
	run.head()
	suspects := o.scenarios
	for stage := range o.stages {
		if err := run.stage(ctx, stage, suspects); err != nil {
			return 0, err
		}
		if err := run.store(); err != nil {
			return 0, err
		}
		if suspects, err = o.suspects(ctx, run.dir); err != nil {
			return 0, err
		}
		if len(suspects) == 0 {
			break
		}
	}
	fmt.Fprintf(stdout, "results: %s\n", run.dir)
	cmd, err := o.compare(ctx, run.dir)
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	if ended := cmd.ProcessState; ended != nil && ended.Exited() {
		return ended.ExitCode(), nil
	}
	return 0, err
}

// suspects asks compare which scenarios want a second stage.
func (o *gateOptions) suspects(ctx context.Context, dir string) ([]*scenarios.Scenario, error) {
	cmd, err := o.compare(ctx, "-suspects", dir)
	if err != nil {
		return nil, err
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("compare gate: %w", err)
	}
	var chosen []*scenarios.Scenario
	for _, name := range strings.Fields(string(out)) {
		for _, one := range o.scenarios {
			if one.Name == name {
				chosen = append(chosen, one)
			}
		}
	}
	return chosen, nil
}

// place of the arms in a run's files.
const (
	armBase = iota
	armControl
	armCandidate
	armCount
)

var armNames = [armCount]string{"base", "control", "candidate"}

// orders are all in which three arms can start and connect: a restart has the
// next one, so that none is first more often than another.
var orders = [...][armCount]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}

// arms are what is measured, each of a copy of its binary in dir. Processes of one
// file have its text in the processor's caches together: base and control, of one
// file, would be a little cheaper than a candidate that is of another.
func (o *gateOptions) arms(dir string) (arms [armCount]subject.Subject, err error) {
	for at, binary := range [armCount]built{o.binaries[0], o.binaries[0], o.binaries[1]} {
		path := filepath.Join(dir, armNames[at])
		text, err := os.ReadFile(binary.path)
		if err != nil {
			return arms, err
		}
		if err := os.WriteFile(path, text, 0o700); err != nil {
			return arms, err
		}
		arms[at] = subject.Arm(path, o.engine)
		if at == armCandidate {
			arms[at] = subject.Arm(path, o.engine, o.candidate...).Noting(o.logged, o.metered)
		}
	}
	return arms, nil
}

// restart starts the arms in an order, loads them, and stops them. It returns the
// slices of each arm, by the arm's place.
func (r *duetRun) restart(ctx context.Context, c cell, order [armCount]int) ([][]attack.Slice, error) {
	var arms []arm
	for _, at := range order {
		arms = append(arms, arm{armNames[at], r.arms[at]})
	}
	form, slices := r.options.duet, make([][]attack.Slice, armCount)
	err := r.session.atOnce(ctx, c, arms, form.warmup, func(d *attack.Duet) error {
		for range form.slices {
			did, err := d.Slice(ctx, form.slice)
			if err != nil {
				return err
			}
			for i, at := range order {
				slices[at] = append(slices[at], did[i])
			}
		}
		return nil
	})
	return slices, err
}
