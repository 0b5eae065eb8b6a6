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

const generatorsText = "\nRatios of %s to %s are medians of those within each round, " +
	"with their 95 %% intervals; they agree\nwhere they are at most %.0f %% apart. " +
	"Requests per second decide only where the server was the limit with both.\n"

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
		"Ratio, " + by[0], by[1], "Apart", "",
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
	fmt.Fprintf(w, generatorsText, generatorsOf, generatorsTo, 100*apartMax)
	if g.unsure() {
		fmt.Fprintln(w, "* The load was the limit, or a neighbour on the machine.")
	}
	fmt.Fprintf(w, "generators: %s (%d agree, %d differ, %d cannot be told)\n",
		g.outcome(), g.agree, g.differ, g.unknown)
	return g.outcome(), nil
}

// generators counts what became of the rows.
type generators struct {
	of                     [2]*tables
	agree, differ, unknown int
}

func (g *generators) unsure() bool { return g.of[0].unsure || g.of[1].unsure }

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
	var ratios [2]spreadRatio
	var ofs, tos, quotients [2]string
	limited := false
	for i, t := range g.of {
		to := name.Of(generatorsTo)
		all := gate.Ratios(t.f.Values(name, unit), t.f.Values(to, unit))
		if len(all) == 0 {
			return nil
		}
		ratios[i] = ratioOf(all)
		ofs[i], tos[i] = text(t.median(name, unit)), text(t.median(to, unit))
		quotients[i] = ratios[i].String()
		if unit == results.Throughput {
			mark := [2]string{t.mark(name), t.mark(to)}
			ofs[i], tos[i] = ofs[i]+mark[0], tos[i]+mark[1]
			limited = limited || mark[0]+mark[1] != ""
		}
	}
	apart, verdict := ratios[1].median/ratios[0].median-1, "the load was the limit"
	if !limited {
		verdict = g.judge(apart, ratios)
	}
	return []string{
		loadOf(name), unit, ofs[0], ofs[1], tos[0], tos[1], quotients[0], quotients[1],
		fmt.Sprintf("%+.1f%%", 100*apart), verdict,
	}
}

// judge counts a row. Two ratios that are further apart than they may be, but whose
// intervals are so wide that they could agree, tell nothing.
func (g *generators) judge(apart float64, ratios [2]spreadRatio) string {
	least := ratios[1].low/ratios[0].high - 1
	most := ratios[1].high/ratios[0].low - 1
	switch {
	case math.Abs(apart) <= apartMax:
		g.agree++
		return "agree"
	case least > apartMax || most < -apartMax:
		g.differ++
		return "differ"
	}
	g.unknown++
	return "cannot be told: the intervals are too wide"
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
