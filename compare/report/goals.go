package report

import (
	"errors"
	"fmt"
	"io"
	"math"

	"atlas/compare/gate"
	"atlas/results"
)

const goalsText = `
Ratios are medians of those within each round. Met or missed: the whole 95 % interval is; where the goal
lies inside it, or there are too few rounds for one, the median decides and it says "unsure".
`

// Goals prints how close a run came to the goals that it measured, and says whether it
// met them: gate.Regression is a goal that is missed, gate.Inconclusive one that is unsure.
func Goals(w io.Writer, f *results.File, all []gate.Goal) (gate.Outcome, error) {
	rows := [][]string{{"Goal", "Connections", "Unit", "Against", "Goal is", "Here", "Verdict"}}
	met, missed, unsure := 0, 0, 0
	for _, g := range all {
		for i, conns := range g.Conns {
			values, measured := goalValues(f, g, conns)
			if !measured {
				continue
			}
			bound, most := g.Bound(i)
			word := "at least "
			if most {
				word = "at most "
			}
			row := []string{
				g.About, fmt.Sprint(conns), g.Unit, orDash(g.Against + g.Beside), word + goalFigure(g, bound),
			}
			if len(values) == 0 {
				unsure++
				rows = append(rows, append(row, unmeasured, "unsure: not of the same rounds, or without "+g.Unit))
				continue
			}
			here := ratioOf(values)
			verdict := "missed"
			if reaches(here.median, bound, most) {
				verdict = "met"
			}
			low, high := reaches(here.low, bound, most), reaches(here.high, bound, most)
			switch {
			case low != high: // also where there are too few rounds
				unsure++
				verdict += ", unsure"
			case low:
				met++
			default:
				missed++
			}
			rows = append(rows, append(row, goalText(g, here), verdict))
		}
	}
	if len(rows) == 1 {
		return gate.Invalid, errors.New("the run has nothing that a goal is about")
	}
	printTable(w, rows)
	fmt.Fprint(w, goalsText)
	fmt.Fprintf(w, "goals: %d met, %d missed, %d unsure\n", met, missed, unsure)
	switch {
	case missed > 0:
		return gate.Regression, nil
	case unsure > 0:
		return gate.Inconclusive, nil
	}
	return gate.Pass, nil
}

// reaches says whether a figure is on the right side of a bound, which is on it, too.
func reaches(figure, bound float64, most bool) bool {
	return figure == bound || figure < bound == most
}

// goalValues are those of every round, divided by what the goal is against. It is
// measured if the run has both, and then without values if these do not pair.
func goalValues(f *results.File, g gate.Goal, conns int) (values []float64, measured bool) {
	name, ok := find(f, g.Scenario, g.Subject, conns)
	if !ok {
		return nil, false
	}
	against := g.Subject
	if g.Against != "" {
		against = g.Against
	}
	scenario := g.Scenario
	if g.Beside != "" {
		scenario = g.Beside
	}
	values = f.Values(name, g.Unit)
	if g.Against+g.Beside == "" {
		return values, true
	}
	other, ok := find(f, scenario, against, conns)
	return gate.Ratios(values, f.Values(other, g.Unit)), ok
}

// find is the cell of a scenario that varies nothing but the connections.
func find(f *results.File, scenario, subject string, conns int) (results.Name, bool) {
	for _, name := range f.Names() {
		if name.Scenario == scenario && name.Subject == subject && name.Conns == conns && name.Vary == "" {
			return name, true
		}
	}
	return results.Name{}, false
}

// wholeFrom is from where on a value needs no decimals.
const wholeFrom = 100

// goalFigure writes a ratio, or a value in the goal's unit.
func goalFigure(g gate.Goal, v float64) string {
	if g.Against+g.Beside == "" && v >= wholeFrom {
		return number(v)
	}
	return fmt.Sprintf("%.2f", v)
}

func goalText(g gate.Goal, here spreadRatio) string {
	if math.IsInf(here.high, 1) {
		return goalFigure(g, here.median)
	}
	return fmt.Sprintf("%s (%s to %s)", goalFigure(g, here.median), goalFigure(g, here.low), goalFigure(g, here.high))
}
