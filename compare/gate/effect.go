package gate

import (
	"fmt"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Effect is the size of a difference in cost, as a share: 0.05 is 5 % more. It
// rests on one value a restart, so that what a restart changes (where a process
// lies in memory, which connection came first) is in the interval: within a
// restart slices are alike, and their number would promise too much.
type Effect struct {
	Estimate float64 `json:"estimate"`
	Low      float64 `json:"low"` // 95 % interval, by Student's t
	High     float64 `json:"high"`
	Worse    float64 `json:"p_worse"`   // p of no change or one for the better
	Differs  float64 `json:"p_differs"` // p of no change
	Restarts int     `json:"restarts"`
	mean     float64 // of logarithms of ratios
	error    float64 // of the mean
}

// Apart is by how much ratios differ from others of the same rounds: each pair is a
// ratio of its own, and the rounds take the place of restarts.
func Apart(ratios, others []float64) Effect { return effectOf(logRatios(ratios, others)) }

// effectOf is of the restarts' log ratios.
func effectOf(logs []float64) Effect {
	n := len(logs)
	if n < 2 {
		return Effect{Low: math.Inf(-1), High: math.Inf(1), Worse: 1, Differs: 1, Restarts: n}
	}
	mean, deviation := stat.MeanStdDev(logs, nil)
	e := Effect{Estimate: math.Expm1(mean), Restarts: n, mean: mean, error: stat.StdErr(deviation, float64(n))}
	student := student(n)
	half := student.Quantile(1-(1-confidence)/2) * e.error
	e.Low, e.High = math.Expm1(mean-half), math.Expm1(mean+half)
	// Without any spread the quotient has no meaning: equal values are equal.
	t := 0.0
	if mean != 0 {
		t = mean / e.error
	}
	e.Worse = student.Survival(t)
	e.Differs = 2 * student.Survival(math.Abs(t))
	return e
}

func student(n int) distuv.StudentsT { return distuv.StudentsT{Mu: 0, Sigma: 1, Nu: float64(n - 1)} }

func (e Effect) String() string {
	return fmt.Sprintf("%+.1f %% (%+.1f to %+.1f %%)", 100*e.Estimate, 100*e.Low, 100*e.High)
}

// half is half the width of the interval.
func (e Effect) half() float64 { return (e.High - e.Low) / 2 }

// beyond says whether the difference is larger than a share, either way.
func (e Effect) beyond(share float64) bool { return math.Abs(e.Estimate) > share }

// sees is the change that this noise leaves beyond a limit 19 times of 20.
func (e Effect) sees(limit float64) float64 {
	if e.Restarts < 2 {
		return math.Inf(1)
	}
	return math.Expm1(math.Log1p(limit) + student(e.Restarts).Quantile(confidence)*e.error)
}

// share writes 0.025 as "2.5 %".
func share(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }

// logRatios are the logarithms of values by the geometric mean of others, slice
// by slice.
func logRatios(values []float64, others ...[]float64) []float64 {
	logs := make([]float64, len(values))
	for i, v := range values {
		logs[i] = math.Log(v)
		for _, other := range others {
			logs[i] -= math.Log(other[i]) / float64(len(others))
		}
	}
	return logs
}

// blocks are the trimmed means of each so many values.
func blocks(values []float64, length int, trim float64) []float64 {
	var means []float64
	for block := range slices.Chunk(values, length) {
		sorted := slices.Sorted(slices.Values(block))
		cut := int(trim * float64(len(sorted)))
		means = append(means, stat.Mean(sorted[cut:len(sorted)-cut], nil))
	}
	return means
}

// holm corrects P for the number of cells: the smallest is multiplied by their
// number, the next by one less, and none is smaller than the one before.
func holm(all []Duet) {
	order := make([]*Duet, len(all))
	for i := range all {
		order[i] = &all[i]
	}
	slices.SortStableFunc(order, func(a, b *Duet) int { return int(math.Copysign(1, a.P-b.P)) })
	floor := 0.0
	for i, d := range order {
		floor = max(floor, min(1, d.P*float64(len(order)-i)))
		d.P = floor
	}
}

// Stat is what benchstat says of base and candidate: it takes each slice for a
// measurement of its own and does not pair them, so a drift of the machine hides
// from it what the pairs show. It is there for those who trust it.
type Stat struct {
	Old      float64 `json:"old"` // median, nanoseconds
	OldRange string  `json:"old_range"`
	New      float64 `json:"new"`
	NewRange string  `json:"new_range"`
	Delta    string  `json:"delta"` // "~" where p is too large
	P        string  `json:"p"`     // and n
}

// statOf computes with benchstat's own packages, thresholds and assumptions.
func statOf(before, after []float64) Stat {
	thresholds := benchmath.DefaultThresholds
	sample := func(values []float64) *benchmath.Sample {
		return benchmath.NewSample(slices.Clone(values), &thresholds) // it sorts in place
	}
	a, b := sample(before), sample(after)
	old, now := benchmath.AssumeNothing.Summary(a, confidence), benchmath.AssumeNothing.Summary(b, confidence)
	c := benchmath.AssumeNothing.Compare(a, b)
	return Stat{
		Old: old.Center, OldRange: old.PctRangeString(), New: now.Center, NewRange: now.PctRangeString(),
		Delta: c.FormatDelta(old.Center, now.Center), P: c.String(),
	}
}
