package conformance

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"atlas/harness/corpus"
)

// Verdict is what a proxy did with a case.
type Verdict string

// The verdicts.
const (
	Refuses  Verdict = "refuses"  // it answers itself
	Forwards Verdict = "forwards" // the origin has the request; the client the response
	Breaks   Verdict = "breaks"   // the client sees that the response is not all there
	Closes   Verdict = "closes"   // without a word
	Waits    Verdict = "waits"
)

// Outcome is what became of one case.
type Outcome struct {
	Verdict Verdict `json:"verdict"`
	Status  int     `json:"status,omitempty"` // of a refusal
	Wrong   string  `json:"wrong,omitempty"`  // why that is not what the corpus wants
	// Doubts say where the message, as it was passed on, could have another end
	// for its next recipient.
	Doubts []string `json:"doubts,omitempty"`
	Passed string   `json:"passed,omitempty"` // what was passed on, if it is doubtful or wrong

	goal goal
}

// judgeRequest looks at a request's way to the origin.
func (t *trial) judgeRequest(h *heard, requests [][]byte) Outcome {
	o := Outcome{goal: t.goal}
	var first *message
	for _, raw := range requests {
		m := readMessage(raw, fromClient)
		if !m.begun {
			continue
		}
		if m.complete && len(raw) > m.size {
			m.doubt("%d bytes after the message", len(raw)-m.size)
		}
		o.Doubts = append(o.Doubts, m.doubts...)
		if first == nil || m.complete && !first.complete {
			first = m
		}
	}
	switch {
	case first != nil && first.complete:
		o.Verdict = Forwards
	case h.quiet:
		o.Verdict = Waits
	case h.final != nil:
		o.Verdict, o.Status = Refuses, h.final.status()
	case h.closed:
		o.Verdict = Closes
	default:
		o.Verdict = Waits
	}
	o.Wrong = t.wrongRequest(o, h, first)
	if len(requests) > 0 && (len(o.Doubts) > 0 || o.Wrong != "") {
		o.Passed = quoted(requests[0])
	}
	return o
}

func (t *trial) wrongRequest(o Outcome, h *heard, first *message) string {
	switch {
	case t.goal == toRefuse:
		return t.wrongRefusal(o, h)
	case t.goal == toWait && o.Verdict == Waits, t.cut && first != nil:
		return ""
	case t.goal == toPassOn && o.Verdict == Refuses && slices.Contains(t.statuses, o.Status):
		return ""
	case t.goal == toPassOn && o.Verdict == Forwards:
		return t.wrongMessage(first, h)
	}
	return o.instead(t.goal)
}

// wrongRefusal holds an answer to the one that is wanted.
func (t *trial) wrongRefusal(o Outcome, h *heard) string {
	refused := o.Verdict == Refuses || o.Verdict == Closes
	switch {
	case !refused || t.strict && o.Verdict == Closes:
		return o.instead(toRefuse)
	case !t.strict || t.c.Want.Verdict != corpus.Refused && slices.Contains(t.statuses, o.Status):
		return ""
	case !slices.Contains(t.statuses, o.Status):
		return fmt.Sprintf("%d instead of %d", o.Status, t.statuses[0])
	case t.rule.Kind != corpus.Response && !bytes.Contains(h.final.body, []byte("("+t.c.Want.Reason+")")):
		return fmt.Sprintf("the answer does not give the reason, %s", t.c.Want.Reason)
	}
	return ""
}

// instead says what was done, and what should have been.
func (o Outcome) instead(wanted goal) string {
	return o.words() + " instead of " + [...]string{"refusing", "forwarding", "waiting"}[wanted]
}

// words is the outcome in a word or a number.
func (o Outcome) words() string {
	if o.Verdict == Refuses {
		return fmt.Sprint(o.Status)
	}
	return string(o.Verdict)
}

// wrongMessage compares what the origin got with the request that the corpus
// reads.
func (t *trial) wrongMessage(m *message, h *heard) string {
	want := &t.c.Want
	method, target := want.Method, want.Target
	if t.rule.Kind == corpus.Chunked {
		method, target = http.MethodPost, corpus.Text{Start: "/", Length: 1}
	}
	switch hosts := m.values("Host"); {
	case m.word(0) != method:
		return fmt.Sprintf("forwards the method %q", m.word(0))
	case !target.Is([]byte(m.word(1))) && (t.strict || !t.sameTarget(m.word(1))):
		return fmt.Sprintf("forwards the target %.80q", m.word(1))
	case t.rule.Kind == corpus.Chunked && !want.Content.Is(m.body):
		return fmt.Sprintf("forwards %d bytes of content instead of %d", len(m.body), want.Content.Length)
	case t.rule.Kind == corpus.Request && !bytes.Equal(m.body, t.body):
		return fmt.Sprintf("forwards the body %.40q", m.body)
	case h.final == nil || len(h.final.values(originMark)) == 0:
		return "forwards it, but not the answer"
	case !t.strict:
		return ""
	case t.rule.Kind == corpus.Chunked:
		return wrongFields(m.trailers, want)
	case len(hosts) != 1 || hosts[0] != want.Host:
		return fmt.Sprintf("forwards Host as %q", hosts)
	}
	return wrongFields(m.fields, want)
}

// sameTarget reports that a target is forwarded as it came, or as absolute as
// it came: an origin must take it in that form, too (RFC 9112 section 3.2.2).
func (t *trial) sameTarget(target string) bool {
	came := bytes.SplitN(t.c.Input, []byte(" "), 3)
	if len(came) == 3 && string(came[1]) == target {
		return true
	}
	_, rest, absolute := strings.Cut(target, "://")
	at := strings.IndexAny(rest, "/?")
	return absolute && at >= 0 && t.c.Want.Target.Is([]byte(rest[at:]))
}

// Fields that a proxy says for itself: it may leave out the client's, or send
// its own. Underscore is the key of names that applications take for others.
var proxysOwn = []string{
	"_", "host", "expect", "connection", "te", "upgrade", "transfer-encoding", "content-length",
	"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip", "via",
}

// wrongFields holds Atlas to the fields that go on and those that do not:
// names, values and their order.
func wrongFields(got []field, want *corpus.Want) string {
	at := 0
	for _, f := range want.Fields {
		if slices.Contains(proxysOwn, f.Key) {
			continue
		}
		for at < len(got) && (got[at].name != f.Name || !f.Value.Is([]byte(got[at].value))) {
			at++
		}
		if at == len(got) {
			return fmt.Sprintf("loses the field %s, or its place", f.Name)
		}
		at++
	}
	for _, f := range want.Dropped {
		forwarded := slices.ContainsFunc(got, func(g field) bool { return strings.EqualFold(g.name, f.Name) })
		if forwarded && !slices.Contains(proxysOwn, f.Key) {
			return fmt.Sprintf("forwards the field %s", f.Name)
		}
	}
	return ""
}

// judgeResponse looks at a response's way to the client.
func (t *trial) judgeResponse(h *heard) Outcome {
	o := Outcome{goal: t.goal}
	status := 0
	if h.final != nil {
		status = h.final.status()
	}
	switch {
	case h.quiet && h.final == nil && !h.closed:
		o.Verdict = Waits
	case status/100 == 5 && (t.goal != toPassOn || status != t.c.Want.Status):
		o.Verdict, o.Status = Refuses, status
	case h.final != nil && h.whole:
		o.Verdict = Forwards
	case len(h.raw) > 0:
		o.Verdict = Breaks
	default:
		o.Verdict = Closes
	}
	if h.final != nil && o.Verdict != Refuses {
		o.Doubts = h.final.doubts
	}
	o.Wrong = t.wrongResponse(o, h)
	// An answer that came by itself was none to the bytes that came before.
	if o.Verdict == Refuses && t.goal == toWait && h.quiet {
		o.Verdict = Waits
	}
	if len(h.raw) > 0 && (len(o.Doubts) > 0 || o.Wrong != "") {
		o.Passed = quoted(h.raw)
	}
	return o
}

func (t *trial) wrongResponse(o Outcome, h *heard) string {
	want := &t.c.Want
	switch {
	case t.goal == toRefuse:
		return t.wrongRefusal(o, h)
	case t.goal == toWait && !h.quiet:
		return o.instead(toWait)
	case t.goal == toWait && o.Verdict == Refuses && (o.Status == http.StatusBadGateway || !t.strict):
		return "" // once the origin had closed
	case t.goal == toWait:
		return fmt.Sprintf("%s when the origin closes in the middle of a head", o.words())
	case t.cut && o.Verdict == Breaks && h.final != nil && h.final.status() == want.Status:
		return ""
	case o.Verdict != Forwards:
		return o.instead(toPassOn)
	}
	status := want.Status
	if status < 200 {
		status = http.StatusOK
	}
	switch got := h.final; {
	case got.status() != status:
		return fmt.Sprintf("passes on the status %d", got.status())
	case want.Status >= 200 && !bytes.Equal(got.body, t.body):
		return fmt.Sprintf("passes on the body %.40q", got.body)
	case !t.strict:
		return ""
	case want.Status >= 200:
		return wrongFields(got.fields, want)
	case want.Status == http.StatusContinue: // whoever has answered itself passes none on
		return ""
	case len(h.early) != 1 || h.early[0].status() != want.Status:
		return "does not pass on the interim response"
	}
	return wrongFields(h.early[0].fields, want)
}

// passedMax is how much of a message is worth reading.
const passedMax = 300

func quoted(raw []byte) string {
	if len(raw) > passedMax {
		return fmt.Sprintf("%q... (%d bytes)", raw[:passedMax], len(raw))
	}
	return fmt.Sprintf("%q", raw)
}
