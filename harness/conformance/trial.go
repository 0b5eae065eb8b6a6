package conformance

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"atlas/harness/corpus"
)

// trial is a case as it is sent.
type trial struct {
	rule   *corpus.Rule
	c      *corpus.Case
	strict bool

	talk   talk
	script script
	goal   goal
	// statuses are the answers that a refusal may have, the one the corpus
	// names first. An accepted request may be answered with them, too.
	statuses []int
	body     []byte // of the message, if it is accepted
	cut      bool   // it announces more than we send
}

// goal is what the proxy should do.
type goal int

const (
	toRefuse goal = iota
	toPassOn
	toWait
)

// completesAny is five bytes and the end of a chunked body at once: it
// completes nearly every body that a lenient server may wait for in a message
// that the corpus refuses.
const completesAny = "0\r\n\r\n"

const (
	// bodyMax bounds what is sent to complete a body.
	bodyMax = 64 << 10

	chunkedHead  = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	plainRequest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	plainAnswer  = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
)

func newTrial(rule *corpus.Rule, c *corpus.Case, strict bool) *trial {
	t := &trial{rule: rule, c: c, strict: strict}
	switch c.Want.Verdict {
	case corpus.Refused:
		t.goal, t.statuses = toRefuse, []int{c.Want.Status}
	case corpus.Accepted:
		t.goal = toPassOn
	case corpus.Short:
		t.goal = toWait
	}
	switch rule.Kind {
	case corpus.Response:
		t.asResponse()
	case corpus.Chunked:
		t.asChunked()
	case corpus.Request:
		t.asRequest()
	}
	t.talk.patience = answerTime
	if t.goal == toWait || t.cut || t.goal == toRefuse && !strict && rule.Kind != corpus.Response {
		t.talk.patience = quietTime
	}
	return t
}

func (t *trial) name() string {
	return fmt.Sprintf("%s/%s/%s", t.rule.Kind, t.rule.Name, t.c.Name)
}

// asRequest sends the case as it is. A head that is accepted is followed by
// the body that it announces, so that there can be an answer.
func (t *trial) asRequest() {
	want := &t.c.Want
	t.talk.send = t.c.Input
	t.talk.head = want.Method == http.MethodHead
	switch {
	case t.goal == toRefuse:
		t.talk.filler = []byte(completesAny)
	case t.goal != toPassOn:
	case want.Method == http.MethodConnect: // nobody here is a tunnel
		t.goal, t.statuses = toRefuse, []int{http.StatusNotImplemented, http.StatusMethodNotAllowed}
	default:
		if want.OtherExpect {
			t.statuses = []int{http.StatusExpectationFailed}
		}
		var more []byte
		t.body, more, t.cut = complete(want, t.c.Input)
		t.talk.send = append(bytes.Clone(t.c.Input), more...)
	}
}

// asChunked sends the case as the body of a POST.
func (t *trial) asChunked() {
	t.talk.send = append([]byte(chunkedHead), t.c.Input...)
	if t.goal == toRefuse {
		t.talk.filler = []byte(completesAny)
	}
}

// asResponse has the origin answer with the case. What the corpus refuses of
// an upstream is 502 for the client.
func (t *trial) asResponse() {
	want := &t.c.Want
	t.talk.send = []byte(plainRequest)
	t.script = script{own: true, reply: bytes.Clone(t.c.Input)}
	switch {
	case t.goal == toWait:
		t.script.hold, t.talk.release = true, true
	case t.goal == toRefuse:
		if bytes.HasSuffix(t.c.Input, []byte("\r\n\r\n")) {
			t.script.reply = append(t.script.reply, completesAny...)
		}
	case want.Status == http.StatusSwitchingProtocols: // nobody has asked
		t.goal = toRefuse
	case want.Status < 200:
		t.script.reply = append(t.script.reply, plainAnswer...)
	default:
		var more []byte
		t.body, more, t.cut = complete(want, t.c.Input)
		t.script.reply = append(t.script.reply, more...)
	}
	if t.goal == toRefuse {
		t.statuses = []int{http.StatusBadGateway}
	}
}

// complete returns the body of an accepted message, and what has to be added
// to its bytes to have all of it. cut says that this is too much.
func complete(want *corpus.Want, input []byte) (body, more []byte, cut bool) {
	rest := input[len(input)-want.Rest:]
	switch want.Body.Kind {
	case corpus.BodyLength:
		if want.Body.Length > bodyMax {
			return rest, nil, true
		}
		if lacking := int(want.Body.Length) - len(rest); lacking > 0 {
			more = bytes.Repeat([]byte("x"), lacking)
		}
		body = append(bytes.Clone(rest), more...)
		return body[:want.Body.Length], more, false
	case corpus.BodyChunked:
		if len(rest) == 0 {
			more = []byte(completesAny)
		}
		return nil, more, false // every chunked rest of the corpus is empty
	case corpus.BodyClose:
		return rest, nil, false
	}
	return nil, nil, false
}

// run sends the case and watches both sides.
func (t *trial) run(ctx context.Context, lane *Lane) (Outcome, error) {
	lane.recorder.begin(t.script)
	h, err := lane.converse(ctx, t.talk)
	if err != nil {
		return Outcome{}, err
	}
	if err := lane.sentinel(ctx); err != nil {
		return Outcome{}, fmt.Errorf("the proxy does not serve after it: %w", err)
	}
	requests := lane.recorder.collect()
	if t.rule.Kind == corpus.Response {
		return t.judgeResponse(h), nil
	}
	return t.judgeRequest(h, requests), nil
}
