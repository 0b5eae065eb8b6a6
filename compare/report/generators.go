package report

import (
	"fmt"
	"io"
	"math"

	"atlas/compare/gate"
	"atlas/results"
)

// apartMax is by how much two generators may differ in a ratio of two servers: more,
// and it is a ratio of what the generators do to them.
const apartMax = 0.05

// The servers whose ratio is compared.
const (
	generatorsOf = readmeAtlas
	generatorsTo = "nginx-best"
)

const generatorsText = "\nRatios of %s to %s are medians of those within each round, with their 95 %% intervals. " +
	"They agree where the\n95 %% interval of how far they are apart, of the ratio of both in each round, " +
	"lies within %.0f %%. That decides only\nwhere the servers were the limit with both generators: where the " +
	"core of the less busy one was so for at least %.0f %%.\n"

// generatorUnits are what is compared: both count what a server did.
var generatorUnits = []struct {
	name string
	text func(float64) string
}{{results.CPU, micros}, {results.Throughput, number}}

// Generators prints what two runs of the closed loop, each by another generator, make
// of Atlas beside nginx, and says whether the ratios agree.
func Generators(w io.Writer, a, b *results.File) (gate.Outcome, error) {
	by := [2]string{a.Setting("generator"), b.Setting("generator")}
	if by[0] == by[1] {
		return gate.Invalid, fmt.Errorf(
			"both runs are by %s: run once with -generator wrk and once with -generator vegeta", orDash(by[0]))
	}
	g := &generators{of: [2]*tables{{f: a}, {f: b}}}
	rows := [][]string{{
		"Load", "Unit", generatorsOf + ", " + by[0], by[1], generatorsTo + ", " + by[0], by[1],
		"Busy, " + by[0], by[1], "Ratio, " + by[0], by[1], "Apart", "",
	}}
	for _, name := range a.Names() {
		if name.Subject != generatorsOf || name.Mode != "closed" {
			continue
		}
		for _, unit := range generatorUnits {
			if row := g.row(name, unit.name, unit.text); row != nil {
				rows = append(rows, row)
			}
		}
	}
	if len(rows) == 1 {
		return gate.Invalid, fmt.Errorf(
			"no load of the closed loop has %s and %s in both runs", generatorsOf, generatorsTo)
	}
	printTable(w, rows)
	fmt.Fprintf(w, generatorsText, generatorsOf, generatorsTo, 100*apartMax, 100*results.SaturatedMin)
	fmt.Fprintf(w, "generators: %s (%d agree, %d differ, %d cannot be told)\n",
		g.outcome(), g.agree, g.differ, g.unknown)
	return g.outcome(), nil
}

// generators counts what became of the rows.
type generators struct {
	of                     [2]*tables
	agree, differ, unknown int
}

// outcome: a difference says that one of the two measures something else.
func (g *generators) outcome() gate.Outcome {
	switch {
	case g.differ > 0:
		return gate.Invalid
	case g.unknown > 0 || g.agree == 0:
		return gate.Inconclusive
	}
	return gate.Pass
}

// row is one unit of one load, or nil where a run has not both servers.
func (g *generators) row(name results.Name, unit string, text func(float64) string) []string {
	var ratios [2][]float64
	var ofs, tos, busy, quotients [2]string
	limited := false
	for i, t := range g.of {
		to := name.Of(generatorsTo)
		ratios[i] = gate.Ratios(t.f.Values(name, unit), t.f.Values(to, unit))
		if len(ratios[i]) == 0 {
			return nil
		}
		ofs[i], tos[i] = text(t.median(name, unit)), text(t.median(to, unit))
		quotients[i] = ratioOf(ratios[i]).String()
		busy[i] = unmeasured
		if least, known := leastBusy(t.f, name, to); known {
			busy[i] = percent(least)
			limited = limited || least < results.SaturatedMin
		}
	}
	apart, verdict := unmeasured, "the load was the limit"
	switch {
	case len(ratios[0]) != len(ratios[1]):
		g.unknown++
		verdict = "cannot be told: the rounds are not as many"
	case len(ratios[0]) < 2:
		g.unknown++
		verdict = "cannot be told: it takes more rounds"
	default:
		effect := gate.Apart(ratios[1], ratios[0])
		apart = effect.String()
		if !limited {
			verdict = g.judge(effect)
		}
	}
	return []string{
		loadOf(name), unit, ofs[0], ofs[1], tos[0], tos[1], busy[0], busy[1],
		quotients[0], quotients[1], apart, verdict,
	}
}

// leastBusy is how busy the core of a server was, of the one where that was less: the
// median over the rounds. Servers that were loaded at once have one core together.
func leastBusy(f *results.File, of, to results.Name) (least float64, known bool) {
	a, b := f.Values(of, results.ServerBusy), f.Values(to, results.ServerBusy)
	if len(a) == 0 || len(b) == 0 {
		return 0, false
	}
	if !results.Together(f) {
		return min(gate.Median(a), gate.Median(b)), true
	}
	sums := make([]float64, len(a))
	for _, name := range f.Names() {
		if name.Of("") != of.Of("") {
			continue
		}
		for round, v := range f.Values(name, results.ServerBusy) {
			sums[min(round, len(sums)-1)] += v // as many of each, by how they are stored
		}
	}
	return gate.Median(sums), true
}

// judge counts a row. Nothing is told by an interval on both sides of what is allowed.
func (g *generators) judge(apart gate.Effect) string {
	switch {
	case apart.Low >= -apartMax && apart.High <= apartMax:
		g.agree++
		return "agree"
	case apart.Low > apartMax || apart.High < -apartMax:
		g.differ++
		return "differ"
	}
	g.unknown++
	return "cannot be told: the interval is too wide"
}

// spreadRatio is the median of some ratios with its interval, which is the whole line
// where there are too few of them.
type spreadRatio struct{ median, low, high float64 }

func ratioOf(all []float64) spreadRatio {
	r := spreadRatio{median: gate.Median(all)}
	var ok bool
	if r.low, r.high, ok = gate.Interval(all); !ok {
		r.low, r.high = 0, math.Inf(1)
	}
	return r
}

func (r spreadRatio) String() string {
	if math.IsInf(r.high, 1) {
		return fmt.Sprintf("%.2f", r.median)
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", r.median, r.low, r.high)
}
