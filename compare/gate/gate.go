// Package gate turns two result files into verdicts: a U test, the size of the
// difference with its interval, Holm's correction, and a tolerance by unit. It
// refuses to call "cannot tell" a pass, and to compare absolutes of different
// machines. It reads files of results and keeps nothing; all of it is pure.
package gate

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"

	"atlas/results"
)

// Verdict is what one comparison means.
type Verdict int

// The verdicts. Unknown is not a pass.
const (
	Unknown Verdict = iota
	Same
	Better
	Worse
)

func (v Verdict) String() string {
	return [...]string{"unknown", "same", "better", "worse"}[v]
}

// Change is one old/new comparison of one unit.
type Change struct {
	N1, N2 int
	P      float64 // of the U test, already corrected for the number of comparisons
	// PMin is the least P these sample sizes could have given, corrected
	// alike: at or above alpha, the test could not have failed.
	PMin float64
	// Loss is the estimated change in the unit's own direction, as a share:
	// 0.05 is 5 % worse, whichever way the unit points. LossMost is the upper
	// end of its 95 % interval.
	Loss, LossMost float64
	Tolerance      float64 // share of loss that is accepted
}

// Judge says what one old/new comparison means. c.P is already corrected for
// the number of comparisons in the run: at alpha 0.05, forty uncorrected
// comparisons make two innocent ones "regress" in every pull request.
func (p *Policy) Judge(c Change) Verdict {
	switch {
	case min(c.N1, c.N2) < p.SamplesMin:
		return Unknown // not a pass: main exits 4
	case c.PMin >= p.Alpha:
		return Unknown // a test that cannot fail
	case c.P < p.Alpha && c.Loss > c.Tolerance:
		return Worse
	case c.P < p.Alpha && c.Loss < -c.Tolerance:
		return Better
	case c.LossMost > c.Tolerance:
		return Unknown // too noisy to exclude a loss that matters
	}
	return Same // equal, or too small a difference to act on
}

// Row is one line of the comparison.
type Row struct {
	Name       results.Name
	Unit       string
	Old, New   float64 // medians, as measured
	Relative   bool    // compared as ratios to the reference of the same round
	Control    bool
	ReportOnly bool
	Change     Change
	Verdict    Verdict
	Note       string // why nothing could be compared
}

// Compare judges every subject but the reference, in every cell of old.
func Compare(old, new *results.File, p *Policy) []Row {
	var rows []Row
	for _, name := range old.Names() {
		if name.Subject == p.Reference {
			continue
		}
		for _, u := range p.Units {
			if row, ok := p.row(old, new, name, u); ok {
				rows = append(rows, row)
			}
		}
	}
	correct(rows)
	for i := range rows {
		if rows[i].Note == "" {
			rows[i].Verdict = p.Judge(rows[i].Change)
		}
	}
	return rows
}

// row compares one unit under one name. It is not ok where there is nothing to
// judge: old never had it, or it is the rate that an open loop was told.
func (p *Policy) row(old, new *results.File, name results.Name, u UnitPolicy) (Row, bool) {
	if name.Mode == "open" && u.Name == results.Throughput {
		return Row{}, false
	}
	before, after := old.Values(name, u.Name), new.Values(name, u.Name)
	if len(before) == 0 {
		return Row{}, false
	}
	row := Row{
		Name: name, Unit: u.Name,
		Old: Median(before), New: Median(after),
		Control: name.Subject == p.Control, ReportOnly: u.ReportOnly,
	}
	if len(after) == 0 {
		row.Note = "missing in the new file"
		return row, true
	}
	oldRatios := Ratios(before, old.Values(name.Of(p.Reference), u.Name))
	newRatios := Ratios(after, new.Values(name.Of(p.Reference), u.Name))
	switch {
	case oldRatios != nil && newRatios != nil:
		row.Relative = true
		before, after = oldRatios, newRatios
	case old.Setting("env-hash") != new.Setting("env-hash"):
		row.Note = fmt.Sprintf("other machine, and no %s beside it", p.Reference)
		return row, true
	}
	unit, _ := results.UnitNamed(u.Name) // Policy.check knows the unit
	row.Change = change(before, after, unit.Better)
	row.Change.Tolerance = u.Tolerance
	return row, true
}

// change compares two sets of samples; better is the unit's direction.
func change(before, after []float64, better int) Change {
	sample := func(values []float64) *benchmath.Sample {
		// NewSample sorts in place.
		return benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	}
	estimate, most := loss(before, after, better)
	return Change{
		N1: len(before), N2: len(after),
		P:    benchmath.AssumeNothing.Compare(sample(before), sample(after)).P,
		PMin: pMin(len(before), len(after)),
		Loss: estimate, LossMost: most,
	}
}

// z95 is the 97.5th percentile of the normal distribution.
const z95 = 1.96

// loss estimates by how much after is worse than before, as a share, with the
// upper end of the 95 % interval: the median of all pairwise log ratios
// (Hodges and Lehmann), and the order statistic that belongs to the U test.
func loss(before, after []float64, better int) (estimate, most float64) {
	n, m := float64(len(before)), float64(len(after))
	var logs []float64
	for _, b := range before {
		for _, a := range after {
			if better > 0 {
				logs = append(logs, math.Log(b/a))
			} else {
				logs = append(logs, math.Log(a/b))
			}
		}
	}
	slices.Sort(logs)
	half := z95 * math.Sqrt(n*m*(n+m+1)/12)
	top := min(int(math.Ceil(n*m/2+half)), len(logs)-1)
	return math.Exp(Median(logs)) - 1, math.Exp(logs[top]) - 1
}

// pMin is the two-sided P of the U test for fully separated samples: 2 over
// the ways to choose one of the sets from their union.
func pMin(n, m int) float64 {
	ways := 1.0
	for i := range n {
		ways *= float64(m+i+1) / float64(i+1)
	}
	return min(1, 2/ways)
}

// correct applies Holm's correction to the rows that can decide: the smallest
// P is multiplied by their number, the next by one less, and so on, and no
// corrected P is smaller than the one before. Rows that are only reported are
// left as they are.
func correct(rows []Row) {
	var deciding []*Row
	for i := range rows {
		if rows[i].Note == "" && !rows[i].ReportOnly {
			deciding = append(deciding, &rows[i])
		}
	}
	slices.SortStableFunc(deciding, func(a, b *Row) int {
		return int(math.Copysign(1, a.Change.P-b.Change.P))
	})
	floor := 0.0
	for i, row := range deciding {
		floor = max(floor, min(1, row.Change.P*float64(len(deciding)-i)))
		row.Change.P = floor
		row.Change.PMin = min(1, row.Change.PMin*float64(len(deciding)))
	}
}

// Outcome is what a whole comparison means.
type Outcome int

// The outcomes; their numbers are the exit statuses of compare.
const (
	Pass         Outcome = 0
	Regression   Outcome = 1
	Invalid      Outcome = 3
	Inconclusive Outcome = 4
)

func (o Outcome) String() string {
	switch o {
	case Pass:
		return "pass"
	case Regression:
		return "regression"
	case Invalid:
		return "invalid"
	case Inconclusive:
		return "inconclusive"
	}
	return fmt.Sprintf("outcome %d", int(o))
}

// Conclude sums up the rows, with the reason.
func Conclude(rows []Row) (Outcome, string) {
	count := map[Verdict]int{}
	for _, row := range rows {
		if row.ReportOnly {
			continue
		}
		if row.Control && (row.Verdict == Worse || row.Verdict == Better) {
			return Invalid, fmt.Sprintf("the control %s moved in %s: the measurement changed, not the code",
				row.Name.Subject, row.Name.Scenario)
		}
		if !row.Control {
			count[row.Verdict]++
		}
	}
	reason := fmt.Sprintf("%d worse, %d unknown, %d better, %d same",
		count[Worse], count[Unknown], count[Better], count[Same])
	switch {
	case len(count) == 0:
		return Invalid, "nothing was compared"
	case count[Worse] > 0:
		return Regression, reason
	case count[Unknown] > 0:
		return Inconclusive, reason
	}
	return Pass, reason
}
