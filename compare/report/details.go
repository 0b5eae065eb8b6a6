package report

import (
	"fmt"
	"slices"
	"strings"

	"atlas/results"
)

// details adds every subject of some cells of one scenario, cost first.
func (t *tables) details(cells []results.Name) {
	if len(cells) == 0 {
		return
	}
	columns := slices.DeleteFunc(t.columns(cells), func(c column) bool { return t.empty(c, cells) })
	rows := [][]string{nil}
	for _, c := range columns {
		rows[0] = append(rows[0], c.head)
	}
	for _, point := range points(cells) {
		for _, name := range cells {
			if name.Of("") != point {
				continue
			}
			var row []string
			for _, c := range columns {
				row = append(row, c.text(name))
			}
			rows = append(rows, row)
		}
	}
	t.add(block{rows: rows, scenarios: []string{cells[0].Scenario}})
}

// empty says of a column of ratios that there is nothing in it: nobody else was there.
func (t *tables) empty(c column, cells []results.Name) bool {
	alone := !slices.ContainsFunc(cells, func(name results.Name) bool { return name.Subject != cells[0].Subject })
	return strings.HasPrefix(c.head, "to ") && (alone || c.head == "to ")
}

// floor is the subject that does nothing but what the kernel must: no server
// can cost less, so each is shown as a multiple of it.
const floor = "floor"

// has says whether a subject was in the run.
func (t *tables) has(subject string) bool {
	return slices.ContainsFunc(t.f.Names(), func(name results.Name) bool { return name.Subject == subject })
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
	case cells[0].Vary != "":
		first[0] = column{cells[0].Scenario, atText}
	case t.measured(cells, results.Resident):
		first = append(first, t.figure("Memory/connection", results.Resident, bytes), t.relative(results.Resident))
		first = append(first, t.toFloor(cells, results.Resident)...)
		return append(first, t.figure("Memory before", results.ResidentBefore, bytes))
	case t.measured(cells, results.HandshakeCPU):
		return append(first,
			t.figure("CPU/handshake", results.HandshakeCPU, micros), t.relative(results.HandshakeCPU),
			t.marked("Handshakes/s", results.Handshakes), t.relative(results.Handshakes),
			t.figure("Server busy", results.ServerBusy, percent), t.figure("Load busy", results.ClientBusy, percent),
			t.figure("Load's CPU/handshake", results.ClientHandshakeCPU, micros))
	case cells[0].Mode == "open":
		first[0] = column{cells[0].Scenario, func(name results.Name) string { return fmt.Sprintf("%d/s", name.Rate) }}
	}
	if t.measured(cells, results.Shed) {
		return append(first, t.shedColumns()...)
	}
	if t.measured(cells, results.P99Rise) {
		return append(first, t.greedyColumns(cells)...)
	}
	return append(first, t.requestColumns(cells)...)
}

// greedyColumns are of a load with a greedy client beside it.
func (t *tables) greedyColumns(cells []results.Name) []column {
	columns := []column{
		t.figure("p99 alone", results.AloneP99, millis), t.figure("p99 beside the greedy client", results.P99, millis),
		t.relative(results.P99), t.figure("Rises to", results.P99Rise, ratio),
	}
	if t.measured(cells, results.GreedyBytes) {
		columns = append(columns, t.figure("MB/s of the greedy client", results.GreedyBytes, megabytes))
	}
	if t.measured(cells, results.GreedyThroughput) {
		columns = append(columns, t.figure("Requests/s of the greedy client", results.GreedyThroughput, number))
	}
	return append(columns,
		t.figure("Server busy", results.ServerBusy, percent), t.figure("Load busy", results.ClientBusy, percent))
}

// shedColumns are of a load that is more than can be done. Nothing shed is a
// figure, too.
func (t *tables) shedColumns() []column {
	share := func(name results.Name) string {
		good, shed := t.median(name, results.Throughput), t.median(name, results.Shed)
		if good+shed == 0 {
			return unmeasured
		}
		return fmt.Sprintf("%.0f%%", 100*shed/(good+shed))
	}
	return []column{
		t.figure("Goodput/s", results.Throughput, number), t.relative(results.Throughput), {"Shed", share},
		t.figure("p50", results.P50, millis), t.figure("p99", results.P99, millis),
		t.figure("p50 of 503", results.ShedP50, millis), t.figure("p99 of 503", results.ShedP99, millis),
		t.figure("Peak memory", results.PeakResident, bytes),
		t.figure("Server busy", results.ServerBusy, percent), t.figure("Load busy", results.ClientBusy, percent),
	}
}

// requestColumns returns the columns of a scenario that counts requests.
func (t *tables) requestColumns(cells []results.Name) []column {
	if !t.measured(cells, results.CPU) && t.measured(cells, results.Syscalls) {
		return t.callColumns()
	}
	gain := t.relative(results.Throughput)
	open := cells[0].Mode == "open"
	if open {
		gain.text = func(results.Name) string { return unmeasured } // all were told the rate
	}
	columns := []column{t.figure("CPU/request", results.CPU, micros), t.relative(results.CPU)}
	columns = append(columns, t.toFloor(cells, results.CPU)...)
	if t.measured(cells, results.KernelCPU) {
		columns = append(columns, column{"In the kernel", func(name results.Name) string {
			if t.median(name, results.CPU) == 0 {
				return unmeasured
			}
			return percent(t.median(name, results.KernelCPU) / t.median(name, results.CPU))
		}})
	}
	if t.measured(cells, results.Bytes) {
		columns = append(columns, t.figure("MB/CPU second", results.Bytes, megabytes))
	}
	columns = append(columns, t.marked("Requests/s", results.Throughput), gain,
		t.figure("Mean", results.Mean, millis), t.figure("p99", results.P99, millis))
	if open {
		columns = append(columns, t.figure("p99 as sent", results.RawP99, millis))
	}
	columns = append(columns, t.figure("Server busy", results.ServerBusy, percent),
		column{"Load's CPU/request", func(name results.Name) string {
			return micros(t.median(name, results.ClientCPU) + t.median(name, results.OriginCPU))
		}})
	if t.measured(cells, results.Syscalls) {
		columns = append(columns, t.callColumns()...)
	}
	return columns
}

// callColumns are what was counted. None at all is a figure, too.
func (t *tables) callColumns() []column {
	counted := func(head, unit string) column {
		return column{head, func(name results.Name) string {
			if len(t.f.Values(name, unit)) == 0 {
				return unmeasured
			}
			return calls(t.median(name, unit))
		}}
	}
	return []column{counted("Syscalls/request", results.Syscalls), counted("Enters/request", results.Enters)}
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

// toFloor is a unit's ratio to floor, where that had the load.
func (t *tables) toFloor(cells []results.Name, unit string) []column {
	if !slices.ContainsFunc(cells, func(name results.Name) bool { return name.Subject == floor }) {
		return nil
	}
	return []column{{"to " + floor, func(name results.Name) string { return ratio(t.ratio(name, floor, unit)) }}}
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
