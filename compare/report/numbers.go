package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"atlas/compare/gate"
	"atlas/results"
)

// Numbers are the parts of a document that are written from a run, by name.
var Numbers = map[string]func(io.Writer, *results.File, *results.Published){
	"machine":   machine,
	"cost":      cost,
	"published": published,
	"tables":    Tables,
}

// machine says in a sentence what was measured on what.
func machine(w io.Writer, f *results.File, _ *results.Published) {
	fmt.Fprintf(w, "Medians of %s; %s, %s cores, kernel %s, %s, closed loop by %s; commit %s, %s.\n",
		f.Setting("form"), orDash(f.Setting("cpu")), orDash(f.Setting("cores")), orDash(f.Setting("kernel")),
		orDash(f.Setting("nginx")), orDash(f.Setting("generator")), f.Setting("commit"), date(f))
}

// date is the day of a run.
func date(f *results.File) string {
	day, _, _ := strings.Cut(f.Setting("date"), "T")
	return orDash(day)
}

// cost has a row for each load and a column for each subject: what it costs as
// a multiple of the reference, and by itself; then of floor, where that was in
// the run, because what is left of it is all that a server can save.
func cost(w io.Writer, f *results.File, _ *results.Published) {
	t := &tables{f: f, reference: reference(f)}
	printTable(w, t.costRows(t.reference))
	if t.reference != "" {
		fmt.Fprintf(w, "\nMultiples of %s, which are medians of the ratios within each round, and medians.\n",
			t.reference)
	}
	if t.has(floor) {
		fmt.Fprintln(w)
		printTable(w, t.costRows(floor))
		fmt.Fprintf(w, "\nThe same as multiples of %s, %s.\n", floor, floorText)
	}
}

// floorText says what a figure is a multiple of.
const floorText = "a constant answer or a blind relay on a bare ring: what the kernel alone costs"

// costRows are costs with their multiples of a subject's, "" for none. Where it
// has none in a load, nobody has a multiple; what is nobody's is left out.
func (t *tables) costRows(to string) [][]string {
	var subjects []string
	for _, name := range t.f.Names() {
		if !slices.Contains(subjects, name.Subject) {
			subjects = append(subjects, name.Subject)
		}
	}
	rows := [][]string{append([]string{"Load", "Unit"}, subjects...)}
	seen := map[results.Name]bool{}
	for _, name := range t.f.Names() {
		if seen[name.Of("")] {
			continue
		}
		seen[name.Of("")] = true
		for _, unit := range costs {
			if to == floor && t.median(name.Of(to), unit) == 0 {
				continue
			}
			row := []string{loadOf(name), unit}
			measured := false
			for _, subject := range subjects {
				text := unmeasured
				if v := t.median(name.Of(subject), unit); v > 0 {
					text = costText(unit, t.ratio(name.Of(subject), to, unit), v)
					measured = true
				}
				row = append(row, text)
			}
			if measured {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

func costText(unit string, times, v float64) string {
	text := micros(v)
	if unit == results.Resident {
		text = bytes(v)
	}
	if times == 0 {
		return text
	}
	return fmt.Sprintf("%.2f (%s)", times, text)
}

// published has what became of each published figure.
func published(w io.Writer, f *results.File, p *results.Published) {
	t := &tables{f: f, reference: reference(f)}
	t.claims(p)
	fmt.Fprint(w, t.blocks[0].text+"\n")
	printTable(w, t.blocks[0].rows)
}

// Ratio is the cost of a subject beside another's with its interval, for a trend.
type Ratio struct {
	Load, Unit        string
	Median, Low, High float64
}

// RatiosOf are the costs of a subject beside another's of the same run, in every
// load that has both.
func RatiosOf(f *results.File, subject, to string) []Ratio {
	var all []Ratio
	for _, name := range f.Names() {
		if name.Subject != subject || to == subject {
			continue
		}
		for _, unit := range costs {
			ratios := gate.Ratios(f.Values(name, unit), f.Values(name.Of(to), unit))
			if len(ratios) == 0 {
				continue
			}
			r := Ratio{Load: loadOf(name), Unit: unit, Median: gate.Median(ratios)}
			var ok bool
			if r.Low, r.High, ok = gate.Interval(ratios); !ok {
				r.Low, r.High = r.Median, r.Median
			}
			all = append(all, r)
		}
	}
	return all
}

// yardsticks are what the costs of a run are shown as multiples of.
func yardsticks(f *results.File) []string {
	t := &tables{f: f, reference: reference(f)}
	var all []string
	for _, to := range []string{t.reference, floor} {
		if to != "" && t.has(to) {
			all = append(all, to)
		}
	}
	return all
}
