package forward_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// What the Rust original gets wrong with bodies and heads; the table is in the
// repository's original_test.go.

// chunkedEnds are bodies in which something looks like an end that is none, or
// the end does not look like one.
var chunkedEnds = []struct{ name, field, chunks, body string }{
	{"a field that ends in 0", "Age: 0", "5\r\nhello\r\n0\r\n\r\n", "hello"},
	{"a field that is 0", "X: 0", "0\r\n\r\n", ""},
	{"a chunk whose size ends in 0", "X: y", "10\r\n\r\n0\r\n\r\n012345678\r\n0\r\n\r\n", "\r\n0\r\n\r\n012345678"},
	{"data that begin like an end", "X: y", "5\r\n0\r\n\r\n\r\n1\r\nx\r\n0\r\n\r\n", "0\r\n\r\nx"},
	{"data that end like the beginning of one", "X: y", "4\r\na\r\n0\r\n0\r\n\r\n", "a\r\n0"},
	{"a size with zeros before it", "X: y", "000005\r\nhello\r\n000\r\n\r\n", "hello"},
	{"an extension of the last chunk", "X: y", "5;a=0\r\nhello\r\n0;b=\"0\"\r\n\r\n", "hello"},
	{"a trailer", "X: y", "5\r\nhello\r\n0\r\nX-Sum: 0\r\n\r\n", "hello"},
	{"a trailer of two", "X: y", "5\r\nhello\r\n0\r\nX-Sum: 0\r\nX-Other: 0\r\n\r\n", "hello"},
}

// A chunked body ends where its chunks say so, and nowhere else: what follows is
// the next message, in both directions.
func TestChunkedEnd(t *testing.T) {
	for _, row := range chunkedEnds {
		t.Run(row.name, func(t *testing.T) {
			head := "Transfer-Encoding: chunked\r\n" + row.field + "\r\n\r\n"
			script := func(p *looptest.Peer, _ int) {
				for head := p.Head(); head != ""; head = p.Head() {
					if strings.HasPrefix(head, "POST") {
						body, _, err := readChunked(p.In)
						assert.NoError(t, err)
						assert.Equal(t, row.body, body)
						p.Send(ok)
						continue
					}
					p.Send("HTTP/1.1 200 OK\r\n"+head[:0]+"Transfer-Encoding: chunked\r\n"+row.field+"\r\n\r\n", row.chunks)
				}
			}
			engines(t, setup{}, script, func(t *testing.T, r *rig) {
				c := r.Client(r.address)
				request := "POST / HTTP/1.1\r\nHost: x\r\n" + head + row.chunks
				c.Send(request+get+request, get)
				for range 2 {
					assert.Equal(t, "ok", c.Answer("POST").Text)
					assert.Equal(t, row.body, c.Answer("GET").Text)
				}
				c.Send("POST / HTTP/1.1\r\nHost: x\r\n"+head, row.chunks)
				assert.Equal(t, "ok", c.Answer("POST").Text)
				c.Quiet()
				assert.Equal(t, 1, r.idle())
				r.blamed(nil, nil)
			})
		})
	}
}

// numbered are n fields, of which each is its own.
func numbered(n int) (lines string) {
	for i := range n {
		lines += fmt.Sprintf("X-%d: %d\r\n", i, i)
	}
	return lines
}

// A hundred fields go through; with one more the head is refused, and not one
// byte of it goes on.
func TestManyFields(t *testing.T) {
	const most = 100
	seen := make(recorder, 1)
	script := func(p *looptest.Peer, _ int) {
		for head := p.Head(); head != ""; head = p.Head() {
			seen <- head
			count, _ := strconv.Atoi(strings.Split(head, " ")[1][1:])
			p.Send("HTTP/1.1 200 OK\r\nDate: d\r\n" + numbered(count-2) + "Content-Length: 0\r\n\r\n")
		}
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		for _, cut := range []int{0, 30, 500} {
			c := r.Client(r.address)
			request := fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: x\r\n%s\r\n", most, numbered(most-1))
			c.Send(request[:cut], request[cut:])
			assert.Equal(t, "HTTP/1.1 200 OK\r\nDate: d\r\n"+numbered(most-2)+"Content-Length: 0\r\n\r\n", c.Head())
			assert.Equal(t, numbered(most-1), strings.Join(append(fields(<-seen), ""), "\r\n"))

			c.Send(fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", most+1))
			assert.Equal(t, 502, c.Answer("GET").StatusCode)
			<-seen
			assert.Zero(t, r.idle())

			c.Send(fmt.Sprintf("GET /1 HTTP/1.1\r\nHost: x\r\n%s\r\n%s", numbered(most), get))
			assert.Equal(t, 431, c.Answer("GET").StatusCode)
			c.End()
			assert.Empty(t, seen)
		}
	})
}

// hugeSizes are what a message may announce, and never send.
var hugeSizes = []int64{99_999_999_999, 1<<62 - 1, 1<<63 - 1}

// A length is a promise and no order: nothing is reserved for it, nothing waits
// for all of it, and nothing breaks.
func TestHugeLengths(t *testing.T) {
	const each = 20
	framings := func(size int64) []string {
		return []string{
			fmt.Sprintf("Content-Length: %d\r\n\r\nhello", size),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\nhello", size),
		}
	}
	script := func(p *looptest.Peer, _ int) {
		head := p.Head()
		if strings.HasPrefix(head, "GET /huge") {
			word := strings.Split(strings.Fields(head)[1], "/")
			size, _ := strconv.Atoi(word[2])
			framing, _ := strconv.Atoi(word[3])
			p.Send("HTTP/1.1 200 OK\r\n" + framings(hugeSizes[size])[framing])
		} else if head != "" {
			_, _ = io.CopyN(io.Discard, p.In, 5)
			p.Send(ok) // before it has the rest
		}
		p.Gone()
	}
	engines(t, setup{}, script, func(t *testing.T, r *rig) {
		other := r.Client(r.address)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range each {
			for i, size := range hugeSizes {
				for k, framing := range framings(size) {
					up, down := r.Client(r.address), r.Client(r.address)
					up.Send("POST / HTTP/1.1\r\nHost: x\r\n" + framing)
					assert.Equal(t, "ok", up.Answer("POST").Text)
					up.Reset()
					down.Send(fmt.Sprintf("GET /huge/%d/%d HTTP/1.1\r\nHost: x\r\n\r\n", i, k))
					resp, err := http.ReadResponse(down.In, nil)
					if assert.NoError(t, err) {
						text := make([]byte, 5)
						_, err = io.ReadFull(resp.Body, text)
						assert.NoError(t, err)
						assert.Equal(t, "hello", string(text))
					}
					down.Reset()
				}
			}
		}
		runtime.ReadMemStats(&after)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(128<<20), "what all took together")
		for _, bad := range []string{
			"Content-Length: 9223372036854775808\r\n\r\n", "Content-Length: 18446744073709551617\r\n\r\n",
			"Content-Length: 99999999999999999999999999\r\n\r\n",
			"Transfer-Encoding: chunked\r\n\r\n8000000000000000000\r\n", "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		} {
			c := r.Client(r.address)
			c.Send("POST / HTTP/1.1\r\nHost: x\r\n" + bad + "hello")
			assert.Equal(t, 400, c.Answer("POST").StatusCode, bad)
		}
		assert.Zero(t, r.Loop.Counters().Panics.Load())
		other.Send(post)
		assert.Equal(t, "ok", other.Answer("POST").Text)
		r.settled()
		assert.Zero(t, r.stats.ClientErrors[stats.RequestTimeout].Load())
	})
}

// token is 8 bytes that say whose they are.
func token(client, request int) string { return fmt.Sprintf("<%03d.%02d>", client%1000, request%100) }

// owned reports that text is nothing but this token, over and over, as far as it
// goes.
func owned(text []byte, token string) bool {
	for i, c := range text {
		if c != token[i%len(token)] {
			return false
		}
	}
	return true
}

// Bodies that break off on every side, at any place: no byte of one exchange
// shows up in another, on connections that go from one to the next.
func TestStreamsDoNotMix(t *testing.T) {
	l := thinned(load{clients: 24, requests: 32, sizeMax: 400_000})
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
		var aborted, whole atomic.Int64
		r := proxyOn(e, setup{}, e.Script(ownedScript(t, l)).Address, e.Script(ownedScript(t, l)).Address)
		var clients sync.WaitGroup
		for client := range l.clients {
			clients.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(client), 3))
				for request := range l.requests {
					c := dialQuietly(r.address)
					if c == nil {
						t.Error("no connection")
						return
					}
					if ownedExchange(t, c, rng, l, token(client, request)) {
						whole.Add(1)
					} else {
						aborted.Add(1)
					}
					c.Reset()
				}
			})
		}
		clients.Wait()
		r.settled()
		assert.Positive(t, aborted.Load())
		assert.Positive(t, whole.Load())
		assert.Zero(t, r.Loop.Counters().Panics.Load())
		t.Logf("%d whole, %d broke off", whole.Load(), aborted.Load())
	})
}

// ownedScript reads a body of one token and answers with a body of the same one.
// Sometimes it breaks off, or answers before it has all.
func ownedScript(t *testing.T, l load) func(*looptest.Peer, int) {
	return func(p *looptest.Peer, nth int) {
		rng := rand.New(rand.NewPCG(uint64(nth), 5))
		for {
			head, _ := readHead(p.In)
			if head == "" {
				return
			}
			if !assert.Regexp(t, "^P(OST? ?)?", head[:min(2, len(head))], "a request does not begin where it has to: %.80q", head) {
				return
			}
			word := strings.Fields(head)
			if len(word) < 2 || !strings.HasSuffix(head, "\r\n\r\n") {
				return // it broke off
			}
			own := word[1][1:]
			early := rng.IntN(8) == 0
			if !early {
				var body []byte
				if fieldOf(head, "Transfer-Encoding") != "" {
					text, _, err := readChunked(p.In)
					if body = []byte(text); err != nil {
						assert.True(t, owned(body, own), "%s got another's bytes", own)
						return
					}
				} else {
					length, _ := strconv.Atoi(fieldOf(head, "Content-Length"))
					body = make([]byte, length)
					n, err := io.ReadFull(p.In, body)
					if err != nil {
						assert.True(t, owned(body[:n], own), "%s got another's bytes", own)
						return
					}
				}
				assert.True(t, owned(body, own), "%s got another's bytes", own)
			}
			size := rng.IntN(l.sizeMax) / 8 * 8
			text := "HTTP/1.1 200 OK\r\nX-Own: " + own + "\r\n"
			if rng.IntN(2) == 0 {
				text += fmt.Sprintf("Content-Length: %d\r\n\r\n", size) + strings.Repeat(own, size/8)
			} else {
				text += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size+8) + strings.Repeat(own, size/8+1) + "\r\n0\r\n\r\n"
			}
			cut := len(text)
			if rng.IntN(4) == 0 {
				cut = rng.IntN(cut)
			}
			if _, err := io.WriteString(p, text[:cut]); err != nil || early || cut < len(text) {
				if rng.IntN(2) == 0 {
					p.Reset()
				}
				return
			}
		}
	}
}

// ownedExchange sends a body of the token and reads one, and breaks off sometimes.
// It reports whether the exchange was whole.
func ownedExchange(t *testing.T, c *looptest.Peer, rng *rand.Rand, l load, own string) bool {
	size := rng.IntN(l.sizeMax) / 8 * 8
	text := "POST /" + own + " HTTP/1.1\r\nHost: x\r\n"
	if rng.IntN(2) == 0 {
		text += fmt.Sprintf("Content-Length: %d\r\n\r\n", size) + strings.Repeat(own, size/8)
	} else {
		text += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size+8) + strings.Repeat(own, size/8+1) + "\r\n0\r\n\r\n"
	}
	cut := len(text)
	if rng.IntN(4) == 0 {
		cut = rng.IntN(cut)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c, text[:cut]) // the answer may come before the end
		if cut < len(text) {
			c.Reset()
		}
	}()
	defer func() { <-sent }()
	defer c.Reset()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return false
	}
	most := int64(1 << 30)
	if rng.IntN(4) == 0 {
		most = int64(rng.IntN(l.sizeMax))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if resp.StatusCode == 200 {
		assert.Equal(t, own, resp.Header.Get("X-Own"))
		assert.True(t, owned(body, own), "%s got another's bytes", own)
	} else {
		assert.Equal(t, 502, resp.StatusCode)
	}
	return err == nil && cut == len(text) && most == 1<<30
}
