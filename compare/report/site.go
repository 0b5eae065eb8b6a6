package report

import (
	"fmt"
	"html/template"
	"io"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"atlas/compare/gate"
	"atlas/results"
)

// Entry is a run in the list of all.
type Entry struct {
	Name    string // of the run, as in addresses
	Commit  string
	Date    string
	Form    string
	Machine string // its env-hash: absolutes compare within one
	Broken  string // why it cannot be read, "" if it can
	File    *results.File
}

// NewEntry describes a run.
func NewEntry(name string, f *results.File) Entry {
	return Entry{
		Name: name, File: f, Commit: orDash(f.Setting("commit")), Date: orDash(f.Setting("date")),
		Form: orDash(f.Setting("form")), Machine: orDash(f.Setting("env-hash")),
	}
}

// sitePage is a page beside those of single runs.
type sitePage struct {
	Title    string
	Style    template.CSS
	Home     bool
	Entries  []Entry
	Gates    []Gate
	Text     []string
	Outcome  string
	Tables   []table
	Charts   []chart
	Old, New string
}

// Index writes the list of runs, from which two are chosen to be compared, and that
// of gates.
func Index(w io.Writer, entries []Entry, gates []Gate) error {
	return show(w, "index.html", sitePage{Title: "Runs of the lab", Style: style(), Entries: entries, Gates: gates})
}

// Comparison writes what the verdict on two runs is.
func Comparison(w io.Writer, old, new Entry, rows []gate.Row, outcome gate.Outcome, reason string) error {
	p := sitePage{
		Title: "From " + old.Name + " to " + new.Name, Style: style(), Home: true,
		Text:    append(changed(old.File, new.File), verdictText),
		Outcome: fmt.Sprintf("%s: %s", outcome, reason),
		Tables:  []table{{Head: verdictHead(), Rows: verdictLines(rows)}},
	}
	for _, to := range yardsticks(new.File) {
		var loads []string
		var all []multiple
		for colour, one := range []Entry{old, new} {
			for _, r := range RatiosOf(one.File, readmeAtlas, to) {
				all = append(all, multiple{
					subjectMark: subjectMark{Name: readmeAtlas + " in " + one.Name, Colour: colour},
					load:        r.Load, median: r.Median, low: r.Low, high: r.High,
				})
				if !slices.Contains(loads, r.Load) {
					loads = append(loads, r.Load)
				}
			}
		}
		if len(all) == 0 {
			continue
		}
		c, err := multiples("Cost of Atlas beside "+to, to, loads, all)
		if err != nil {
			return err
		}
		p.Charts = append(p.Charts, c)
	}
	return show(w, "compare.html", p)
}

// Trend writes how the cost of Atlas beside the reference, and beside floor, went
// from run to run.
func Trend(w io.Writer, entries []Entry) error {
	p := sitePage{Title: "Trend", Style: style(), Home: true, Text: []string{
		"The cost of Atlas beside the reference and floor of the same run, which compares across days and machines. " +
			"Dots are medians of the ratios within each round, lines their 95 % intervals.",
	}}
	var loads []string
	points := map[string][]trendPoint{}
	for i, e := range entries {
		for _, to := range yardsticks(e.File) {
			for _, r := range RatiosOf(e.File, readmeAtlas, to) {
				key := r.Load + " to " + to + ", " + r.Unit
				if !slices.Contains(loads, key) {
					loads = append(loads, key)
				}
				points[key] = append(points[key], trendPoint{run: i, entry: e, Ratio: r})
			}
		}
	}
	slices.Sort(loads)
	t := table{Head: []string{"Load", "Run", "Commit", "Date", "Ratio", "95% interval"}}
	for _, key := range loads {
		c, err := trend(key, points[key])
		if err != nil {
			return err
		}
		p.Charts = append(p.Charts, c)
		for _, point := range points[key] {
			t.Rows = append(t.Rows, []string{
				key, point.entry.Name, point.entry.Commit, point.entry.Date,
				fmt.Sprintf("%.3f", point.Median), fmt.Sprintf("%.3f to %.3f", point.Low, point.High),
			})
		}
	}
	if len(t.Rows) == 0 {
		p.Text = []string{"No run has Atlas beside another server yet."}
		return show(w, "compare.html", p)
	}
	p.Tables = append(p.Tables, t)
	return show(w, "compare.html", p)
}

type trendPoint struct {
	Ratio
	run   int
	entry Entry
}

// trend draws one load over the runs, the oldest on the left.
func trend(title string, points []trendPoint) (chart, error) {
	p := newPlot("commit, oldest first", "ratio")
	p.Add(grid(false, true))
	line := make(plotter.XYs, len(points))
	var ticks plot.ConstantTicks
	// As many commits as there is room for.
	every := (len(points) + 3) / 4
	for i, point := range points {
		line[i] = plotter.XY{X: float64(i), Y: point.Median}
		if i%every == 0 {
			commit := point.entry.Commit
			ticks = append(ticks, plot.Tick{Value: float64(i), Label: commit[:min(7, len(commit))]})
		}
		interval, err := plotter.NewLine(plotter.XYs{{X: float64(i), Y: point.Low}, {X: float64(i), Y: point.High}})
		if err != nil {
			return chart{}, err
		}
		interval.Color = solid(0)
		p.Add(interval)
	}
	medians, err := plotter.NewLine(line)
	if err != nil {
		return chart{}, err
	}
	medians.Color, medians.Width = pale(0), 1
	dots, err := dotsOf(line, 0)
	if err != nil {
		return chart{}, err
	}
	p.Add(medians, dots)
	p.X.Min, p.X.Max, p.X.Tick.Marker = -0.5, float64(len(points))-0.5, ticks
	p.Y.Min, p.Y.Max, p.Y.Tick.Marker = 0, p.Y.Max*1.1, plain{}
	c := chart{Title: title}
	c.About = fmt.Sprintf("%s: %d runs, the last %.3f", title, len(points), points[len(points)-1].Median)
	c.SVG, err = svg(p, chartHeight, c.About)
	return c, err
}
