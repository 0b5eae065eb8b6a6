package accesslog

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/stats"
)

var moment = time.Date(2026, 11, 25, 18, 22, 23, 45_600_000, time.UTC)

// sample is a record with everything in it.
func sample() *Record {
	r := new(Record)
	r.Begin(moment, HTTP11)
	r.SetAddress(Client, netip.MustParseAddr("192.0.2.7"))
	r.SetString(Peer, "10.0.0.1")
	r.SetString(Method, "GET")
	r.SetString(Target, "/a?b=c")
	r.SetString(Host, "example.org")
	r.SetString(Referer, "http://example.org/")
	r.SetString(Agent, "curl/8")
	r.SetString(RequestID, "id-1")
	r.SetTLS(&TLS{Version: 0x304, Cipher: 0x1301, Resumed: true, ServerName: "example.org",
		Subject: "CN=me", Handshake: 1500 * time.Microsecond}, true)
	r.SetTrip(&Trip{Upstream: &Upstream{Name: "app", Address: "10.0.0.9:80"}, Tries: 2, Reused: true,
		Queue: time.Millisecond, Connect: 2 * time.Millisecond, FirstByte: 3 * time.Second})
	r.Fail("http_response_incomplete", "because")
	r.End(Ending{Status: 502, Total: 4*time.Second + 1499, Body: 5 * time.Millisecond, Bytes: 10, Sent: 20, Received: 30})
	return r
}

// bare is one of which nothing is known.
func bare() *Record {
	r := new(Record)
	r.Begin(moment, NoProto)
	r.SetString(Client, "unknown")
	r.SetString(Peer, "unknown")
	r.End(Ending{Status: 400})
	return r
}

// line makes the line of a record that has gone through a ring.
func line(t testing.TB, format string, r *Record) string {
	t.Helper()
	f, err := ParseFormat(format)
	require.NoError(t, err)
	ring := newRing(ringBytes, new(stats.Counter), nil, nil)
	ring.format.Store(f)
	ring.Push(r)
	return string(ring.peek(1))
}

func TestFormats(t *testing.T) {
	for _, row := range []struct {
		name, format string
		record       *Record
		want         string
	}{
		{"json", JSON, sample(), `{"time":"2026-11-25T18:22:23.045Z","client":"192.0.2.7","peer":"10.0.0.1",` +
			`"method":"GET","target":"/a?b=c","proto":"HTTP/1.1","host":"example.org","referer":"http://example.org/",` +
			`"agent":"curl/8","request_id":"id-1","status":502,"bytes":10,"sent":20,"received":30,` +
			`"upstream":"app","address":"10.0.0.9:80","tries":2,"reused":true,"queue_ms":1.000,"connect_ms":2.000,` +
			`"first_byte_ms":3000.000,"body_ms":5.000,"total_ms":4000.001,` +
			`"tls":"TLSv1.3","cipher":"TLS_AES_128_GCM_SHA256","resumed":true,"server_name":"example.org",` +
			`"subject":"CN=me","handshake_ms":1.500,"error":"http_response_incomplete","details":"because"}`},
		{"json says nothing of what is not there", JSON, bare(), `{"time":"2026-11-25T18:22:23.045Z",` +
			`"client":"unknown","status":400,"bytes":0,"sent":0,"received":0,"total_ms":0.000}`},
		{"common", Common, sample(),
			`192.0.2.7 - - [25/Nov/2026:18:22:23 +0000] "GET /a?b=c HTTP/1.1" 502 10`},
		{"common, nothing known", Common, bare(), `unknown - - [25/Nov/2026:18:22:23 +0000] "-" 400 0`},
		{"combined", Combined, sample(), `192.0.2.7 - - [25/Nov/2026:18:22:23 +0000] "GET /a?b=c HTTP/1.1" 502 10 ` +
			`"http://example.org/" "curl/8"`},
		{"template", `{{{client}}} {status}|{reused} {resumed} {tls} {connect_ms}`, sample(),
			`{192.0.2.7} 502|true true TLSv1.3 2.000`},
		{"template, nothing known", `{reused} {resumed} {tls} {cipher} {connect_ms} {upstream} {proto}`, bare(),
			`- - - - - - -`},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, row.want+"\n", line(t, row.format, row.record))
		})
	}
}

// Each variable has a value, and JSON knows it by the same name.
func TestVariables(t *testing.T) {
	var members map[string]any
	require.NoError(t, json.Unmarshal([]byte(line(t, JSON, sample())), &members))
	names := make(map[string]bool)
	for _, v := range Variables() {
		assert.NotEmpty(t, v.Doc, v.Name)
		assert.False(t, names[v.Name], v.Name)
		names[v.Name] = true
		value := strings.TrimSuffix(line(t, "{"+v.Name+"}", sample()), "\n")
		assert.NotEqual(t, "-", value, v.Name)
		if v.Name != "time_common" && v.Name != "request" {
			require.Contains(t, members, v.Name)
			if text, is := members[v.Name].(string); is {
				assert.Equal(t, text, value, v.Name)
			}
		}
	}
	for name := range members {
		assert.True(t, names[name], name)
	}
}

func TestParseFormatErrors(t *testing.T) {
	for format, want := range map[string]string{
		"":               `"" is neither a format`,
		"jsn":            `"jsn" is neither a format`,
		"{client":        "a { without a }",
		"{client} }":     "a } without a {",
		"{}":             `no variable ""`,
		"{clint}":        `no variable "clint"`,
		"{client}\n{x}":  "control character",
		"{{client}}":     "",
		"{{ {client} }}": "",
	} {
		_, err := ParseFormat(format)
		if want == "" {
			assert.NoError(t, err, format)
		} else {
			assert.ErrorContains(t, err, want, format)
		}
	}
	f, err := ParseFormat(Off)
	assert.NoError(t, err)
	assert.Nil(t, f)
}

// hostile are texts that want to be more than a value.
var hostile = []string{
	`"`, `\`, `\"`, "a\nb", "a\rb", "\x00", "\x1b[31m", "\x7f", "ä", "\xff", "a\xc3", "\u2028", "\u0085", "😀",
	`","status":200,"x":"`, `" 200 0 "`, strings.Repeat("\xff", 40_000), strings.Repeat("x", 15) + `"`, "\xed\xa0\x80",
}

// Whatever clients send, a line is a line, and JSON parses and says the same.
func TestEscaping(t *testing.T) {
	for _, text := range hostile {
		checkLines(t, []byte(text))
	}
}

func FuzzLines(f *testing.F) {
	for _, text := range hostile {
		f.Add([]byte(text))
	}
	f.Fuzz(checkLines)
}

func checkLines(t *testing.T, value []byte) {
	r := sample()
	for _, text := range []Text{Method, Target, Host, Referer, Agent, RequestID, Subject, ServerName, Details} {
		r.Set(text, value)
	}
	got := line(t, JSON, r)
	var members struct {
		Target, Agent string
		Status        int
		Total         float64 `json:"total_ms"`
	}
	require.NoError(t, json.Unmarshal([]byte(got), &members), "%q", got)
	assert.Equal(t, 502, members.Status)
	assert.Equal(t, valid(value, 8<<10), members.Target)
	assert.Equal(t, valid(value, 1<<10), members.Agent)
	printable(t, got)

	for _, format := range []string{Common, Combined, `"{host}" "{subject}" "{details}" "{request_id}"`} {
		got := line(t, format, r)
		printable(t, got)
		for _, c := range got[:len(got)-1] {
			assert.True(t, ' ' <= c && c < 0x7f, "%q", got)
		}
		quotes := strings.Count(strings.NewReplacer(`\\`, "", `\"`, "").Replace(got), `"`)
		assert.Equal(t, strings.Count(format, `"`)+map[string]int{Common: 2, Combined: 6}[format], quotes, "%q", got)
	}
}

// valid is what JSON can say of a text.
func valid(text []byte, most int) string {
	var b strings.Builder
	for text = text[:min(len(text), most)]; len(text) > 0; {
		c, n := utf8.DecodeRune(text)
		b.WriteRune(c)
		text = text[n:]
	}
	return b.String()
}

func printable(t *testing.T, line string) {
	assert.True(t, utf8.ValidString(line), "%q", line)
	for i, c := range line {
		if end := c == '\n' && i == len(line)-1; !end {
			assert.False(t, c < ' ' || 0x7f <= c && c < 0xa0 || c == 0x2028 || c == 0x2029, "%q at %d", line, i)
		}
	}
}

func TestPlain(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				s := []byte(strings.Repeat("x", length))
				s[at] = byte(c)
				want := ' ' <= c && c <= '~' && c != '"' && c != '\\'
				if plain(s) != want {
					t.Fatalf("%q: %t", s, !want)
				}
			}
		}
	}
	assert.True(t, plain(nil))
}

func TestMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0.000", 0: "0.000", 499: "0.000", 500: "0.001", 1000: "0.001", 999_499: "0.999", 999_500: "1.000",
		time.Hour: "3600000.000", 12*time.Millisecond + 34*time.Microsecond: "12.034",
	} {
		assert.Equal(t, want, string(appendMs(nil, d)), fmt.Sprint(int64(d)))
	}
}

func TestClock(t *testing.T) {
	var c clock
	for _, at := range []time.Time{moment, moment.Add(time.Millisecond), moment.Add(time.Hour), time.Unix(0, 0), moment} {
		assert.Equal(t, at.UTC().Format("2006-01-02T15:04:05.000Z"), string(c.append(nil, at.UnixNano())))
		assert.Equal(t, at.UTC().Format("02/Jan/2006:15:04:05 +0000"), string(c.appendCommon(nil, at.UnixNano())))
	}
}

func TestAllocsFormat(t *testing.T) {
	ring := newRing(1<<16, new(stats.Counter), nil, nil)
	var r Record
	up := &Upstream{Name: "app", Address: "10.0.0.9:80"}
	fill := func() {
		r.Begin(moment, HTTP11)
		r.SetString(Target, "/some/path")
		r.SetTrip(&Trip{Upstream: up, Tries: 1})
		r.End(Ending{Status: 200, Total: time.Second})
	}
	for _, format := range []string{JSON, Combined} {
		f, _ := ParseFormat(format)
		ring.format.Store(f)
		log := func() {
			fill()
			ring.Push(&r)
			ring.take(len(ring.peek(1 << 16)))
		}
		log()
		assert.Zero(t, testing.AllocsPerRun(100, log), format)
	}
}

func BenchmarkRecord(b *testing.B) {
	ring := newRing(1<<20, new(stats.Counter), nil, nil)
	up := Trip{Upstream: &Upstream{Name: "origin", Address: "127.0.0.1:8080"}, Tries: 1, Reused: true, FirstByte: 90_000}
	var r Record
	push := func() {
		r.Begin(moment, HTTP11)
		r.SetString(Method, "GET")
		r.SetString(Target, "/1k.html")
		r.SetString(Host, "127.0.0.1:8080")
		r.SetString(Peer, "127.0.0.1")
		r.SetTrip(&up)
		r.End(Ending{Status: 200, Total: 140_000, Bytes: 1024, Sent: 1300, Received: 45})
		ring.Push(&r)
	}
	for _, format := range []string{JSON, Combined} {
		b.Run("format="+format, func(b *testing.B) {
			f, err := ParseFormat(format)
			require.NoError(b, err)
			ring.format.Store(f)
			for b.Loop() {
				push()
				if lines := ring.peek(callMany); len(lines) > callMany/2 {
					ring.take(len(lines))
				}
			}
			ring.take(len(ring.peek(callMany)))
			b.SetBytes(int64(len(ring.line)))
		})
	}
}

// The page for people has every variable, with the same words.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/access-log.md")
	require.NoError(t, err)
	head, _, found := strings.Cut(string(page), "|---|---|\n")
	require.True(t, found)
	var rows strings.Builder
	for _, v := range Variables() {
		fmt.Fprintf(&rows, "| %s | %s |\n", v.Name, v.Doc)
	}
	want := head + "|---|---|\n" + rows.String()
	if *update {
		require.NoError(t, os.WriteFile("../../docs/access-log.md", []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(page), "make it with: go test ./proxy/accesslog -update")
}

var update = flag.Bool("update", false, "rewrite the table of docs/access-log.md")
