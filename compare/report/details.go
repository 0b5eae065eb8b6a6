package report

import (
	"fmt"
	"slices"

	"atlas/results"
)

// details prints every subject of some cells of one scenario, cost first.
func (t *tables) details(cells []results.Name) {
	if len(cells) == 0 {
		return
	}
	columns := t.columns(cells)
	rows := [][]string{nil}
	for _, c := range columns {
		rows[0] = append(rows[0], c.head)
	}
	for _, conns := range loads(cells) {
		for _, name := range cells {
			if name.Conns != conns {
				continue
			}
			var row []string
			for _, c := range columns {
				row = append(row, c.text(name))
			}
			rows = append(rows, row)
		}
	}
	fmt.Fprintln(t.w)
	t.print(rows)
}

// column is one figure of a cell.
type column struct {
	head string
	text func(results.Name) string
}

// columns returns what is worth knowing of a scenario, by what it counts.
func (t *tables) columns(cells []results.Name) []column {
	first := []column{
		{"Connections", func(name results.Name) string { return fmt.Sprint(name.Conns) }},
		{"Subject", func(name results.Name) string { return name.Subject }},
	}
	switch {
	case t.measured(cells, results.Resident):
		return append(first,
			t.figure("Memory/connection", results.Resident, bytes), t.relative(results.Resident),
			t.figure("Memory before", results.ResidentBefore, bytes))
	case t.measured(cells, results.HandshakeCPU):
		return append(first,
			t.figure("CPU/handshake", results.HandshakeCPU, micros), t.relative(results.HandshakeCPU),
			t.marked("Handshakes/s", results.Handshakes), t.relative(results.Handshakes),
			t.figure("Server busy", results.ServerBusy, percent), t.figure("Load busy", results.ClientBusy, percent),
			t.figure("Load's CPU/handshake", results.ClientHandshakeCPU, micros))
	case cells[0].Mode == "open":
		first[0] = column{cells[0].Scenario, func(name results.Name) string { return fmt.Sprintf("%d/s", name.Rate) }}
	}
	return append(first, t.requestColumns(cells)...)
}

// requestColumns returns the columns of a scenario that counts requests.
func (t *tables) requestColumns(cells []results.Name) []column {
	gain := t.relative(results.Throughput)
	open := cells[0].Mode == "open"
	if open {
		gain.text = func(results.Name) string { return unmeasured } // all were told the rate
	}
	columns := []column{t.figure("CPU/request", results.CPU, micros), t.relative(results.CPU)}
	if t.measured(cells, results.Bytes) {
		columns = append(columns, t.figure("MB/CPU second", results.Bytes, megabytes))
	}
	columns = append(columns, t.marked("Requests/s", results.Throughput), gain,
		t.figure("Mean", results.Mean, millis), t.figure("p99", results.P99, millis))
	if open {
		columns = append(columns, t.figure("p99 as sent", results.RawP99, millis))
	}
	return append(columns, t.figure("Server busy", results.ServerBusy, percent),
		column{"Load's CPU/request", func(name results.Name) string {
			return micros(t.median(name, results.ClientCPU) + t.median(name, results.OriginCPU))
		}})
}

// figure is the median of a unit.
func (t *tables) figure(head, unit string, text func(float64) string) column {
	return column{head, func(name results.Name) string { return text(t.median(name, unit)) }}
}

// relative is a unit's ratio to the reference.
func (t *tables) relative(unit string) column {
	return column{"to " + t.reference, func(name results.Name) string {
		return ratio(t.ratio(name, t.reference, unit))
	}}
}

// marked is a rate, with a mark where it was not the server's own limit.
func (t *tables) marked(head, unit string) column {
	return column{head, func(name results.Name) string {
		v := t.median(name, unit)
		if v == 0 {
			return unmeasured
		}
		return number(v) + t.mark(name)
	}}
}

// measured says whether any of the cells has a unit.
func (t *tables) measured(cells []results.Name, unit string) bool {
	return slices.ContainsFunc(cells, func(name results.Name) bool { return len(t.f.Values(name, unit)) > 0 })
}

// loads returns the distinct connection counts, in order.
func loads(cells []results.Name) []int {
	var counts []int
	for _, c := range cells {
		counts = append(counts, c.Conns)
	}
	slices.Sort(counts)
	return slices.Compact(counts)
}
