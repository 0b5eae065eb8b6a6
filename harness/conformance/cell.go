package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// cell says in a few words what became of the cases of one rule: first those
// to refuse, then those to pass on, then those to wait for.
func cell(outcomes []Outcome) string {
	var words []string
	for g, summary := range []func([]Outcome) string{refusals, forwards, waits} {
		var of []Outcome
		for _, o := range outcomes {
			if o.goal == goal(g) {
				of = append(of, o)
			}
		}
		if len(of) > 0 {
			words = append(words, summary(of))
		}
	}
	text := strings.Join(slices.Compact(words), "; ")
	if n := count(outcomes, Outcome.doubtful); n > 0 {
		text += fmt.Sprintf(" **(%d ambiguous)**", n)
	}
	return text
}

// doubtful says that a message was passed on which the next recipient could
// read as another one.
func (o Outcome) doubtful() bool { return len(o.Doubts) > 0 }

func (o Outcome) right() bool   { return o.Wrong == "" }
func (o Outcome) refused() bool { return o.Verdict == Refuses || o.Verdict == Closes }
func (o Outcome) waited() bool  { return o.Verdict == Waits }

func (o Outcome) altered() bool { return o.Verdict == Forwards && !o.right() }

func count(outcomes []Outcome, is func(Outcome) bool) (n int) {
	for _, o := range outcomes {
		if is(o) {
			n++
		}
	}
	return n
}

func refusals(of []Outcome) string { return some(of, Outcome.refused, "", "refused") }

func waits(of []Outcome) string { return some(of, Outcome.waited, "waits", "wait") }

func forwards(of []Outcome) string {
	text := some(of, func(o Outcome) bool { return o.right() || o.altered() }, "forwards", "forwarded")
	if n := count(of, Outcome.altered); n > 0 {
		text += fmt.Sprintf(" (%d altered)", n)
	}
	return text
}

// some says how many of the outcomes are of a kind: with one word if all or
// none are, and else by numbers.
func some(of []Outcome, is func(Outcome) bool, all, part string) string {
	n := count(of, is)
	switch {
	case n == len(of) && all != "":
		return all
	case n == len(of) || n == 0:
		return uniform(of)
	}
	return fmt.Sprintf("%d of %d %s", n, len(of), part)
}

// uniform lists the different words of outcomes.
func uniform(of []Outcome) string {
	var words []string
	for _, o := range of {
		words = append(words, o.words())
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}
