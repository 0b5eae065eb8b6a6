package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/results"
)

// progress tells how a run goes: on a terminal one line that is rewritten,
// elsewhere one line for each cell of each round.
type progress struct {
	w        io.Writer
	terminal bool
	plan     []step
	began    time.Time
	row      []string // what the current cell gave in this round
}

func newProgress(w io.Writer, plan []step) *progress {
	return &progress{w: w, terminal: isTerminal(w), plan: plan, began: time.Now()}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// head says what is about to happen and what to mind.
func (p *progress) head(o *options, s *session) {
	var names []string
	for _, one := range o.subjects {
		names = append(names, one.Name)
	}
	what, apart := "measuring", ""
	if counts := len(countedIn(p.plan)); counts == len(p.plan) {
		what = "counting the system calls of"
	} else if counts > 0 {
		apart = fmt.Sprintf(", the last %d to count system calls", counts)
	}
	fmt.Fprintf(p.w, "%s %s: %d samples of %v after %v, %d rounds there and back%s; about %v\n",
		what, strings.Join(names, ", "), len(p.plan), o.form.measured, o.form.warmup, o.form.rounds, apart,
		o.lasts(p.plan).Round(time.Second))
	fmt.Fprintf(p.w, "server on core %s, load on core %s, closed loop by %s\n",
		host.List(s.cores.Server), host.List(s.cores.Client), strings.Join(o.generators, " and "))
	if o.roles.apart() {
		fmt.Fprintf(p.w, "server: %s; origin: %s; load: this host\n", o.roles.subject, o.roles.origin)
	}
	for _, text := range s.warnings {
		fmt.Fprintf(p.w, "note: %s\n", text)
	}
}

// begin shows which step is running.
func (p *progress) begin(i int) {
	if p.terminal {
		st := p.plan[i]
		fmt.Fprintf(p.w, "\r\x1b[K%3d%%  %s left  %s  %s  %s",
			100*i/len(p.plan), p.leftAfter(i), p.pass(st), st.cell, st.subject.Name)
	}
}

// end takes the outcome of a step.
func (p *progress) end(i int, sample attack.Sample, err error) {
	st := p.plan[i]
	if err != nil {
		p.clear()
		fmt.Fprintf(p.w, "refused, and the subject leaves this cell: %s %s: %v\n", st.cell, st.subject.Name, err)
	} else {
		p.row = append(p.row, brief(st.subject.Name, sample))
	}
	for _, text := range sample.Notes {
		if strings.HasPrefix(text, secondAttempt) { // the others are the load's, and in the tables
			p.clear()
			fmt.Fprintf(p.w, "note: %s %s: %s\n", st.cell, st.subject.Name, text)
		}
	}
	last := i+1 == len(p.plan) || p.plan[i+1].apart(st)
	if last && len(p.row) > 0 && !p.terminal {
		fmt.Fprintf(p.w, "%3d%%  %s left  %s  %s: %s\n",
			100*(i+1)/len(p.plan), p.leftAfter(i+1), p.pass(st), st.cell, strings.Join(p.row, ", "))
	}
	if last {
		p.row = nil
	}
}

// done ends the line that was rewritten.
func (p *progress) done() {
	p.clear()
	fmt.Fprintf(p.w, "measured in %v\n", time.Since(p.began).Round(time.Second))
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// pass is where in the run a step is.
func (p *progress) pass(st step) string {
	if st.counts {
		return "counting"
	}
	rounds := 0
	for _, one := range p.plan {
		rounds = max(rounds, one.round+1)
	}
	return fmt.Sprintf("round %d/%d", st.round+1, rounds)
}

// countedIn are the steps of a plan that count system calls.
func countedIn(plan []step) []step {
	return slices.DeleteFunc(slices.Clone(plan), func(st step) bool { return !st.counts })
}

// leftAfter estimates the time left once n steps are done.
func (p *progress) leftAfter(n int) string {
	if n == 0 {
		return "?"
	}
	perStep := time.Since(p.began) / time.Duration(n)
	return (perStep * time.Duration(len(p.plan)-n)).Round(time.Second).String()
}

// brief is a sample in a few words: what was asked of it, cost first.
func brief(name string, s attack.Sample) string {
	text := name
	for _, one := range []struct {
		unit, format string
		scale        float64
	}{
		{results.CPU, " %.1f us", 1e3},
		{results.HandshakeCPU, " %.0f us", 1e3},
		{results.Resident, " %.0f bytes", 1},
		{results.Bytes, " %.1f GB/cpu-s", 1e9},
		{results.Syscalls, " %.2f calls", 1},
	} {
		if v, ok := s.Values[one.unit]; ok {
			text += fmt.Sprintf(one.format, v/one.scale)
		}
	}
	if _, open := s.Values[results.RawP99]; open {
		return text + fmt.Sprintf(" p99 %.2f ms", s.Values[results.P99]/1e6)
	}
	for _, unit := range []string{results.Throughput, results.Handshakes} {
		if v, ok := s.Values[unit]; ok {
			text += fmt.Sprintf(" %.1fk/s", v/1e3)
		}
	}
	return text
}
