package gate

import (
	"fmt"
	"path/filepath"
	"strconv"

	"atlas/results"
)

// Arms are the results of a duet: base, the same base a second time as the
// control, and a candidate, all under load at once. Sample i of each arm is of
// the same slice of time. Every restart has as many slices, and every stage as
// many restarts; stages follow one another.
type Arms struct {
	Base, Control, Candidate *results.File
	Slices, Restarts         int
}

// The files of a duet in its directory.
const (
	baseFile      = "base.bench"
	controlFile   = "control.bench"
	candidateFile = "candidate.bench"
)

// OpenArms reads a duet's directory. Files that do not belong together are an error.
func OpenArms(dir string) (*Arms, error) {
	var a Arms
	for _, one := range []struct {
		to   **results.File
		file string
	}{{&a.Base, baseFile}, {&a.Control, controlFile}, {&a.Candidate, candidateFile}} {
		f, err := results.Open(filepath.Join(dir, one.file))
		if err != nil {
			return nil, err
		}
		*one.to = f
	}
	for _, one := range []struct {
		to  *int
		key string
	}{{&a.Slices, results.Slices}, {&a.Restarts, results.Restarts}} {
		n, err := strconv.Atoi(a.Base.Setting(one.key))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s: setting %s is %q, want a count", dir, one.key, a.Base.Setting(one.key))
		}
		*one.to = n
	}
	return &a, a.check(dir)
}

// check says whether the arms pair slice by slice.
func (a *Arms) check(dir string) error {
	for _, other := range []*results.File{a.Control, a.Candidate} {
		for _, s := range a.Base.Settings {
			if other.Setting(s.Key) != s.Value {
				return fmt.Errorf("%s: the arms differ in setting %s: they are not of one run", dir, s.Key)
			}
		}
		if len(other.Samples) != len(a.Base.Samples) {
			return fmt.Errorf("%s: the arms have %d and %d slices", dir, len(a.Base.Samples), len(other.Samples))
		}
		for i, s := range other.Samples {
			if s.Name != a.Base.Samples[i].Name {
				return fmt.Errorf("%s: slice %d is of %s in one arm, of %s in another",
					dir, i, a.Base.Samples[i].Name, s.Name)
			}
		}
	}
	for _, name := range a.Base.Names() {
		n := len(a.Base.Values(name, results.CPU))
		if n == 0 || n%(a.Slices*a.Restarts) != 0 || len(a.values(a.Control, name)) != n ||
			len(a.values(a.Candidate, name)) != n {
			return fmt.Errorf("%s: %s has %d slices, want stages of %d restarts of %d with a cost in each",
				dir, name, n, a.Restarts, a.Slices)
		}
	}
	return nil
}

// values are the costs of one arm in a cell; none where a slice has none or cost nothing.
func (a *Arms) values(f *results.File, name results.Name) []float64 {
	values := f.Values(name, results.CPU)
	for _, v := range values {
		if v <= 0 {
			return nil
		}
	}
	return values
}

// Duet is what one cell of a duet means.
type Duet struct {
	Name    results.Name `json:"name"`
	Change  Effect       `json:"change"`  // of the candidate to the mean of base and control
	Control Effect       `json:"control"` // of the control to base, which are the same
	Stages  []float64    `json:"stages"`  // the change, stage by stage
	// P is of a change for the worse, corrected for the number of cells.
	P float64 `json:"p"`
	// Sees is the change for the worse that a run with this one's noise would
	// have put beyond the limit 19 times of 20.
	Sees    float64 `json:"sees"`
	Stat    Stat    `json:"benchstat"`
	Verdict string  `json:"verdict"` // an Outcome's name
	Why     string  `json:"why"`
	// Suspect wants a second stage before it is judged.
	Suspect bool `json:"suspect"`
	outcome Outcome
}

// JudgeDuets judges every cell.
func (p *Policy) JudgeDuets(a *Arms) []Duet {
	var all []Duet
	for _, name := range a.Base.Names() {
		all = append(all, p.Gate.measure(a, name))
	}
	holm(all)
	for i := range all {
		p.Gate.judge(&all[i], len(all))
	}
	return all
}

// measure computes everything but the verdict.
func (g *GatePolicy) measure(a *Arms, name results.Name) Duet {
	base, control := a.Base.Values(name, results.CPU), a.Control.Values(name, results.CPU)
	candidate := a.Candidate.Values(name, results.CPU)
	changes := blocks(logRatios(candidate, base, control), a.Slices, g.Trim)
	d := Duet{
		Name:    name,
		Change:  effectOf(changes),
		Control: effectOf(blocks(logRatios(control, base), a.Slices, g.Trim)),
		Stat:    statOf(base, candidate),
	}
	for stage := 0; stage < len(changes); stage += a.Restarts {
		d.Stages = append(d.Stages, effectOf(changes[stage:stage+a.Restarts]).Estimate)
	}
	d.P = d.Change.Worse
	d.Sees = d.Change.sees(g.Limit)
	return d
}

// judge says what a cell means, among as many in the run.
//
// A regression must be beyond the limit in both stages, which have no process
// in common, and beyond chance. What is beyond the limit in one of them, is too
// noisy, or has a control that moved, is no pass.
func (g *GatePolicy) judge(d *Duet, cells int) {
	staged := len(d.Stages) >= stagesMax
	moved := d.Control.beyond(g.Control) && d.Control.Differs*float64(cells) < g.Alpha
	beyond := 0
	for _, change := range d.Stages {
		if change > g.Limit {
			beyond++
		}
	}
	d.Suspect = !staged && (moved || beyond > 0 || d.Change.half() > g.Width)
	switch {
	case d.Change.Restarts < g.RestartsMin:
		d.conclude(Inconclusive, fmt.Sprintf("%d restarts, want %d at least", d.Change.Restarts, g.RestartsMin))
	case moved:
		d.conclude(Invalid, fmt.Sprintf("the control, which is the base, differs from it by %s", d.Control))
	case staged && beyond == len(d.Stages) && d.P < g.Alpha:
		d.conclude(Regression, fmt.Sprintf("%s in all, beyond %s in both stages", d.Change, share(g.Limit)))
	case beyond > 0 && !staged:
		d.conclude(Inconclusive, fmt.Sprintf("%s, beyond %s, but in one stage only", d.Change, share(g.Limit)))
	case d.Change.Estimate > g.Limit:
		d.conclude(Inconclusive, fmt.Sprintf("%s in all, beyond %s, but not in each stage or maybe by chance",
			d.Change, share(g.Limit)))
	case d.Change.half() > g.Width:
		d.conclude(Inconclusive, fmt.Sprintf("%s is too wide an interval, want %s to each side at most",
			d.Change, share(g.Width)))
	default:
		d.conclude(Pass, fmt.Sprintf("%s, within %s", d.Change, share(g.Limit)))
	}
}

// stagesMax is how often a suspect is measured.
const stagesMax = 2

func (d *Duet) conclude(o Outcome, why string) {
	d.outcome, d.Verdict, d.Why = o, o.String(), why
}

// ConcludeDuets sums up the cells in a sentence that says why, and what to do.
// A regression counts also beside a cell that is invalid: it was proven in its own.
func ConcludeDuets(all []Duet) (Outcome, string) {
	if len(all) == 0 {
		return Invalid, "Nothing was compared: name a scenario."
	}
	for _, row := range []struct {
		outcome Outcome
		advice  string
	}{
		{Regression, "Profile the candidate under this load, or say in the change why it is worth its cost."},
		{Invalid, "The measurement moved, not the code, so it says nothing: run it again, " +
			"and if that goes on see what `bin/harness doctor` notes of this machine."},
		{Inconclusive, "This is no pass: run it again with less beside it, or with more -restarts; " +
			"`bin/harness calibrate` tells what this machine can see."},
	} {
		for _, d := range all {
			if d.outcome == row.outcome {
				return row.outcome, fmt.Sprintf("%s: %s. %s", d.Name.Scenario, d.Why, row.advice)
			}
		}
	}
	worst := 0.0
	for _, d := range all {
		worst = max(worst, d.Sees)
	}
	return Pass, fmt.Sprintf("No scenario costs more than it may; "+
		"a change of %s for the worse would have been caught in each. Nothing is to be done.", share(worst))
}

// Suspects are the scenarios that want a second stage.
func Suspects(all []Duet) []string {
	var names []string
	for _, d := range all {
		if d.Suspect {
			names = append(names, d.Name.Scenario)
		}
	}
	return names
}
