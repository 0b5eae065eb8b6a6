// Package doctor says whether Atlas can run on a machine, how well, and what to change
// where it could be better.
//
// Read looks; Judge, a pure function, makes findings of what was seen. Nothing is
// changed on the machine: what is tried is undone before Read returns. It knows no
// more of a configuration than the machine has to do with.
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mark is how a finding is.
type Mark string

// The marks.
const (
	OK   Mark = "ok"
	Warn Mark = "warn" // Atlas runs, and not as well as it could
	Fail Mark = "fail" // Atlas cannot run like that
)

// A Finding is what is to be said about one thing.
type Finding struct {
	Name  string `json:"name"`
	Mark  Mark   `json:"mark"`
	State string `json:"state"` // what was found
	Costs string `json:"costs"` // what it means for Atlas; empty where all is well
	Fix   string `json:"fix"`   // what to do about it
}

// Report is all findings, in the order in which they are told.
type Report struct {
	OK       bool      `json:"ok"` // Atlas can run
	Findings []Finding `json:"findings"`
}

// Judge makes findings of what was seen.
func Judge(r *Readings) *Report {
	report := new(Report)
	for _, judge := range []func(*Readings) []Finding{
		judgeKernel, judgeRing, judgeBlocks, judgeSystemCalls, judgeLimits, judgeCPUs, judgeNetwork,
		judgePorts, judgeClock,
	} {
		report.Findings = append(report.Findings, judge(r)...)
	}
	report.OK = !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Mark == Fail })
	return report
}

// WriteJSON writes the report for programs.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// textColumns is how wide the text is.
const textColumns = 100

// WriteText writes the report for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	wide := 0
	count := map[Mark]int{}
	for _, f := range r.Findings {
		wide = max(wide, len(f.Name))
		count[f.Mark]++
	}
	margin := strings.Repeat(" ", wide+8)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n", f.Mark, wide, f.Name, wrap(f.State, margin))
		if f.Costs != "" {
			fmt.Fprintf(&b, "%s%s\n", margin, wrap(f.Costs, margin))
		}
		if f.Fix != "" {
			fmt.Fprintf(&b, "%sfix: %s\n", margin, wrap(f.Fix, margin+"     "))
		}
	}
	fmt.Fprintf(&b, "\n%d ok, %d to improve, %d wrong: ", count[OK], count[Warn], count[Fail])
	if r.OK {
		b.WriteString("Atlas can run here.\n")
	} else {
		b.WriteString("Atlas cannot run here like that.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks the first line of text into lines, and leaves the others, which are a
// command, as they are; margin is in front of all but the first.
func wrap(text, margin string) string {
	var b strings.Builder
	column := len(margin)
	text, verbatim, several := strings.Cut(text, "\n")
	for i, word := range strings.Fields(text) {
		if n := utf8.RuneCountInString(word); i > 0 && column+1+n > textColumns {
			b.WriteString("\n" + margin)
			column = len(margin)
		} else if i > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += utf8.RuneCountInString(word)
	}
	if several {
		b.WriteString("\n" + margin + strings.ReplaceAll(verbatim, "\n", "\n"+margin))
	}
	return b.String()
}
