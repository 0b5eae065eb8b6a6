package forward_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// The corpus through sockets. What h1 says of bytes is tested there, at every
// cut; here the same bytes take the way of a client's and of an upstream's, and
// what comes of them may not depend on where the network cut them either.
//
// The clients of different lanes have different addresses, by which the upstream
// tells their requests apart: the bytes themselves leave no room for a name.

// laneAddress is what the clients of a lane come from.
func laneAddress(lane int) string { return fmt.Sprintf("127.0.1.%d", lane+1) }

// arrival is one whole request at the upstream.
type arrival struct {
	head, body, trailer string
}

// ledger is an upstream that answers every request and keeps it, by client.
type ledger struct {
	mu  sync.Mutex
	got map[string][]arrival
}

// bodyRead is up to which length the ledger waits for a body.
const bodyRead = 1 << 20

func (l *ledger) script(p *looptest.Peer, _ int) {
	for head := p.Head(); head != ""; head = p.Head() {
		a := arrival{head: head}
		length, _ := strconv.ParseInt(fieldOf(head, "Content-Length"), 10, 64)
		var err error
		switch {
		case fieldOf(head, "Transfer-Encoding") != "":
			a.body, a.trailer, err = readChunked(p.In)
		case length <= bodyRead:
			body := make([]byte, length)
			_, err = io.ReadFull(p.In, body)
			a.body = string(body)
		}
		if err != nil {
			return // it broke off, and is no request
		}
		l.mu.Lock()
		l.got[fieldOf(head, "X-Forwarded-For")] = append(l.got[fieldOf(head, "X-Forwarded-For")], a)
		l.mu.Unlock()
		answer := ok
		if strings.HasPrefix(head, "HEAD ") {
			answer = strings.TrimSuffix(ok, "ok")
		}
		if _, err := io.WriteString(p, answer); err != nil {
			return
		}
		if length > bodyRead {
			_ = p.CloseWrite()
			p.Gone()
			return
		}
	}
}

// take returns what came from a client since the last time.
func (l *ledger) take(client string) []arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got[client]
	delete(l.got, client)
	return got
}

// dialFrom connects from an address of this host.
func dialFrom(t *testing.T, from, to string) *looptest.Peer {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	c, err := dialer.Dial("tcp", to)
	if err != nil {
		t.Errorf("dial: %v", err)
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return &looptest.Peer{TCPConn: c.(*net.TCPConn), In: bufio.NewReader(c)}
}

// answer is a response as a client read it.
type answer struct {
	interim, head, text string
	status              int
	close               bool
}

func (a answer) String() string {
	return fmt.Sprintf("%s%d %q %q close=%v", a.interim, a.status, headFields(a.head, "Date"), a.text, a.close)
}

// readAnswers reads until the connection ends. The first answer is to a request
// with this method, the others to GET. broken says that one broke off.
func readAnswers(in *bufio.Reader, method string) (all []answer, broken bool) {
	for ; ; method = "GET" {
		var a answer
		for a.status < 200 {
			head, err := readHead(in)
			if err != nil {
				return all, err != io.EOF || head != ""
			}
			a.status, _ = strconv.Atoi(strings.Split(head+"  ", " ")[1])
			if a.head = head; a.status > 100 && a.status < 200 { // whether we say 100 depends on who is faster
				a.interim += head
			}
		}
		both := bufio.NewReader(io.MultiReader(strings.NewReader(a.head), in))
		resp, err := http.ReadResponse(both, &http.Request{Method: method})
		if err != nil {
			return all, true
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return all, true
		}
		a.text, a.close = string(text), resp.Close
		all = append(all, a)
		in = both
	}
}

// wireTrip is what came of a case: all that the client read, and all that the
// upstream did.
type wireTrip struct {
	answers  []answer
	broken   bool
	arrivals []arrival
}

func (w wireTrip) String() string {
	return fmt.Sprintf("the client got %v, broken off: %v; the upstream got %q", w.answers, w.broken, w.arrivals)
}

// wireRig sends the cases.
type wireRig struct {
	*rig
	t      *testing.T
	ledger *ledger
	trips  atomic.Int64
}

// send sends pieces, and behind them what follows; end closes the client's
// direction then.
func (w *wireRig) send(client, method string, pieces []string, follow string, end bool) (trip wireTrip) {
	c := dialFrom(w.t, client, w.address)
	if c == nil {
		return trip
	}
	defer c.Reset() // leaves no port behind
	w.trips.Add(1)
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(time.Millisecond) // or they would arrive as one
		}
		if i == len(pieces)-1 {
			piece += follow
		}
		if _, err := io.WriteString(c, piece); err != nil {
			w.t.Errorf("a client that goes on sending is cut: %v", err)
			return trip
		}
	}
	if end {
		_ = c.CloseWrite()
	}
	trip.answers, trip.broken = readAnswers(c.In, method)
	trip.arrivals = w.ledger.take(client)
	return trip
}

// every sends a case whole, at every cut, and in crumbs, and wants the same to
// come of it each time. prefix is cut with it only at its end.
func (w *wireRig) every(lane int, c *wireCase, method, prefix, follow string, end bool, check func(wireTrip)) {
	client := laneAddress(lane)
	whole := w.send(client, method, []string{prefix + c.input}, follow, end)
	check(whole)
	if w.t.Failed() || c.input == "" {
		return
	}
	for _, k := range cuts(len(c.input)) {
		trip := w.send(client, method, []string{prefix + c.input[:k], c.input[k:]}, follow, end)
		if !c.agrees(w.t, whole.String(), trip.String(), k) {
			return
		}
	}
	trip := w.send(client, method, append([]string{prefix}, crumbs(c.input)...), follow, end)
	c.agrees(w.t, whole.String(), trip.String(), -1)
}

func corpusRig(t *testing.T, engine loop.Engine) *wireRig {
	e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
	l := &ledger{got: make(map[string][]arrival)}
	return &wireRig{rig: proxyOn(e, setup{}, e.Script(l.script).Address), t: t, ledger: l}
}

// noise is what a client goes on sending behind what is refused.
var noise = strings.Repeat("noise", 200)

// hopFields are those of a head that are ours to write, or the connection's.
var hopFields = []string{"Host", "Content-Length", "Connection", "Transfer-Encoding", "TE", "Upgrade", "Via", "Forwarded", "Max-Forwards",
	"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Expect", "_"}

func TestCorpusRequests(t *testing.T) {
	cases := wireCases(t, "request")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		w := corpusRig(t, engine)
		inLanes(t, cases, func(lane, _ int, c *wireCase) {
			method, _, _ := strings.Cut(c.line("request"), " ")
			switch status, reason := c.refusal(); {
			case c.short():
				w.every(lane, c, "GET", "", "", true, func(trip wireTrip) { w.nothing(c, trip) })
			case status != 0:
				follow := noise
				w.every(lane, c, "GET", "", follow, false, func(trip wireTrip) { w.refused(c, trip, status, reason) })
			default:
				w.every(lane, c, method, "", c.completion(), false, func(trip wireTrip) { w.forwarded(c, trip) })
			}
		})
		t.Logf("%d connections", w.trips.Load())
	})
}

// nothing wants neither an answer nor a request to have come of a case.
func (w *wireRig) nothing(c *wireCase, trip wireTrip) {
	assert.Empty(w.t, trip.answers, c.name)
	assert.Empty(w.t, trip.arrivals, c.name)
}

// refused wants the client to have read why, and the connection to have ended in
// order, although it went on sending.
func (w *wireRig) refused(c *wireCase, trip wireTrip, status int, reason string) {
	if !assert.Len(w.t, trip.answers, 1, c.name) {
		return
	}
	got := trip.answers[0]
	assert.Equal(w.t, status, got.status, c.name)
	assert.Contains(w.t, got.text, why(w.t, reason), c.name)
	assert.True(w.t, got.close, c.name)
	assert.False(w.t, trip.broken, c.name)
	assert.Empty(w.t, trip.arrivals, c.name)
}

// completion is the rest of the request's body, and the request behind it.
func (c *wireCase) completion() string {
	rest := ""
	if line := c.line("rest"); line != "" {
		rest = c.input[strings.Index(c.input, "\r\n\r\n")+len("\r\n\r\n"):]
	}
	body := c.line("body")
	if length, ok := strings.CutPrefix(body, "length "); ok {
		n, _ := strconv.ParseInt(length, 10, 64)
		if n > bodyRead {
			return "the beginning of a body without end"
		}
		return strings.Repeat("x", max(0, int(n)-len(rest))) + lastGet
	}
	if body == "chunked" && rest == "" {
		return "5\r\nhello\r\n0\r\n\r\n" + lastGet
	}
	return lastGet
}

// forwarded wants the upstream to have got what the corpus says.
func (w *wireRig) forwarded(c *wireCase, trip wireTrip) {
	t, line := w.t, c.line("request")
	if !assert.NotEmpty(t, trip.answers, c.name) {
		return
	}
	first := trip.answers[0]
	body := c.line("body")
	switch {
	case strings.HasPrefix(line, "CONNECT "):
		assert.Contains(t, []int{405, 501}, first.status, c.name)
		assert.Empty(t, trip.arrivals, c.name)
		return
	case slices.Contains(c.want, "expect other") && body != "none" && body != "length 0":
		assert.Equal(t, 417, first.status, c.name)
		assert.Empty(t, trip.arrivals, c.name)
		return
	}
	assert.Equal(t, 200, first.status, c.name)
	if !assert.NotEmpty(t, trip.arrivals, c.name) {
		return
	}
	got := trip.arrivals[0]
	method, rest, _ := strings.Cut(line, " ")
	gotLine := strings.SplitN(firstLine(got.head), " ", 3)
	assert.Equal(t, method, gotLine[0], c.name)
	assert.Equal(t, "HTTP/1.1", gotLine[2], c.name)
	_, target, _ := strings.Cut(rest, " ")
	if other := c.line("forward"); other != "" {
		target = other
	} else if at := strings.Index(target, " path="); at >= 0 {
		target = target[:at]
	}
	sameQuoted(t, target, gotLine[1], c.name)
	_, host, _ := strings.Cut(line, " host=")
	assert.Equal(t, quoted(t, host), fieldOf(got.head, "Host"), c.name)
	c.fieldsAgree(t, got.head, hopFields...)
	if slices.Contains(c.want, "connection keep-alive") && body != "length 9223372036854775807" {
		assert.Greater(t, len(trip.answers), 1, "%s: the connection ended", c.name)
	} else {
		assert.Len(t, trip.answers, 1, c.name)
		assert.True(t, first.close, c.name)
	}
}

func TestCorpusChunked(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	cases := wireCases(t, "chunked")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		w := corpusRig(t, engine)
		inLanes(t, cases, func(lane, _ int, c *wireCase) {
			switch status, reason := c.refusal(); {
			case c.short():
				w.every(lane, c, "POST", head, "", true, func(trip wireTrip) { w.nothing(c, trip) })
			case status != 0:
				w.every(lane, c, "POST", head, noise, false, func(trip wireTrip) { w.refused(c, trip, status, reason) })
			default:
				w.every(lane, c, "POST", head, lastGet, false, func(trip wireTrip) {
					if !assert.NotEmpty(t, trip.answers, c.name) || !assert.NotEmpty(t, trip.arrivals, c.name) {
						return
					}
					assert.Equal(t, 200, trip.answers[0].status, c.name)
					got := trip.arrivals[0]
					sameQuoted(t, c.line("data"), got.body, c.name)
					c.fieldsAgree(t, "\r\n"+got.trailer+"\r\n", "_")
				})
			}
		})
		t.Logf("%d connections", w.trips.Load())
	})
}

// An upstream's bytes, cut at every place, and the end of its connection behind
// them.
func TestCorpusResponses(t *testing.T) {
	cases := wireCases(t, "response")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		up := e.Script(func(p *looptest.Peer, _ int) {
			head := p.Head()
			if head == "" {
				return
			}
			word := strings.Split(strings.Split(head, " ")[1], "/") // "", the case, the cut
			index, _ := strconv.Atoi(word[1])
			cut, _ := strconv.Atoi(word[2])
			text := cases[index].input
			pieces := []string{text[:max(cut, 0)], text[max(cut, 0):]}
			if cut < 0 {
				pieces = crumbs(text)
			}
			for i, piece := range pieces {
				if i > 0 {
					time.Sleep(time.Millisecond)
				}
				_, _ = io.WriteString(p, piece) // the proxy may have enough
			}
			_ = p.CloseWrite()
			p.Gone()
		})
		r := proxyOn(e, setup{}, up.Address)
		var trips atomic.Int64
		ask := func(lane, index, cut int, method string) (trip wireTrip) {
			c := dialFrom(t, laneAddress(lane), r.address)
			if c == nil {
				return trip
			}
			defer c.Reset()
			trips.Add(1)
			_, err := fmt.Fprintf(c, "%s /%d/%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", method, index, cut)
			assert.NoError(t, err)
			trip.answers, trip.broken = readAnswers(c.In, method)
			return trip
		}
		inLanes(t, cases, func(lane, index int, c *wireCase) {
			whole := ask(lane, index, 0, "GET")
			c.answered(t, whole, "GET")
			c.answered(t, ask(lane, index, 0, "HEAD"), "HEAD")
			for _, k := range append(cuts(len(c.input)), -1) {
				if !c.agrees(t, whole.String(), ask(lane, index, k, "GET").String(), k) {
					return
				}
			}
		})
		t.Logf("%d connections", trips.Load())
	})
}

// answered wants the client to have got what the corpus says of a response.
func (c *wireCase) answered(t *testing.T, trip wireTrip, method string) {
	name := method + " " + c.name
	line := strings.SplitN(c.line("response")+"  ", " ", 3) // version, status, reason
	text, whole := c.body(t, method)
	if refused, _ := c.refusal(); refused != 0 || c.short() || line[1] < "200" {
		if assert.Len(t, trip.answers, 1, name) {
			assert.Equal(t, 502, trip.answers[0].status, name)
		}
		return
	}
	if !whole {
		assert.Empty(t, trip.answers, name)
		assert.True(t, trip.broken, name)
		return
	}
	if !assert.Len(t, trip.answers, 1, name) {
		return
	}
	got := trip.answers[0]
	assert.Equal(t, line[1], strconv.Itoa(got.status), name)
	assert.Equal(t, text, got.text, name)
	c.fieldsAgree(t, got.head, "Date", "Connection", "Transfer-Encoding")
}

// body is what follows the case's head, as the framing says, and whether it is
// all there.
func (c *wireCase) body(t *testing.T, method string) (text string, whole bool) {
	_, rest, _ := strings.Cut(c.input, "\r\n\r\n")
	_, framing, _ := strings.Cut("body "+c.line("body"), method+" ")
	framing, _, _ = strings.Cut(framing, ",")
	switch kind, length, _ := strings.Cut(framing, " "); kind {
	case "length":
		n, err := strconv.ParseInt(length, 10, 64)
		assert.NoError(t, err)
		return rest[:min(len(rest), int(n))], int64(len(rest)) >= n
	case "chunked":
		text, _, err := readChunked(bufio.NewReader(strings.NewReader(rest)))
		return text, err == nil
	case "close":
		return rest, true
	}
	return "", true
}
