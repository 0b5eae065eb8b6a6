package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/corpus"
)

// A fake is a proxy that does one thing with every case.
type fake func(client net.Conn, head []byte, origin string)

// refuse answers itself.
func refuse(status int, reason string) fake {
	return func(client net.Conn, _ []byte, _ string) {
		body := "no (" + reason + ")"
		fmt.Fprintf(client, "HTTP/1.1 %d No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(body), body)
	}
}

// forward sends the bytes on as they came, or others in their place, and the
// answer back.
func forward(instead string) fake {
	return func(client net.Conn, head []byte, origin string) {
		up, err := net.Dial("tcp", origin)
		if err != nil {
			return
		}
		defer up.Close()
		if instead != "" {
			head = []byte(instead)
		}
		go func() { // the rest of the client's bytes, until it leaves
			_, _ = up.Write(head)
			_, _ = io.Copy(up, client)
			_ = up.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(client, up)
	}
}

func hang(client net.Conn, _ []byte, _ string) { _, _ = io.Copy(io.Discard, client) }
func closing(net.Conn, []byte, string)         {}
func swallow(client net.Conn, h []byte, o string) {
	forwardThen("HTTP/1.1 502 Bad\r\n\r\n")(client, h, o)
}

// forwardThen gives the request to the origin and answers otherwise.
func forwardThen(answer string) fake {
	return func(client net.Conn, head []byte, origin string) {
		up, err := net.Dial("tcp", origin)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = up.Write(head)
		_, _ = bufio.NewReader(up).ReadString('\n') // until the origin has answered, or closed
		fmt.Fprint(client, answer)
	}
}

// start runs a fake in front of a new lane. Sentinels it forwards honestly.
func (f fake) start(t *testing.T) *Lane {
	lane, err := NewLane()
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	lane.Proxy = listener.Addr().String()
	t.Cleanup(func() { _ = listener.Close(); lane.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				buffer := make([]byte, 64<<10)
				n, _ := client.Read(buffer)
				if bytes.HasPrefix(buffer, sentinelStart) {
					forward("")(client, buffer[:n], lane.Origin())
				} else {
					f(client, buffer[:n], lane.Origin())
				}
			}()
		}
	}()
	return lane
}

// rules is a small corpus, by names of cases.
func rules(t *testing.T) []*corpus.Rule {
	const about = "Why.\n\nRFC 9112 section 2.2.\n-- "
	read, err := corpus.Read(fstest.MapFS{
		"request/refused.txtar": {Data: []byte(about + `both.in --
POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n
-- both.want --
400 cl-te
`)},
		"request/passed.txtar": {Data: []byte(about + `get.in --
GET http://a/x HTTP/1.1\r\nHost: a\r\nX: y\r\nX: z\r\n\r\n
-- get.want --
request GET absolute "http://a/x" path="/x" HTTP/1.1 host="a"
field host Host "a"
field - X "y"
hop - X-Drop "w"
body none
forward "/x"
connection keep-alive
-- post.in --
POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe
-- post.want --
request POST origin "/" path="/" HTTP/1.1 host="a"
field host Host "a"
field content-length Content-Length "5"
body length 5
connection keep-alive
rest "he"
-- connect.in --
CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n
-- connect.want --
request CONNECT authority "a:1" path="" HTTP/1.1 host="a:1"
body none
connection keep-alive
`)},
		"request/short.txtar": {Data: []byte(about + "half.in --\nGET / HT\n-- half.want --\nshort\n")},
		"chunked/passed.txtar": {Data: []byte(about + `one.in --
2\r\nab\r\n0\r\nX: y\r\n\r\n
-- one.want --
data "ab"
field - X "y"
`)},
		"response/all.txtar": {Data: []byte(about + `refused.in --
HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n
-- refused.want --
400 cl-te
-- passed.in --
HTTP/1.1 299 OK\r\nX: y\r\nContent-Length: 5\r\n\r\n
-- passed.want --
response HTTP/1.1 299 "OK"
field - X "y"
body GET length 5, HEAD none, CONNECT none
connection keep-alive
-- endless.in --
HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n
-- endless.want --
response HTTP/1.1 200 "OK"
body GET length 999999999, HEAD none, CONNECT none
connection keep-alive
-- early.in --
HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n
-- early.want --
response HTTP/1.1 103 "Early Hints"
field - Link "a"
body GET none, HEAD none, CONNECT none
connection keep-alive
-- short.in --
HTTP/1.1 200 O
-- short.want --
short
`)},
	})
	require.NoError(t, err)
	return read
}

// outcome sends one case through a fake.
func outcome(t *testing.T, f fake, name string, strict bool) Outcome {
	for _, rule := range rules(t) {
		for i := range rule.Cases {
			if trial := newTrial(rule, &rule.Cases[i], strict); trial.name() == name {
				// Fakes do not depend on speed: what must come does come.
				if trial.goal != toWait && !trial.cut {
					trial.talk.patience = answerTime
				}
				o, err := trial.run(t.Context(), f.start(t))
				require.NoError(t, err)
				return o
			}
		}
	}
	t.Fatalf("no case %s", name)
	return Outcome{}
}

func TestOutcomes(t *testing.T) {
	for _, row := range []struct {
		name, proxy string
		f           fake
		lenient     bool
		verdict     Verdict
		wrong       string // part of it
		doubt       string // part of the first
	}{
		{"request/refused/both", "refuses", refuse(400, "cl-te"), false, Refuses, "", ""},
		{"request/refused/both", "another status", refuse(501, "cl-te"), false, Refuses, "501 instead of 400", ""},
		{"request/refused/both", "another status", refuse(501, "cl-te"), true, Refuses, "", ""},
		{"request/refused/both", "another reason", refuse(400, "other"), false, Refuses, "not give the reason, cl-te", ""},
		{"request/refused/both", "closes", closing, false, Closes, "closes instead of refusing", ""},
		{"request/refused/both", "closes", closing, true, Closes, "", ""},
		{"request/refused/both", "forwards both framings",
			forward("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
			true, Forwards, "forwards instead of refusing", "both Content-Length"},
		{"request/refused/both", "forwards one framing", forward("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
			true, Forwards, "forwards instead of refusing", ""},
		{"request/refused/both", "forwards two lengths",
			forward("POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
			true, Forwards, "instead of refusing", "2 Content-L"},
		{"request/refused/both", "leaves bytes behind", forward("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET"),
			true, Forwards, "instead of refusing", "3 bytes after the message"},
		{"request/passed/get", "forwards", forward("GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"), false, Forwards, "", ""},
		{"request/passed/get", "as it came", forward(""), true, Forwards, "", ""},
		{"request/passed/get", "as it came", forward(""), false, Forwards, `the target "http://a/x"`, ""},
		{"request/passed/get", "another target", forward("GET /y HTTP/1.1\r\nHost: a\r\n\r\n"), true, Forwards, `the target "/y"`, ""},
		{"request/passed/get", "another method", forward("PUT /x HTTP/1.1\r\nHost: a\r\n\r\n"), true, Forwards, `the method "PUT"`, ""},
		{"request/passed/get", "another host", forward("GET /x HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n"), false, Forwards, `Host as ["b"]`, ""},
		{"request/passed/get", "another host", forward("GET /x HTTP/1.1\r\nHost: b\r\n\r\n"), true, Forwards, "", ""},
		{"request/passed/get", "a field less", forward("GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), false, Forwards, "loses the field X", ""},
		{"request/passed/get", "another name", forward("GET /x HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n"),
			false, Forwards, "loses the field X", ""},
		{"request/passed/get", "a field more", forward("GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\nx-drop: 1\r\n\r\n"),
			false, Forwards, "forwards the field X-Drop", ""},
		{"request/passed/get", "refuses", refuse(400, "x"), true, Refuses, "400 instead of forwarding", ""},
		{"request/passed/get", "swallows the answer", swallow, true, Forwards, "but not the answer", ""},
		{"request/passed/post", "forwards", forward(""), false, Forwards, "", ""},
		{"request/passed/post", "another body", forward("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"),
			true, Forwards, `the body "x"`, ""},
		{"request/passed/connect", "refuses", refuse(405, ""), false, Refuses, "", ""},
		{"request/passed/connect", "forwards", forward(""), false, Forwards, "forwards instead of refusing", ""},
		{"request/short/half", "waits", hang, false, Waits, "", ""},
		{"request/short/half", "refuses", refuse(400, "x"), true, Refuses, "400 instead of waiting", ""},
		{"request/short/half", "closes", closing, true, Closes, "closes instead of waiting", ""},
		{"chunked/passed/one", "forwards", forward(""), false, Forwards, "", ""},
		{"chunked/passed/one", "forwards less", forward("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na"),
			true, Forwards, "1 bytes of content instead of 2", ""},
		{"chunked/passed/one", "without its trailer", forward("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"),
			false, Forwards, "loses the field X", ""},
		{"response/all/refused", "502", forwardThen("HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"), false, Refuses, "", ""},
		{"response/all/refused", "passes on", forward(""), false, Forwards, "forwards instead of refusing", "both Content-Length"},
		{"response/all/refused", "half of it", forwardThen("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"),
			true, Breaks, "breaks instead", ""},
		{"response/all/refused", "closes", closing, true, Closes, "", ""},
		{"response/all/passed", "passes on", forward(""), false, Forwards, "", ""},
		{"response/all/passed", "a field less", forwardThen("HTTP/1.1 299 OK\r\nContent-Length: 5\r\n\r\nxxxxx"),
			false, Forwards, "loses the field X", ""},
		{"response/all/passed", "another body", forwardThen("HTTP/1.1 299 OK\r\nContent-Length: 1\r\n\r\nx"),
			true, Forwards, `the body "x"`, ""},
		{"response/all/passed", "another status", forwardThen("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxxxxx"),
			true, Forwards, "the status 200", ""},
		{"response/all/endless", "breaks off", forward(""), false, Breaks, "", ""},
		{"response/all/early", "passes on", forward(""), false, Forwards, "", ""},
		{"response/all/early", "only the final one", forwardThen(plainAnswer), false, Forwards, "the interim response", ""},
		{"response/all/short", "passes on half", forward(""), false, Breaks, "breaks instead of waiting", ""},
		{"response/all/short", "says nothing", forwardThen(""), false, Closes, "closes when the origin closes", ""},
		{"response/all/short", "refuses early", refuse(502, "x"), true, Refuses, "502 instead of waiting", ""},
	} {
		t.Run(row.name+"/"+row.proxy, func(t *testing.T) {
			t.Parallel()
			o := outcome(t, row.f, row.name, !row.lenient)
			require.Equal(t, row.verdict, o.Verdict, "%+v", o)
			if row.wrong == "" {
				require.Empty(t, o.Wrong)
			}
			require.Contains(t, o.Wrong, row.wrong)
			require.Equal(t, row.doubt != "", len(o.Doubts) > 0, "%q", o.Doubts)
			if row.doubt != "" {
				require.Contains(t, o.Doubts[0], row.doubt)
				require.NotEmpty(t, o.Passed)
			}
		})
	}
}

// A proxy that waits for the end of a body that it should not read is given
// one, to see what it makes of the message.
func TestFiller(t *testing.T) {
	f := fake(func(client net.Conn, head []byte, origin string) {
		more := make([]byte, len(completesAny))
		if _, err := io.ReadFull(client, more); err == nil {
			forward("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"+string(more))(client, nil, origin)
		}
	})
	c := rules(t)[1]
	require.Equal(t, "refused", c.Name)
	o, err := newTrial(c, &c.Cases[0], false).run(t.Context(), f.start(t))
	require.NoError(t, err)
	require.Equal(t, Forwards, o.Verdict)
}

// A proxy that a case has killed is not the next case's fault.
func TestCheckNamesTheCase(t *testing.T) {
	lane, err := NewLane()
	require.NoError(t, err)
	defer lane.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	lane.Proxy = listener.Addr().String()
	go func() {
		client, err := listener.Accept()
		_ = listener.Close()
		if err == nil {
			_ = client.Close()
		}
	}()
	_, err = Proxy{Lanes: []*Lane{lane}}.Check(t.Context(), rules(t))
	require.ErrorContains(t, err, "request/passed/get: the proxy does not serve after it: ")
}

// Every lane's outcomes land in the corpus's order, and the report says them.
func TestReport(t *testing.T) {
	var lanes []*Lane
	for range 3 {
		lanes = append(lanes, fake(forward("")).start(t))
	}
	all := rules(t)
	done := 0
	outcomes, err := Proxy{Lanes: lanes, Progress: func(int) { done++ }}.Check(t.Context(), all)
	require.NoError(t, err)
	require.Equal(t, len(outcomes), done)
	r := &Report{
		Rules: all, Corpus: "../corpus", Machine: "linux 6.1", Date: "2026-11-25",
		Columns: []Column{{Name: "Raw", Version: "raw/1", Strict: true, Outcomes: outcomes}},
	}
	require.Contains(t, r.Wrong(r.Columns[0]), "request/refused/both: forwards instead of refusing")

	var page strings.Builder
	require.NoError(t, r.Markdown(&page))
	for _, line := range []string{
		"# The corpus of HTTP/1 rules: Raw",
		"- Raw: raw/1",
		"| [refused](../corpus/request/refused.txtar) | [9112 §2.2](https://www.rfc-editor.org/rfc/rfc9112#section-2.2) | 1 | 400 |" +
			" forwards **(1 ambiguous)** **✗** |",
		"| [short](../corpus/request/short.txtar) | [9112 §2.2](https://www.rfc-editor.org/rfc/rfc9112#section-2.2) | 1 | waits | waits |",
		"| 501; forwards | forwards **✗** |",
		"| to refuse, and passed on | 3 |",
		"- request/refused/both: both Content-Length and Transfer-Encoding. `",
	} {
		require.Contains(t, page.String(), line)
	}

	var lines bytes.Buffer
	require.NoError(t, r.JSON(&lines))
	decoder := json.NewDecoder(&lines)
	var head map[string]any
	require.NoError(t, decoder.Decode(&head))
	require.Equal(t, "2026-11-25", head["date"])
	var first jsonCase
	require.NoError(t, decoder.Decode(&first))
	require.Equal(t, "request/passed/get", first.Case)
	require.Equal(t, Forwards, first.Outcomes["Raw"].Verdict)
}

// What the corpus wants reads the same as what a proxy does that keeps it.
func TestCell(t *testing.T) {
	out := func(g goal, v Verdict, status int, wrong string, doubts ...string) Outcome {
		return Outcome{goal: g, Verdict: v, Status: status, Wrong: wrong, Doubts: doubts}
	}
	for _, row := range []struct {
		want     string
		outcomes []Outcome
	}{
		{"400, 501", []Outcome{out(toRefuse, Refuses, 501, ""), out(toRefuse, Refuses, 400, ""), out(toRefuse, Refuses, 400, "")}},
		{"closes", []Outcome{out(toRefuse, Closes, 0, "")}},
		{"1 of 2 refused **(1 ambiguous)**", []Outcome{out(toRefuse, Refuses, 400, ""), out(toRefuse, Forwards, 0, "x", "y")}},
		{"forwards, waits", []Outcome{out(toRefuse, Waits, 0, "x"), out(toRefuse, Forwards, 0, "x")}},
		{"400; forwards; waits", []Outcome{out(toWait, Waits, 0, ""), out(toPassOn, Forwards, 0, ""), out(toRefuse, Refuses, 400, "")}},
		{"forwards; waits", []Outcome{out(toRefuse, Forwards, 0, "x"), out(toPassOn, Forwards, 0, ""), out(toWait, Waits, 0, "")}},
		{"1 of 2 forwarded", []Outcome{out(toPassOn, Refuses, 400, "x"), out(toPassOn, Forwards, 0, "")}},
		{"forwards (1 altered)", []Outcome{out(toPassOn, Forwards, 0, "x"), out(toPassOn, Waits, 0, "")}},
		{"413", []Outcome{out(toPassOn, Refuses, 413, "x")}},
		{"1 of 2 wait", []Outcome{out(toWait, Waits, 0, ""), out(toWait, Refuses, 400, "x")}},
	} {
		require.Equal(t, row.want, cell(row.outcomes))
	}
}

// The origin keeps what it gets and who sent it, whatever comes late.
func TestRecorder(t *testing.T) {
	r, err := newRecorder()
	require.NoError(t, err)
	defer r.close()
	address := r.listener.Addr().String()
	r.begin(script{})
	response, err := http.Get("http://" + address + "/x")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, usualBody, string(body))
	require.NoError(t, response.Body.Close())
	response, err = http.Get("http://" + address + SentinelPath)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	requests := r.collect()
	require.Len(t, requests, 1, "the sentinel is none of the case's")
	require.Contains(t, string(requests[0]), "GET /x HTTP/1.1\r\nHost: "+address)

	r.begin(script{})
	half, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer half.Close()
	_, err = half.Write([]byte("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.records) == 1
	}, 6*answerTime, time.Millisecond)
	requests = r.collect() // ends the connection, as its peer does not
	require.LessOrEqual(t, len(requests), 1)

	r.begin(script{})
	require.Empty(t, r.collect())
}

// The real corpus becomes trials that say what to do with every case.
func TestTrials(t *testing.T) {
	all, err := corpus.Read(os.DirFS("../../proxy/h1/testdata"))
	require.NoError(t, err)
	for _, rule := range all {
		for i, o := range ideal(rule) {
			trial := newTrial(rule, &rule.Cases[i], true)
			require.LessOrEqual(t, len(trial.talk.send)+len(trial.script.reply), recordMax/2, trial.name())
			require.True(t, o.goal != toRefuse || o.Status >= 400, trial.name())
			if rule.Kind == corpus.Request {
				require.True(t, bytes.HasPrefix(trial.talk.send, rule.Cases[i].Input), "%s: byte for byte", trial.name())
			}
		}
	}
}
