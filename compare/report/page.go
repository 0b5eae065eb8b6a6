package report

import (
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"

	"atlas/compare/gate"
	"atlas/results"
)

//go:embed page
var pageFiles embed.FS

// Run is all that is kept of one run.
type Run struct {
	File       *results.File
	Histograms []results.Histogram // none where nothing kept them
	Manifest   *results.Manifest   // nil where it is missing
}

// OpenRun reads a results file and what stands beside it.
func OpenRun(bench string) (*Run, error) {
	f, err := results.Open(bench)
	if err != nil {
		return nil, err
	}
	r := &Run{File: f}
	if r.Histograms, err = results.OpenHistograms(bench); err != nil {
		return nil, err
	}
	r.Manifest, err = results.OpenManifest(bench)
	return r, err
}

// page is what the template shows.
type page struct {
	Title    string
	Style    template.CSS
	Home     bool // there are other pages to go back to
	Head     []string
	Legend   []subjectMark
	Overview []chart
	Sections []section
	Foot     []string
	Facts    []fact
	Notes    []string
	// NoHistograms says why there are no latency curves.
	NoHistograms bool
	// OnlyCounts says that nothing was measured but system calls.
	OnlyCounts bool
}

// fact is a line of the table of the machine.
type fact struct {
	Key, Value, Of string
}

// section is what there is of a scenario.
type section struct {
	ID, Title string
	Text      []string
	Charts    []chart
	Tables    []table
}

// table is a head and rows.
type table struct {
	Head []string
	Rows [][]string
}

// Page writes a page of HTML that needs nothing beside it: tables, charts, the
// machine's facts. It reads well on a phone and in the dark.
func Page(w io.Writer, r *Run, published *results.Published, home bool) error {
	p, err := newPage(r, published)
	if err != nil {
		return err
	}
	p.Home = home
	return show(w, "run.html", p)
}

// show fills a template of page/.
func show(w io.Writer, name string, content any) error {
	t, err := template.ParseFS(pageFiles, "page/frame.html", "page/"+name)
	if err != nil {
		return err
	}
	return t.ExecuteTemplate(w, name, content)
}

// style is the stylesheet of every page.
func style() template.CSS {
	text, _ := pageFiles.ReadFile("page/page.css") // embedded
	return template.CSS(text)
}

func newPage(r *Run, published *results.Published) (*page, error) {
	d := &drawing{run: r, tables: &tables{f: r.File, reference: reference(r.File)}}
	d.number()
	p := &page{
		Title:        fmt.Sprintf("Lab run %s", orDash(r.File.Setting("run"))),
		Style:        style(),
		Legend:       d.subjects,
		NoHistograms: len(r.Histograms) == 0,
		OnlyCounts:   d.tables.onlyCounts(),
	}
	var err error
	if p.Overview, err = d.overview(); err != nil {
		return nil, err
	}
	all := blocks(r.File, published)
	p.Head, p.Foot = lines(all[0].text), lines(all[len(all)-1].text)
	for _, b := range all[1 : len(all)-1] {
		if b.title != "" {
			p.Sections = append(p.Sections, section{ID: slug(b.title), Title: b.title, Text: lines(b.text)})
		}
		s := &p.Sections[len(p.Sections)-1]
		if len(b.rows) > 0 {
			s.Tables = append(s.Tables, table{Head: b.rows[0], Rows: b.rows[1:]})
		}
		for _, scenario := range b.scenarios {
			drawn, err := d.scenario(scenario)
			if err != nil {
				return nil, err
			}
			s.Charts = append(s.Charts, drawn...)
		}
	}
	p.explain(r)
	return p, nil
}

// explain adds what is known of the machine and of the run.
func (p *page) explain(r *Run) {
	for _, s := range r.File.Settings {
		p.Facts = append(p.Facts, fact{Key: s.Key, Value: s.Value, Of: "run"})
	}
	if r.Manifest == nil {
		return
	}
	for _, f := range r.Manifest.Facts {
		if r.File.Setting(f.Key) == "" {
			p.Facts = append(p.Facts, fact{Key: f.Key, Value: f.Value, Of: "machine"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Manifest.Subjects)) {
		p.Facts = append(p.Facts, fact{Key: name, Value: r.Manifest.Subjects[name], Of: "configuration's hash"})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Manifest.Foreign)) {
		where := cmp.Or(r.Manifest.Foreign[name].URL, r.Manifest.Foreign[name].Program)
		p.Facts = append(p.Facts, fact{Key: name, Value: where, Of: "server that was brought"})
	}
	for _, name := range slices.Sorted(maps.Keys(r.Manifest.Scenarios)) {
		p.Facts = append(p.Facts, fact{Key: name, Value: r.Manifest.Scenarios[name], Of: "scenario's hash"})
	}
	p.Facts = append(p.Facts, fact{Key: "command", Value: strings.Join(r.Manifest.Argv, " "), Of: "run"})
	p.Notes = append(p.Notes, r.Manifest.Warnings...)
	for _, step := range r.Manifest.Order {
		if step.Refused != "" {
			p.Notes = append(p.Notes, fmt.Sprintf("refused: %s, round %d: %s", step.Name, step.Round+1, step.Refused))
		}
	}
}

// lines are the lines of a text, where it has any.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// slug is a title for an address.
func slug(title string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, title), "-")
}

// drawing makes the charts of a run, in which a subject has one colour.
type drawing struct {
	run      *Run
	tables   *tables
	subjects []subjectMark
}

// number gives each subject its colour.
func (d *drawing) number() {
	for _, name := range d.run.File.Names() {
		if d.mark(name.Subject).Name == "" {
			d.subjects = append(d.subjects, subjectMark{Name: name.Subject, Colour: len(d.subjects) % coloursMax})
		}
	}
}

func (d *drawing) mark(subject string) subjectMark {
	for _, s := range d.subjects {
		if s.Name == subject {
			return s
		}
	}
	return subjectMark{}
}

// overview draws the cost of everybody beside the reference, and beside floor.
func (d *drawing) overview() ([]chart, error) {
	var drawn []chart
	for _, to := range yardsticks(d.run.File) {
		loads, all := d.multiplesOf(to)
		if len(all) == 0 {
			continue
		}
		c, err := multiples("Cost of everybody beside "+to, to, loads, all)
		if err != nil {
			return nil, err
		}
		drawn = append(drawn, c)
	}
	return drawn, nil
}

// multiplesOf divides the costs of everybody by one subject's, round by round.
func (d *drawing) multiplesOf(to string) (loads []string, all []multiple) {
	f := d.run.File
	for _, name := range f.Names() {
		if name.Subject == to {
			continue
		}
		for _, unit := range costs {
			ratios := gate.Ratios(f.Values(name, unit), f.Values(name.Of(to), unit))
			if len(ratios) == 0 {
				continue
			}
			m := multiple{subjectMark: d.mark(name.Subject), load: loadOf(name), median: gate.Median(ratios)}
			var ok bool
			if m.low, m.high, ok = gate.Interval(ratios); !ok {
				m.low, m.high = m.median, m.median
			}
			if all = append(all, m); !slices.Contains(loads, m.load) {
				loads = append(loads, m.load)
			}
		}
	}
	return loads, all
}

// pointsFew are drawn one by one; of more there are curves only.
const pointsFew = 3

// scenario draws what was measured of a scenario.
func (d *drawing) scenario(scenario string) ([]chart, error) {
	cells := d.tables.cells(scenario)
	all := points(cells)
	var drawn []chart
	for _, u := range charted {
		c := curve{title: u.title, axis: u.axis, scale: u.scale, points: all, series: map[results.Name][]series{}}
		for _, point := range all {
			here := d.seriesOf(cells, point, u.unit)
			if len(here) == 0 {
				continue
			}
			c.series[point] = here
			if len(all) > pointsFew {
				continue
			}
			one, err := spread(u.title+", "+pointText(point), u.axis, u.scale, here, u.label)
			if err != nil {
				return nil, err
			}
			drawn = append(drawn, one)
		}
		if len(c.series) != len(all) || len(all) < 2 {
			continue
		}
		line, err := c.draw()
		if err != nil {
			return nil, err
		}
		drawn = append(drawn, line)
	}
	beside, err := d.besideFloor(cells)
	if err != nil {
		return nil, err
	}
	latencies, err := d.latencies(cells)
	return append(append(drawn, beside...), latencies...), err
}

// pointText names a load within its scenario.
func pointText(point results.Name) string {
	switch {
	case point.Vary != "":
		return atText(point)
	case point.Mode == "open":
		return loadOf(point)
	}
	return fmt.Sprintf("%d connections", point.Conns)
}

// besideFloor draws the cost of everybody as a multiple of floor's over the points
// of a scenario, where that had all of them: what it rises by is the server's own.
func (d *drawing) besideFloor(cells []results.Name) ([]chart, error) {
	c := curve{title: "CPU per request, times " + floor, axis: "times", scale: 1, points: points(cells),
		series: map[results.Name][]series{}}
	for _, point := range c.points {
		for _, name := range cells {
			ratios := gate.Ratios(d.run.File.Values(name, results.CPU), d.run.File.Values(name.Of(floor), results.CPU))
			if name.Of("") != point || name.Subject == floor || len(ratios) == 0 {
				continue
			}
			c.series[point] = append(c.series[point],
				series{subjectMark: d.mark(name.Subject), values: ratios, median: gate.Median(ratios)})
		}
	}
	if len(c.series) != len(c.points) || len(c.points) < 2 {
		return nil, nil
	}
	c.linear = true
	drawn, err := c.draw()
	return []chart{drawn}, err
}

// seriesOf is one unit of every subject under a load. The rate of an open loop is
// what it was told, so there is nothing to see, unless the rest was shed.
func (d *drawing) seriesOf(cells []results.Name, point results.Name, unit string) []series {
	var all []series
	for _, name := range cells {
		values := d.run.File.Values(name, unit)
		if name.Of("") != point || len(values) == 0 || name.Mode == "open" && unit == results.Throughput &&
			len(d.run.File.Values(name, results.Shed)) == 0 {
			continue
		}
		all = append(all, series{subjectMark: d.mark(name.Subject), values: values, median: gate.Median(values)})
	}
	return all
}

// latencies draws the distributions, where they were kept.
func (d *drawing) latencies(cells []results.Name) ([]chart, error) {
	var drawn []chart
	for _, point := range points(cells) {
		var all []distribution
		title := ""
		for _, name := range cells {
			one := distribution{
				subjectMark: d.mark(name.Subject),
				corrected:   results.Merged(d.run.Histograms, name, results.Corrected),
				raw:         results.Merged(d.run.Histograms, name, results.Raw),
			}
			if name.Of("") != point || one.corrected == nil && one.raw == nil {
				continue
			}
			all = append(all, one)
			title = "Latency, " + pointText(point)
			if name.Mode == "open" {
				title = fmt.Sprintf("Latency, %s: whole lines from when due, broken ones as sent", loadOf(name))
			}
		}
		if len(all) == 0 {
			continue
		}
		c, err := quantiles(title, all)
		if err != nil {
			return nil, err
		}
		drawn = append(drawn, c)
	}
	return drawn, nil
}
