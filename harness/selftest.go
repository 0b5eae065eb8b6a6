package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atlas/harness/host"
)

// trial is one run of the gate whose right verdict is known: base and candidate
// are one binary, and the candidate burns so many percent more.
type trial struct {
	Scenario string `json:"scenario"`
	Percent  int    `json:"percent"`
	Status   int    `json:"status"`
	Run      string `json:"run"` // directory of the results
}

// Verdicts by their exit status.
var verdictNames = map[int]string{0: "pass", exitDiffers: "regression", exitInvalid: "invalid", 4: "inconclusive"}

// trialOptions are for trials: one binary, built with the tag slowdown, is every arm.
func trialOptions(ctx context.Context, stderr io.Writer, o *gateOptions, scratch string) error {
	binary := built{filepath.Join(scratch, "atlas"), commitID()}
	fmt.Fprintln(stderr, "building the tree with the tag slowdown")
	o.allowed = host.Allowed() // the first session leaves this process the client's cores only
	o.binaries = [2]built{binary, binary}
	return buildTree(ctx, ".", binary.path, "slowdown")
}

// try runs the gate once.
func (o *gateOptions) try(ctx context.Context, stdout, stderr io.Writer, scenario string, percent int) (trial, error) {
	one := *o
	lab := *o.options // a session adds to it
	one.options = &lab
	one.candidate = []string{fmt.Sprintf("ATLAS_SLOWDOWN=%d", percent)}
	if err := one.settle(scenario); err != nil {
		return trial{}, err
	}
	var said strings.Builder
	status, err := one.measure(ctx, io.MultiWriter(stdout, &said), stderr)
	run, _, _ := strings.Cut(strings.TrimPrefix(said.String(), "results: "), "\n")
	return trial{Scenario: scenario, Percent: percent, Status: status, Run: filepath.Base(run)}, err
}

// selftest is the verb `selftest`.
func selftest(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	flags := flag.NewFlagSet("harness selftest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := newGateOptions(append([]string{"harness", "selftest"}, args...))
	pattern := o.flags(flags)
	flags.Lookup("scenario").DefValue, *pattern = "static-1k", "static-1k"
	if err := parseOnly(flags, args); err != nil {
		return exitOptions(stderr, "selftest", err)
	}
	status, err := o.selftest(ctx, stdout, stderr, *pattern)
	if err != nil {
		return failGate(ctx, stdout, stderr, "selftest", err)
	}
	return status
}

func (o *gateOptions) selftest(ctx context.Context, stdout, stderr io.Writer, pattern string) (int, error) {
	scratch, err := os.MkdirTemp("", "atlas-gate-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(scratch)
	if err := trialOptions(ctx, stderr, o, scratch); err != nil {
		return 0, err
	}
	wrong := 0
	for _, percent := range []int{0, 5, 10} {
		one, err := o.try(ctx, stdout, stderr, pattern, percent)
		if err != nil {
			return 0, err
		}
		want := exitPass
		if percent > 0 {
			want = exitDiffers
		}
		judged := "as it must be"
		if one.Status != want {
			wrong++
			judged = "WRONG, want " + verdictNames[want]
		}
		fmt.Fprintf(stdout, "selftest: candidate slowed down by %d %%: %s, %s\n\n",
			percent, verdictNames[one.Status], judged)
	}
	if wrong > 0 {
		fmt.Fprintf(stdout, "selftest: %d of 3 verdicts are wrong: "+
			"on this machine, as busy as it is, the gate proves nothing\n", wrong)
		return exitDiffers, nil
	}
	fmt.Fprintln(stdout, "selftest: the gate passes what is the same and fails what was slowed down")
	return exitPass, nil
}

// studied are the trials of a study: how many at which slowdown, and what they must
// come to.
type studied struct {
	percent, count int
	of             int // exit status that is counted
	least, most    int
}

// The study's measure. A count of 40 with one false alarm at most, and so on, is what
// this gate promises; -trials changes the numbers in proportion.
var study = []studied{
	{percent: 0, count: 40, of: exitDiffers, least: 0, most: 1},
	{percent: 5, count: 20, of: exitDiffers, least: 19, most: 20},
	{percent: 10, count: 20, of: exitDiffers, least: 20, most: 20},
}

// calibrate is the verb `calibrate`.
func calibrate(ctx context.Context, stdout, stderr io.Writer, args []string) int {
	flags := flag.NewFlagSet("harness calibrate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := newGateOptions(append([]string{"harness", "calibrate"}, args...))
	pattern := o.flags(flags)
	flags.Lookup("scenario").DefValue, *pattern = "static-1k,proxy-1k", "static-1k,proxy-1k"
	whole := flags.Bool("study", false, "40 trials of the same, 20 at +5 %, 20 at +10 %, the scenarios in turn; "+
		"about 90 minutes, and what is done already is not done again")
	trials := flags.Int("trials", 0,
		"`count` of trials of the same in the study, instead of 40; the others in proportion")
	file := flags.String("state", "results/runs/study.jsonl", "`file` of the trials that are done")
	if err := parseOnly(flags, args); err != nil {
		return exitOptions(stderr, "calibrate", err)
	}
	status, err := o.calibrate(ctx, stdout, stderr, *pattern, *whole, *trials, *file)
	if err != nil {
		return failGate(ctx, stdout, stderr, "calibrate", err)
	}
	return status
}

func (o *gateOptions) calibrate(ctx context.Context, stdout, stderr io.Writer,
	pattern string, whole bool, trials int, file string,
) (int, error) {
	scratch, err := os.MkdirTemp("", "atlas-gate-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(scratch)
	if err := trialOptions(ctx, stderr, o, scratch); err != nil {
		return 0, err
	}
	if !whole {
		o.stages = 1
		one, err := o.try(ctx, stdout, stderr, pattern, 0)
		if err != nil {
			return 0, err
		}
		fmt.Fprintln(stdout, "calibrate: base and candidate were the same. Change and Control are what\n"+
			"this machine makes of nothing, Sees is the change for the worse that the gate would\n"+
			"catch here 19 times of 20.")
		return one.Status, nil
	}
	if err := o.settle(pattern); err != nil {
		return 0, err
	}
	var names []string
	for _, s := range o.scenarios {
		names = append(names, s.Name)
	}
	done, err := readTrials(file)
	if err != nil {
		return 0, err
	}
	for _, next := range plannedTrials(names, trials, done) {
		one, err := o.try(ctx, io.Discard, stderr, next.Scenario, next.Percent)
		if err != nil {
			return 0, err
		}
		if err := appendTrial(file, one); err != nil {
			return 0, err
		}
		done = append(done, one)
		fmt.Fprintf(stderr, "trial %d: %s %+d %%: %s\n", len(done), one.Scenario, one.Percent, verdictNames[one.Status])
	}
	return concludeStudy(stdout, trials, done), nil
}

// scaled is the study with another number of trials of the same.
func scaled(trials int) []studied {
	if trials == 0 {
		return study
	}
	all := slices.Clone(study)
	for i := range all {
		part := func(n int) int { return n * trials / study[0].count }
		all[i].count = max(1, part(all[i].count))
		all[i].most = min(all[i].count, max(study[i].most-study[i].least, part(all[i].most)))
		all[i].least = min(all[i].count, part(all[i].least))
	}
	return all
}

// plannedTrials are those of the study that are not done, the kinds mixed, so that
// a study which is cut short has some of each, and the scenarios in turn.
func plannedTrials(names []string, trials int, done []trial) []trial {
	var left []trial
	kinds := scaled(trials)
	for i := range kinds[0].count {
		for _, kind := range kinds {
			// The others come as often as their count asks, spread over all.
			if (i+1)*kind.count/kinds[0].count == i*kind.count/kinds[0].count {
				continue
			}
			n := i * kind.count / kinds[0].count
			left = append(left, trial{Scenario: names[n%len(names)], Percent: kind.percent})
		}
	}
	for _, d := range done {
		at := slices.IndexFunc(left, func(t trial) bool { return t.Scenario == d.Scenario && t.Percent == d.Percent })
		if at >= 0 {
			left = slices.Delete(left, at, at+1)
		}
	}
	return left
}

// concludeStudy prints what became of the trials. It is 1 where they are not as
// promised.
func concludeStudy(w io.Writer, trials int, done []trial) int {
	status := exitPass
	for _, kind := range scaled(trials) {
		count := map[int]int{}
		all := 0
		for _, d := range done {
			if d.Percent == kind.percent {
				count[d.Status]++
				all++
			}
		}
		judged := "as promised"
		if got := count[kind.of]; got < kind.least || got > kind.most {
			judged = fmt.Sprintf("NOT as promised, which is %d to %d regressions", kind.least, kind.most)
			status = exitDiffers
		}
		fmt.Fprintf(w, "%+3d %%: %d trials: %d pass, %d regression, %d inconclusive, %d invalid; %s\n",
			kind.percent, all, count[0], count[exitDiffers], count[4], count[exitInvalid], judged)
	}
	return status
}

// readTrials reads what is done; no file is nothing.
func readTrials(file string) ([]trial, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var done []trial
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var one trial
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, i+1, err)
		}
		done = append(done, one)
	}
	return done, nil
}

func appendTrial(file string, one trial) error {
	line, err := json.Marshal(one)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
