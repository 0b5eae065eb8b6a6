package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	fullForm  = form{name: "full", rounds: 10, warmup: 500 * time.Millisecond, measured: 2 * time.Second}
	// Curves need their shape, which many points show, and no narrow intervals.
	curvesForm = form{name: "curves", rounds: 4, warmup: 300 * time.Millisecond, measured: time.Second}
)

// Generators that -generator can name.
const (
	generatorAuto   = "auto"
	generatorWrk    = "wrk"
	generatorVegeta = "vegeta"
)

// Ways to start servers that -launch can name.
const (
	launchProcess = "process"
	launchCompose = "compose"
)

// launch is how servers are started.
func (o *options) launch() string {
	if o.programs.Compose != nil {
		return launchCompose
	}
	return launchProcess
}

// options are what the command line asks for.
type options struct {
	scenarios  []*scenarios.Scenario
	subjects   []subject.Subject
	foreign    []subject.Subject // those of subjects that the lab has not
	form       form
	quick      bool // only the cells of the quick form
	curves     bool // only curves
	noCurves   bool // none of them
	together   bool // all subjects of a cell at once
	out        string
	generators []string // of closed loops; several only if together
	programs   subject.Programs
	argv       []string
	allowed    []int // cores that may be used; nil: those of this process
	// counts is what of a run counts system calls, for so long each time.
	counts   counts
	counting time.Duration
	roles    roles // which hosts the servers run on
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
	floor := filepath.Join(filepath.Dir(self), "floor")
	if _, missing := os.Stat(floor); missing != nil {
		floor = absolute("bin/floor") // of `go run ./harness`
	}
	return subject.Programs{Atlas: absolute(atlas), Floor: floor, Harness: self}, err
}

// wishes are the flags of `run` and of `count`.
type wishes struct {
	scenario, subject, out, atlas, other, launch, generator string

	brought          brought
	full, quick      bool
	together         bool
	curves           bool
	rounds           int
	warmup, measured time.Duration
	roles            *roles
}

// parseWishes reads the command line of a verb.
func parseWishes(stderr io.Writer, verb string, args []string) (w wishes, err error) {
	flags := flag.NewFlagSet("harness "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	cells, subjects := "those of the form; harness list tells", "floor, and beyond the quick form HAProxy"
	rounded := "; wrk rounds it up to whole seconds"
	if verb == verbCount {
		cells, subjects, rounded = countScenarios+", each as in the quick form", "floor, HAProxy", ""
		w.generator = generatorVegeta
	} else {
		flags.StringVar(&w.generator, "generator", generatorAuto,
			"of the closed loop: wrk, vegeta, auto for wrk where it is installed; with -together also `wrk,vegeta`")
		cores := len(host.Allowed())
		flags.BoolVar(&w.full, "full", false, "the long form, without curves; "+fullForm.about(cores))
		flags.BoolVar(&w.curves, "curves", false, "the curves alone; "+curvesForm.about(cores))
		flags.BoolVar(&w.quick, "quick", false, "the short form, which is the default; "+quickForm.about(cores))
	}
	if verb != verbCount {
		flags.BoolVar(&w.together, "together", false,
			"load all subjects of a cell at once: only what a request costs, but exactly; an open loop in turns")
	}
	flags.StringVar(&w.scenario, "scenario", "", "comma-separated `globs` of scenarios (default: "+cells+")")
	flags.StringVar(&w.subject, "subject", "",
		"comma-separated `names` of subjects (default: Atlas on both engines, both nginxes, "+subjects+")")
	w.brought.flags(flags)
	flags.IntVar(&w.rounds, "count", 0, "`rounds`, instead of the form's")
	flags.DurationVar(&w.warmup, "warmup", 0, "`time` of the warm-up, instead of the form's")
	flags.DurationVar(&w.measured, "duration", 0, "`time` measured, instead of the form's"+rounded)
	flags.StringVar(&w.out, "out", "results/runs", "`directory` for the results")
	flags.StringVar(&w.atlas, "atlas", "bin/atlas", "`path` of Atlas's binary")
	flags.StringVar(&w.other, "other", "",
		"`path` of another Atlas, the subjects atlas-other and atlas-netpoll-other; alone, it is compared with atlas")
	flags.StringVar(&w.launch, "launch", launchProcess,
		"how servers are started: process, or compose for containers of docker-compose.yml (make images makes them)")
	w.roles = roleFlags(flags)
	if err = parseOnly(flags, args); err != nil {
		return w, err
	}
	flags.Visit(func(f *flag.Flag) {
		none := strings.Trim(f.Value.String(), "0s") == ""
		if none && slices.Contains([]string{"count", "warmup", "duration"}, f.Name) {
			err = fmt.Errorf("-%s is 0, and nothing would be measured: leave it out for the form's", f.Name)
		}
	})
	return w, err
}

// parseOptions makes options of the command line of `run` or `count`.
func parseOptions(stderr io.Writer, verb string, args []string) (*options, error) {
	w, err := parseWishes(stderr, verb, args)
	if err != nil {
		return nil, err
	}
	programs, err := findPrograms(w.atlas)
	if err != nil {
		return nil, err
	}
	o := &options{
		form: quickForm, out: w.out, together: w.together, generators: strings.Split(w.generator, ","),
		programs: programs,
		argv:     append([]string{"harness", verb}, args...),
	}
	switch {
	case w.quick && w.full || w.curves && (w.quick || w.full):
		return nil, errors.New("-quick, -full and -curves exclude each other")
	case w.full:
		o.form = fullForm
	case w.curves:
		o.form = curvesForm
	case verb == verbCount:
		o.form, o.counts = countForm, countsOnly
	}
	if err := o.form.override(w.rounds, w.warmup, w.measured); err != nil {
		return nil, err
	}
	if w.other != "" {
		o.programs.Other = absolute(w.other)
	}
	if err := o.launchBy(w.launch, *w.roles); err != nil {
		return nil, err
	}
	if o.foreign, err = w.brought.subjects(w.scenario); err != nil {
		return nil, err
	}
	o.quick = w.scenario == "" && !w.full && !w.curves
	o.curves, o.noCurves = w.curves, w.full && w.scenario == ""
	if o.quick && o.counts == countsOnly {
		w.scenario = countScenarios
	}
	if err := o.settle(w.scenario, w.subject, w.full || w.curves || o.counts == countsOnly); err != nil {
		return nil, err
	}
	if err := o.settleCounts(o.roles.counted); err != nil {
		return nil, err
	}
	if o.together {
		if err := o.fitTogether(); err != nil {
			return nil, err
		}
	}
	return o, checkOut(o.out)
}

// settle chooses what is measured and by what.
func (o *options) settle(pattern, names string, full bool) (err error) {
	if pattern == "" {
		pattern = "*"
	}
	if o.scenarios, err = scenarios.Match(scenarios.Files, pattern); err != nil {
		return err
	}
	if o.scenarios = o.ofForm(o.scenarios); len(o.scenarios) == 0 {
		return fmt.Errorf("none of the scenarios that match %q is a curve", pattern)
	}
	if err := o.fitCores(len(host.Allowed())); err != nil {
		return err
	}
	if err := host.RaiseFiles(filesWanted(o.scenarios)); err != nil {
		o.note("the limit of open files stays as it is: %v", err)
	}
	_, files := host.Limits()
	if err := o.fitConns(files, host.Ports()); err != nil {
		return err
	}
	if err := o.fitHosts(); err != nil {
		return err
	}
	if o.subjects, err = o.choose(names, full); err != nil {
		return err
	}
	if err := o.fitLaunch(); err != nil {
		return err
	}
	o.leaveOut()
	if err := o.excuse(); err != nil {
		return err
	}
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
// ones as far as this machine has them; and those that the lab has not, which are
// there to be measured.
func (o *options) choose(names string, full bool) (chosen []subject.Subject, err error) {
	if names == "" && o.programs.Other != "" {
		names = "atlas,atlas-other"
	}
	if names == "" {
		chosen, err = o.usual(full)
	} else {
		chosen, err = subject.Named(strings.Split(strings.ReplaceAll(names, " ", ""), ","), o.foreign...)
	}
	if err != nil {
		return nil, err
	}
	if names != "" && o.programs.Other != "" && !strings.Contains(names, "-other") {
		return nil, fmt.Errorf("-other: none of the subjects %s is atlas-other or atlas-netpoll-other", names)
	}
	for _, one := range o.foreign {
		if !slices.ContainsFunc(chosen, func(s subject.Subject) bool { return s.Name == one.Name }) {
			chosen = append(chosen, one)
		}
	}
	for _, s := range chosen {
		if err := s.Missing(o.programs); err != nil {
			return nil, fmt.Errorf("subject %s: %w", s.Name, err)
		}
	}
	return chosen, nil
}

// usual are the subjects of a form, as far as this machine has them.
func (o *options) usual(full bool) ([]subject.Subject, error) {
	usual := []string{"atlas", "atlas-netpoll", "nginx-best", "nginx-readme"}
	if uring := host.IOURing(); uring != "available" && !o.roles.far() {
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
	more := []string{"floor"}
	if full {
		more = []string{"haproxy", "floor"}
	}
	beside, err := subject.Named(more)
	if err != nil {
		return nil, err
	}
	for _, one := range beside {
		if err := one.Missing(o.programs); err != nil {
			o.note("%s is left out: %v", one.Name, err)
			continue
		}
		if one.Name == "floor" && host.IOURing() != "available" {
			o.note("floor is left out: io_uring is %s", host.IOURing())
			continue
		}
		chosen = append(chosen, one)
	}
	return chosen, nil
}

// chooseGenerator settles who drives the closed loop.
func (o *options) chooseGenerator() error {
	_, missing := host.Find("wrk")
	if len(o.generators) == 1 && o.generators[0] == generatorAuto {
		switch {
		case o.together: // by which a slice can be short
			o.generators[0] = generatorVegeta
		case missing != nil:
			o.note("vegeta drives the closed loop, too: %v", missing)
			o.generators[0] = generatorVegeta
		default:
			o.generators[0] = generatorWrk
		}
	}
	for i, one := range o.generators {
		switch {
		case one != generatorWrk && one != generatorVegeta || slices.Contains(o.generators[:i], one):
			return fmt.Errorf("-generator %q: want wrk, vegeta or auto, or wrk,vegeta", strings.Join(o.generators, ","))
		case one == generatorWrk && missing != nil:
			return missing
		}
	}
	if len(o.generators) > 1 && !o.together {
		return errors.New("-generator wrk,vegeta takes -together: otherwise make a run by each")
	}
	return nil
}

func (o *options) note(format string, args ...any) {
	o.notes = append(o.notes, fmt.Sprintf(format, args...))
}
