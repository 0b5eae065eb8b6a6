package report

import (
	"fmt"
	"io"

	"atlas/compare/gate"
	"atlas/results"
)

// Verdicts prints every comparison and what all of them mean. Settings that
// differ between the files are named, since they may explain a difference.
func Verdicts(w io.Writer, old, new *results.File, rows []gate.Row, outcome gate.Outcome, reason string) {
	for _, line := range changed(old, new) {
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	printTable(w, append([][]string{verdictHead()}, verdictLines(rows)...))
	fmt.Fprint(w, "\n"+verdictText+"\n")
	fmt.Fprintf(w, "verdict: %s (%s)\n", outcome, reason)
}

const verdictText = "Loss is in the unit's own direction, by ratios to the reference of the same round; " +
	"p is corrected for the number of rows."

func verdictHead() []string {
	return []string{"Load", "Subject", "Unit", "Old", "New", "Loss", "At most", "Tolerated", "p", "n", "Verdict"}
}

func verdictLines(rows []gate.Row) [][]string {
	var lines [][]string
	for _, row := range rows {
		lines = append(lines, verdictLine(row))
	}
	return lines
}

// changed names the settings that differ.
func changed(old, new *results.File) []string {
	var lines []string
	for _, s := range old.Settings {
		if now := new.Setting(s.Key); now != s.Value {
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", s.Key, s.Value, orDash(now)))
		}
	}
	return lines
}

func verdictLine(row gate.Row) []string {
	line := []string{loadOf(row.Name), row.Name.Subject, row.Unit, number(row.Old), number(row.New)}
	if row.Note != "" {
		const none = unmeasured
		return append(line, none, none, none, none, none, row.Verdict.String()+": "+row.Note)
	}
	c := row.Change
	verdict := row.Verdict.String()
	switch {
	case row.ReportOnly:
		verdict = "(" + verdict + ")"
	case row.Control:
		verdict += ", control"
	}
	if !row.Relative {
		verdict += ", absolute"
	}
	return append(line,
		fmt.Sprintf("%+.1f%%", 100*c.Loss), fmt.Sprintf("%+.1f%%", 100*c.LossMost),
		fmt.Sprintf("%.1f%%", 100*c.Tolerance),
		fmt.Sprintf("%.3f", c.P), fmt.Sprintf("%d+%d", c.N1, c.N2), verdict)
}

func orDash(s string) string {
	if s == "" {
		return unmeasured
	}
	return s
}
