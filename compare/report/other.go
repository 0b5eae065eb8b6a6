package report

import (
	"fmt"

	"atlas/compare/gate"
	"atlas/results"
)

// otherSuffix marks the binary that a change is compared with in one run.
const otherSuffix = "-other"

// costs are the units that two binaries are compared in.
var costs = []string{results.CPU, results.HandshakeCPU, results.Resident}

// other prints what a change of Atlas costs, where both binaries were in the
// run. The two were measured in the same rounds, so the ratios pair.
func (t *tables) other() {
	rows := [][]string{{"Load", "Subject", "Unit", "Other", "This", "Ratio", "95% interval", "Rounds"}}
	for _, name := range t.f.Names() {
		than := name.Of(name.Subject + otherSuffix)
		for _, unit := range costs {
			ratios := gate.Ratios(t.f.Values(name, unit), t.f.Values(than, unit))
			if len(ratios) == 0 {
				continue
			}
			interval := "too few rounds"
			if low, high, ok := gate.Interval(ratios); ok {
				interval = fmt.Sprintf("%.3f to %.3f", low, high)
			}
			rows = append(rows, []string{
				loadOf(name), name.Subject, unit,
				number(t.median(than, unit)), number(t.median(name, unit)),
				fmt.Sprintf("%.3f", gate.Median(ratios)), interval, fmt.Sprint(len(ratios)),
			})
		}
	}
	if len(rows) == 1 {
		return
	}
	fmt.Fprint(t.w, "\n## This Atlas beside the other\n\n"+
		"Medians of the ratios within each round; below 1 this one costs less.\n\n")
	t.print(rows)
}

// loadOf names a load for people.
func loadOf(name results.Name) string {
	if name.Rate > 0 {
		return fmt.Sprintf("%s %d/s", name.Scenario, name.Rate)
	}
	return fmt.Sprintf("%s c=%d", name.Scenario, name.Conns)
}
