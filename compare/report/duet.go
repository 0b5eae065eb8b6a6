package report

import (
	"fmt"
	"io"

	"atlas/compare/gate"
)

// Duets prints what every cell of a duet gave, benchstat's columns beside it, and
// the verdict.
func Duets(w io.Writer, a *gate.Arms, cells []gate.Duet, outcome gate.Outcome, reason string) {
	fmt.Fprintf(w, "base %s, candidate %s; CPU per request; %d restarts a stage of %d slices of %s.\n\n",
		a.Base.Setting("base"), a.Base.Setting("candidate"), a.Restarts, a.Slices, a.Base.Setting("slice"))
	printTable(w, duetRows(cells))
	fmt.Fprint(w, "\n"+duetText+"\n\n")
	fmt.Fprintf(w, "verdict: %s. %s\n", outcome, reason)
}

const duetText = "Change is of the candidate to base and control in the same slices, " +
	"p that of a change for the worse,\n" +
	"corrected for the number of loads. Control is the base to itself. Sees is the change that would have been\n" +
	"beyond the limit 19 times of 20. Old to benchstat's p are as `go tool benchstat base.bench candidate.bench`\n" +
	"prints them, which does not pair the slices."

// duetRows has a row for each cell, below its head.
func duetRows(cells []gate.Duet) [][]string {
	rows := [][]string{{
		"Load", "Change", "95% interval", "p", "Stages", "Control", "Sees",
		"Old", "New", "Delta", "benchstat's p", "Verdict",
	}}
	for _, d := range cells {
		stages := ""
		for i, change := range d.Stages {
			if i > 0 {
				stages += ", "
			}
			stages += signed(change)
		}
		rows = append(rows, []string{
			loadOf(d.Name), signed(d.Change.Estimate),
			signed(d.Change.Low) + " to " + signed(d.Change.High), fmt.Sprintf("%.3f", d.P),
			stages, signed(d.Control.Estimate), signed(d.Sees),
			micros(d.Stat.Old) + " ± " + d.Stat.OldRange, micros(d.Stat.New) + " ± " + d.Stat.NewRange,
			d.Stat.Delta, d.Stat.P, d.Verdict,
		})
	}
	return rows
}

// Gate is the run of a gate in the list of all.
type Gate struct {
	Name            string // of the run, as in addresses
	Base, Candidate string // commits
	Date            string
	Outcome, Reason string
	Broken          string // why it has no verdict, "" if it has
	Cells           []gate.Duet
}

// GatePage writes what a gate has found.
func GatePage(w io.Writer, g Gate) error {
	rows := duetRows(g.Cells)
	return show(w, "compare.html", sitePage{
		Title: "Gate " + g.Name, Style: style(), Home: true,
		Text:    []string{fmt.Sprintf("base %s, candidate %s; CPU per request", g.Base, g.Candidate), duetText},
		Outcome: fmt.Sprintf("%s: %s", g.Outcome, g.Reason),
		Tables:  []table{{Head: rows[0], Rows: rows[1:]}},
	})
}

func signed(share float64) string { return fmt.Sprintf("%+.1f%%", 100*share) }
