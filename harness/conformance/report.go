package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"atlas/harness/corpus"
)

// Report is what proxies did with a corpus.
type Report struct {
	Rules   []*corpus.Rule
	Columns []Column
	// Machine and Date say where and when.
	Machine, Date string
	// Corpus is the path of the corpus from where the report will be.
	Corpus string
}

// Column is one proxy.
type Column struct {
	Name, Version string
	Strict        bool
	Outcomes      []Outcome // of every case of every rule
}

// Wrong returns a line for every case of a column that did not go as the
// corpus wants.
func (r *Report) Wrong(c Column) (lines []string) {
	r.each(c, func(name string, o Outcome) {
		if !o.right() {
			lines = append(lines, name+": "+o.Wrong)
		}
	})
	return lines
}

// each calls f with the name and the outcome of every case.
func (r *Report) each(c Column, f func(name string, o Outcome)) {
	n := 0
	for _, rule := range r.Rules {
		for i := range rule.Cases {
			f(fmt.Sprintf("%s/%s/%s", rule.Kind, rule.Name, rule.Cases[i].Name), c.Outcomes[n])
			n++
		}
	}
}

// titles are the headings of the three tables.
var titles = map[corpus.Kind]string{
	corpus.Request:  "Requests",
	corpus.Chunked:  "Chunked request bodies",
	corpus.Response: "Responses of the origin",
}

const legend = `Each case of the [corpus](%s/README.md) goes through the proxy byte for byte, on a connection
of its own, to an origin that keeps every byte it gets. ` + "`make conformance`" + ` prints this page for the programs
that are installed, ` + "`make conformance DOCS=1`" + ` rewrites it.

- A number is the status of the proxy's own refusal. What an upstream must not send is 502 for the client.
- *forwards*: the whole request reached the origin, or the whole response the client. *waits*: no answer within %v.
  *closes*: the connection ended without an answer. *breaks*: the client sees that the response is not complete.
- **ambiguous**: the proxy passed on a message in which the next recipient could find another end: two framings, a
  framing that is not plain, a line that does not end in CRLF or begins with white space. That is what request
  smuggling is made of. The cases are listed below.
- *altered*: forwarded with another method, target or body, or without the answer.

Atlas is held to the letter: status, reason, fields and body must be those of the corpus, and **✗** marks where they are
not. Of the others, any refusal counts as one. A difference is no fault by itself: the corpus is stricter than the RFCs
where they leave a choice (bare LF, equal Content-Length fields), and limits are everybody's own. What becomes of a
broken trailer section in HAProxy depends on whether the origin has the rest of the message yet, so those cells differ
from run to run. The proxies run with the [configurations](%s) that the lab measures.

`

// Markdown writes the page.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# The corpus of HTTP/1 rules: %s\n\n", r.names())
	fmt.Fprintf(&b, legend, r.Corpus, quietTime, path.Join(r.Corpus, "../../../harness/subject/templates"))
	for _, c := range r.Columns {
		fmt.Fprintf(&b, "- %s: %s\n", c.Name, c.Version)
	}
	fmt.Fprintf(&b, "- %s, %s\n", r.Machine, r.Date)
	from := 0
	for _, kind := range corpus.Kinds {
		from = r.table(&b, kind, from)
	}
	r.totals(&b)
	r.lists(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) names() string {
	var names []string
	for _, c := range r.Columns {
		names = append(names, c.Name)
	}
	return strings.Join(names, ", ")
}

// table writes the rules of one kind, whose first outcome is the one at from,
// and returns where the next kind's begin.
func (r *Report) table(b *strings.Builder, kind corpus.Kind, from int) int {
	fmt.Fprintf(b, "\n## %s\n\n| rule | section | cases | wanted |", titles[kind])
	for _, c := range r.Columns {
		fmt.Fprintf(b, " %s |", c.Name)
	}
	b.WriteString("\n|---|---|---:|---|" + strings.Repeat("---|", len(r.Columns)) + "\n")
	for _, rule := range r.Rules {
		if rule.Kind != kind {
			continue
		}
		to := from + len(rule.Cases)
		fmt.Fprintf(b, "| [%s](%s/%s) | %s | %d | %s |",
			rule.Name, r.Corpus, rule.File, sections(rule.Where), len(rule.Cases), cell(ideal(rule)))
		for _, c := range r.Columns {
			mark := ""
			if of := c.Outcomes[from:to]; c.Strict && count(of, Outcome.right) < len(of) {
				mark = " **✗**"
			}
			fmt.Fprintf(b, " %s%s |", cell(c.Outcomes[from:to]), mark)
		}
		b.WriteString("\n")
		from = to
	}
	return from
}

// ideal is what the corpus wants of a rule's cases.
func ideal(rule *corpus.Rule) (all []Outcome) {
	for i := range rule.Cases {
		t := newTrial(rule, &rule.Cases[i], true)
		o := Outcome{goal: t.goal, Verdict: [...]Verdict{Refuses, Forwards, Waits}[t.goal]}
		if t.goal == toRefuse {
			o.Status = t.statuses[0]
		}
		all = append(all, o)
	}
	return all
}

// sections names places in standards, with links.
func sections(where []corpus.Section) string {
	var links []string
	for _, s := range where {
		first, _, _ := strings.Cut(s.Parts, " ")
		links = append(links, fmt.Sprintf("[%s §%s](https://www.rfc-editor.org/rfc/rfc%s#section-%s)",
			s.RFC, strings.ReplaceAll(s.Parts, " to ", "–"), s.RFC, first))
	}
	return strings.Join(links, ", ")
}

// totals counts cases.
func (r *Report) totals(b *strings.Builder) {
	b.WriteString("\n## Totals\n\n| of " + fmt.Sprint(len(r.Columns[0].Outcomes)) + " cases |")
	for _, c := range r.Columns {
		fmt.Fprintf(b, " %s |", c.Name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(r.Columns)) + "\n")
	for _, row := range []struct {
		name string
		is   func(Outcome) bool
	}{
		{"as the corpus wants", Outcome.right},
		{"to refuse, and passed on", func(o Outcome) bool { return o.goal == toRefuse && o.Verdict == Forwards }},
		{"passed on in a form that is ambiguous", Outcome.doubtful},
		{"to pass on, and refused", func(o Outcome) bool { return o.goal == toPassOn && o.refused() && !o.right() }},
	} {
		fmt.Fprintf(b, "| %s |", row.name)
		for _, c := range r.Columns {
			fmt.Fprintf(b, " %d |", count(c.Outcomes, row.is))
		}
		b.WriteString("\n")
	}
}

// lists writes the ambiguous cases and every difference.
func (r *Report) lists(b *strings.Builder) {
	b.WriteString("\n## Passed on, and ambiguous\n")
	for _, c := range r.Columns {
		if count(c.Outcomes, Outcome.doubtful) == 0 {
			fmt.Fprintf(b, "\n%s: none.\n", c.Name)
			continue
		}
		fmt.Fprintf(b, "\n%s:\n\n", c.Name)
		r.each(c, func(name string, o Outcome) {
			if o.doubtful() {
				fmt.Fprintf(b, "- %s: %s. `%s`\n", name, strings.Join(o.Doubts, ", "),
					strings.ReplaceAll(o.Passed, "`", "\\x60"))
			}
		})
	}
	b.WriteString("\n## Every difference\n")
	for _, c := range r.Columns {
		wrong := r.Wrong(c)
		if len(wrong) == 0 {
			fmt.Fprintf(b, "\n%s: none.\n", c.Name)
			continue
		}
		fmt.Fprintf(b, "\n<details><summary>%s: %d</summary>\n\n", c.Name, len(wrong))
		for _, line := range wrong {
			fmt.Fprintf(b, "- %s\n", line)
		}
		b.WriteString("\n</details>\n")
	}
}

// jsonCase is a line of the JSON form: a case, and what every proxy did.
type jsonCase struct {
	Case     string             `json:"case"`
	Wanted   string             `json:"wanted"`
	Outcomes map[string]Outcome `json:"outcomes"` // by name of the proxy
}

// JSON writes a line for each case, after one that names the proxies.
func (r *Report) JSON(w io.Writer) error {
	versions := map[string]string{}
	for _, c := range r.Columns {
		versions[c.Name] = c.Version
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	if err := out.Encode(map[string]any{"versions": versions, "machine": r.Machine, "date": r.Date}); err != nil {
		return err
	}
	n := 0
	for _, rule := range r.Rules {
		wanted := ideal(rule)
		for i := range rule.Cases {
			line := jsonCase{
				Case:     fmt.Sprintf("%s/%s/%s", rule.Kind, rule.Name, rule.Cases[i].Name),
				Wanted:   wanted[i].words(),
				Outcomes: map[string]Outcome{},
			}
			for _, c := range r.Columns {
				line.Outcomes[c.Name] = c.Outcomes[n]
			}
			if err := out.Encode(line); err != nil {
				return err
			}
			n++
		}
	}
	return nil
}
