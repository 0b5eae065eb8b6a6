// Package report prints what people read: the README's tables beside ours, and
// the verdicts. It refuses to compute anything but medians and paired ratios,
// and to hide what limits a figure. It writes Markdown that also reads well in
// a terminal.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"atlas/compare/gate"
	"atlas/results"
)

// The subjects that stand for the README's two columns.
const (
	readmeAtlas = "atlas"
	readmeNginx = "nginx-readme"
)

// references are the opponents to divide by, the first that was measured. After them
// comes who is no Atlas: a server that somebody brought.
var references = []string{"nginx-best", "nginx-readme", "atlas-other", "go-nethttp"}

// Tables prints the README's tables with ours, then every scenario that the
// README does not have.
func Tables(w io.Writer, f *results.File, published *results.Published) {
	for i, b := range blocks(f, published) {
		b.print(w, i == 0)
	}
}

// A block is a part of what people read; any of it may be empty.
type block struct {
	title string
	text  string // lines
	rows  [][]string
	// scenarios are what the rows are of, where they are of every subject.
	scenarios []string
}

// print writes Markdown that also reads well in a terminal.
func (b block) print(w io.Writer, first bool) {
	if b.title != "" {
		fmt.Fprintf(w, "\n## %s\n", b.title)
	}
	if b.text != "" && !first {
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, b.text)
	if len(b.rows) > 0 {
		fmt.Fprintln(w)
		printTable(w, b.rows)
	}
}

// blocks returns all that is to be said of a run.
func blocks(f *results.File, published *results.Published) []block {
	t := &tables{f: f, reference: reference(f)}
	t.head(published)
	var shown []string
	for _, p := range published.Throughput {
		if cells := t.cells(p.Scenario); len(cells) > 0 {
			t.add(block{title: p.Title, rows: t.readmeThroughput(p, cells)})
			t.details(cells)
		}
		shown = append(shown, p.Scenario)
	}
	if cells := t.cells(published.TLS.Scenario); len(cells) > 0 {
		t.add(block{title: published.TLS.Title, rows: t.readmeTLS(published.TLS, cells)})
		t.details(cells)
	}
	shown = append(shown, published.TLS.Scenario)
	t.readmeLatency(published.Latency)
	for _, p := range published.Latency {
		t.details(t.cells(p.Scenario))
		shown = append(shown, p.Scenario)
	}
	for _, name := range f.Names() {
		if slices.Contains(shown, name.Scenario) {
			continue
		}
		shown = append(shown, name.Scenario)
		t.add(block{title: name.Scenario})
		t.details(t.cells(name.Scenario))
	}
	t.other()
	if !t.onlyCounts() {
		t.claims(published)
	}
	t.foot()
	return t.blocks
}

// tables gathers the blocks of one run.
type tables struct {
	blocks    []block
	f         *results.File
	reference string // "" if no opponent was measured
	differs   bool   // the README's own tables compare with another nginx
	unsure    bool   // some server was not saturated
	unmetered bool   // or nobody knows whether it was
}

func (t *tables) add(b block) { t.blocks = append(t.blocks, b) }

func reference(f *results.File) string {
	for _, candidate := range references {
		for _, name := range f.Names() {
			if name.Subject == candidate {
				return candidate
			}
		}
	}
	for _, name := range f.Names() {
		if name.Subject != floor && !strings.HasPrefix(name.Subject, readmeAtlas) {
			return name.Subject
		}
	}
	return ""
}

// head says what was measured and on what.
func (t *tables) head(published *results.Published) {
	var text strings.Builder
	fmt.Fprintf(&text, "Medians of %s; one worker on core %s, load on core %s, closed loop by %s.\n",
		t.f.Setting("form"), t.f.Setting("server-cores"), t.f.Setting("client-cores"), t.f.Setting("generator"))
	fmt.Fprintf(&text, "Here: %s, %s cores, kernel %s, conntrack %s, %s; commit %s, %s.\n",
		t.f.Setting("cpu"), t.f.Setting("cores"), t.f.Setting("kernel"), t.f.Setting("conntrack"),
		t.f.Setting("go"), t.f.Setting("commit"), t.f.Setting("date"))
	if tls := t.f.Setting("tls"); tls != "" {
		fmt.Fprintf(&text, "TLS: %s for every subject; nginx on %s.\n", tls, orDash(t.f.Setting("openssl")))
	}
	fmt.Fprintf(&text, "README: %s; %s. Compare ratios, not absolutes.\n",
		published.Source, published.Machine)
	t.add(block{text: text.String()})
}

// onlyCounts says whether system calls were counted and nothing else was measured.
func (t *tables) onlyCounts() bool {
	return !slices.ContainsFunc(t.f.Samples, func(s results.Sample) bool { return !s.Counts() })
}

// foot explains the marks that were used.
func (t *tables) foot() {
	var text strings.Builder
	others := slices.ContainsFunc(t.f.Names(), func(name results.Name) bool { return name.Subject != t.reference })
	if t.reference != "" && others && !t.onlyCounts() {
		fmt.Fprintf(&text, "Ratios are medians of the ratios to %s within each round.\n", t.reference)
		if t.differs {
			fmt.Fprintf(&text, "Those under Difference are to %s.\n", readmeNginx)
		}
	}
	if t.has(floor) && !t.onlyCounts() {
		fmt.Fprintf(&text, "Those to %s are to %s.\n", floor, floorText)
	}
	if t.unsure {
		fmt.Fprintf(&text, "* The server was busy for less than %.0f%% of the time: the load, the origin\n"+
			"  or a neighbour on the machine was the limit, so its requests/s and latency\n"+
			"  are not its own. CPU per request still holds.\n",
			100*results.SaturatedMin)
	}
	if t.unmetered {
		text.WriteString("? The CPU time of the server was not measured: nobody can tell whether it was the limit.\n")
	}
	if t.measured(t.f.Names(), results.Syscalls) {
		text.WriteString("System calls, and enters of an io_uring among them, were counted in a pass of its own, in\n" +
			"a closed loop by vegeta; how many there are depends on how much a server finds to do at once.\n")
	}
	t.add(block{text: text.String()})
}

// cells returns the names of a scenario, one subject after another as they
// were first measured.
func (t *tables) cells(scenario string) []results.Name {
	var cells []results.Name
	for _, name := range t.f.Names() {
		if name.Scenario == scenario {
			cells = append(cells, name)
		}
	}
	return cells
}

// readmeThroughput returns a table of the README in its own form.
func (t *tables) readmeThroughput(p results.PublishedThroughput, cells []results.Name) [][]string {
	if !t.measured(cells, results.Throughput) {
		return nil // system calls were counted, and nothing else
	}
	rows := [][]string{{"Connections", "Atlas", "nginx", "Difference", "README's"}}
	t.differs = t.has(readmeNginx) && t.reference != readmeNginx
	measured := loads(cells)
	for _, r := range p.Rows {
		if !slices.Contains(measured, r.Conns) {
			continue // not in the quick form
		}
		atlas := results.Name{Scenario: p.Scenario, Mode: "closed", Conns: r.Conns, Subject: readmeAtlas}
		rows = append(rows, []string{
			fmt.Sprint(r.Conns),
			perSecond(t.median(atlas, results.Throughput)) + t.mark(atlas),
			perSecond(t.median(atlas.Of(readmeNginx), results.Throughput)) + t.mark(atlas.Of(readmeNginx)),
			ratio(t.ratio(atlas, readmeNginx, results.Throughput)),
			ratio(r.Atlas / r.Nginx),
		})
	}
	return rows
}

// readmeTLS returns what TLS costs beside plain HTTP, for everybody.
func (t *tables) readmeTLS(p results.PublishedTLS, cells []results.Name) [][]string {
	if !t.measured(cells, results.Throughput) {
		return nil
	}
	rows := [][]string{{
		"Connections", "Subject", "Plain HTTP", "TLS", "Overhead", "Overhead in CPU/request", "README's overhead",
	}}
	for _, conns := range loads(cells) {
		for _, name := range cells {
			if name.Conns != conns {
				continue
			}
			plain := name
			plain.Scenario, plain.TLS = p.PlainBy, false
			published := unmeasured
			if name.Subject == readmeAtlas && conns == p.Conns {
				published = percent(p.Overhead())
			}
			rows = append(rows, []string{
				fmt.Sprint(conns), name.Subject,
				perSecond(t.median(plain, results.Throughput)) + t.mark(plain),
				perSecond(t.median(name, results.Throughput)) + t.mark(name),
				less(t.between(name, plain, results.Throughput)), more(t.between(name, plain, results.CPU)),
				published,
			})
		}
	}
	return rows
}

// readmeLatency adds the README's latency table, if any of it was measured.
func (t *tables) readmeLatency(published []results.PublishedLatency) {
	rows := [][]string{{"Scenario", "Atlas (avg)", "Atlas (p99)", "README's avg", "README's p99"}}
	measured := false
	for _, p := range published {
		cells := t.cells(p.Scenario)
		if len(cells) == 0 {
			continue
		}
		measured = true
		atlas := cells[0].Of(readmeAtlas)
		rows = append(rows, []string{
			p.Label, millis(t.median(atlas, results.Mean)), millis(t.median(atlas, results.P99)),
			millis(p.MeanMs * 1e6), millis(p.P99Ms * 1e6),
		})
	}
	if !measured {
		return
	}
	t.add(block{
		title: "Latency",
		text:  "Ours at a fixed rate, from the instant a request was due; the README's under an unknown load.\n",
		rows:  rows,
	})
}

// mark is "*" for requests per second that were not the server's own limit, and "?"
// where that cannot be known.
func (t *tables) mark(name results.Name) string {
	busy := t.f.Values(name, results.ServerBusy)
	measured := len(t.f.Values(name, results.ClientBusy)) > 0
	switch {
	case name.Mode == "open" || gate.Median(busy) >= results.SaturatedMin:
		return ""
	case len(busy) > 0:
		t.unsure = true
		return "*"
	case measured:
		t.unmetered = true
		return "?"
	}
	return ""
}

func (t *tables) median(name results.Name, unit string) float64 {
	return gate.Median(t.f.Values(name, unit))
}

// ratio is the median of the ratios to another subject round by round, or 0.
func (t *tables) ratio(name results.Name, to, unit string) float64 {
	return t.between(name, name.Of(to), unit)
}

// between is the median of the ratios of two cells round by round, or 0.
func (t *tables) between(name, to results.Name, unit string) float64 {
	return gate.Median(gate.Ratios(t.f.Values(name, unit), t.f.Values(to, unit)))
}

// printTable writes rows, the first being the head, with even columns.
func printTable(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for n, row := range rows {
		for i, text := range row {
			fmt.Fprintf(w, "| %s%s ", text, strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text)))
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", width+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}
