package report

import (
	"fmt"
	"slices"
	"strconv"

	"atlas/compare/gate"
	"atlas/results"
)

// otherSuffix marks the binary that a change is compared with in one run.
const otherSuffix = "-other"

// costs are the units that two binaries are compared in.
var costs = []string{results.CPU, results.HandshakeCPU, results.Resident}

// other adds what a change of Atlas costs, where both binaries were in the
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
	t.add(block{
		title: "This Atlas beside the other",
		text:  "Medians of the ratios within each round; below 1 this one costs less.\n",
		rows:  rows,
	})
}

// loadOf names a load for people.
func loadOf(name results.Name) string {
	if name.Vary != "" {
		return name.Scenario + " " + atText(name)
	}
	if name.Rate > 0 {
		return fmt.Sprintf("%s %d/s", name.Scenario, name.Rate)
	}
	return fmt.Sprintf("%s c=%d", name.Scenario, name.Conns)
}

// varied says what a scenario varies, as the title of an axis, and a value of it
// in words.
var varied = map[string]struct {
	title string
	text  func(at string) string
}{
	"length":  {"length of the body", sizeText},
	"cores":   {"cores, with a worker on each", func(at string) string { return at + " cores" }},
	"headers": {"request header fields", func(at string) string { return at + " fields" }},
}

// atText is what a name varies, in words.
func atText(name results.Name) string { return varied[name.Vary].text(name.At) }

// sizeText writes a number of bytes as KB or MB where it is one.
func sizeText(at string) string {
	n, _ := strconv.Atoi(at) // whatever is none is 0, and has no length
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return at + " B"
}

// points are the loads of some cells of a scenario, in order: names of nobody.
func points(cells []results.Name) []results.Name {
	var all []results.Name
	for _, name := range cells {
		if one := name.Of(""); !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	slices.SortStableFunc(all, func(a, b results.Name) int { return a.Conns - b.Conns })
	return all
}
