package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// pattern is an endless body. Every byte of it follows from the seed of the run,
// the id of its request, its direction and its place: who receives it knows it
// without having been sent a checksum, and can say which byte is the first wrong
// one. Bytes of another message, or of another place, are wrong ones.
type pattern uint64

// Directions of a body.
const (
	upwards   = 0 // from the client
	downwards = 1 // made by the upstream
)

func patternOf(seed, id uint64, direction uint64) pattern {
	return pattern(mix(seed + mix(2*id+direction)))
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable
// pseudorandom number generators).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// fill puts the bytes from off into p.
func (b pattern) fill(p []byte, off int64) {
	var word [8]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(word[:], mix(uint64(b)+uint64(off/8)*0x9e3779b97f4a7c15))
		n := copy(p, word[off%8:])
		p, off = p[n:], off+int64(n)
	}
}

// differs is the place of the first byte of p that is not the pattern's, where p
// starts at off; -1 if there is none.
func (b pattern) differs(p []byte, off int64) int64 {
	var want [4096]byte
	for len(p) > 0 {
		n := min(len(p), len(want))
		b.fill(want[:n], off)
		if !bytes.Equal(p[:n], want[:n]) {
			for i := range n {
				if p[i] != want[i] {
					return off + int64(i)
				}
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return -1
}

// act is what an upstream is asked to do.
type act string

const (
	actEcho  act = "echo"  // send the body back while it comes
	actMake  act = "make"  // read the body, then send one of its own
	actEarly act = "early" // refuse it without reading the body

	// The rest misbehave.
	actClose     act = "close"     // end the connection instead of answering
	actReset     act = "reset"     // reset it
	actGarbage   act = "garbage"   // say what is no HTTP
	actTruncate  act = "truncate"  // end the connection within the response body
	actResetBody act = "resetbody" // reset it there
)

var faults = []act{actClose, actReset, actGarbage, actTruncate, actResetBody}

// Framings of a response body.
const (
	byLength = "length"
	byChunks = "chunks"
	byClose  = "close"
)

// ask is one request, and what is to come of it.
type ask struct {
	id     uint64
	method string
	minor  int // HTTP/1.minor
	keep   bool
	expect bool

	size    int64 // of the request body
	chunked bool

	act     act
	reply   int64  // size of the response body; actEcho ignores it
	framing string // of the response body
	delay   time.Duration
	interim bool // a 103 first
}

func (a *ask) String() string {
	return fmt.Sprintf("%s HTTP/1.%d chunked=%v expect=%v keep=%v", a.line(), a.minor, a.chunked, a.expect, a.keep)
}

func (a *ask) line() string {
	query := url.Values{
		"size": {strconv.FormatInt(a.size, 10)}, "reply": {strconv.FormatInt(a.reply, 10)},
		"framing": {a.framing}, "delay": {a.delay.String()},
	}
	if a.interim {
		query.Set("interim", "1")
	}
	return fmt.Sprintf("%s /%s/%d?%s", a.method, a.act, a.id, query.Encode())
}

// head is the request's head on the wire.
func (a *ask) head() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s HTTP/1.%d\r\nHost: chaos.test\r\nX-Id: %d\r\n", a.line(), a.minor, a.id)
	switch {
	case a.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case a.size > 0 || a.method != "GET" && a.method != "HEAD":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", a.size)
	}
	if a.expect {
		b.WriteString("Expect: 100-continue\r\n")
	}
	switch {
	case a.keep && a.minor == 0:
		b.WriteString("Connection: keep-alive\r\n")
	case !a.keep && a.minor == 1:
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// readAsk is what an upstream understands of a request.
func readAsk(r *http.Request) (a ask, err error) {
	path := strings.Split(r.URL.Path, "/")
	if len(path) != 3 {
		return a, fmt.Errorf("path %q", r.URL.Path)
	}
	query := r.URL.Query()
	number := func(text string) int64 {
		n, failed := strconv.ParseInt(text, 10, 64)
		if failed != nil {
			err = failed
		}
		return n
	}
	a = ask{
		id: uint64(number(path[2])), method: r.Method, act: act(path[1]),
		size: number(query.Get("size")), reply: number(query.Get("reply")),
		framing: query.Get("framing"), interim: query.Has("interim"),
	}
	a.delay, _ = time.ParseDuration(query.Get("delay"))
	if err == nil && r.Header.Get("X-Id") != path[2] {
		err = fmt.Errorf("X-Id is %q in the head of %s", r.Header["X-Id"], r.URL)
	}
	return a, err
}

// body is the response body that the ask is to get.
func (a *ask) body(seed uint64) (pattern, int64) {
	if a.act == actEcho {
		return patternOf(seed, a.id, upwards), a.size
	}
	return patternOf(seed, a.id, downwards), a.reply
}

// idempotent: it may be sent twice.
func (a *ask) idempotent() bool { return a.method != "POST" && a.method != "PATCH" }

// bodiless: all of it is in its head.
func (a *ask) bodiless() bool { return a.size == 0 && !a.chunked }

// faulty: the upstream is asked to misbehave.
func (a *ask) faulty() bool {
	for _, fault := range faults {
		if a.act == fault {
			return true
		}
	}
	return false
}

// bodyMax is the largest body.
const bodyMax = 10 << 20

// randomSize is mostly small, and up to most.
func randomSize(rng *rand.Rand, most int64) int64 {
	permille := rng.IntN(1000)
	for _, row := range []struct {
		below int
		size  int64
	}{{150, 0}, {600, 2000}, {850, 20_000}, {970, 200_000}, {993, 2_000_000}} {
		if permille < row.below {
			return min(rng.Int64N(row.size+1), most)
		}
	}
	return min(rng.Int64N(bodyMax+1), most)
}

var methods = []string{
	"GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "HEAD",
	"POST", "POST", "POST", "POST", "POST", "PATCH", "PUT", "PUT", "PUT", "DELETE",
}

// randomAsk is a request that a well-behaved upstream answers, with bodies up to
// most. It has no id yet.
func randomAsk(rng *rand.Rand, most int64) *ask {
	a := &ask{
		method: methods[rng.IntN(len(methods))], minor: 1, keep: true, act: actMake,
		reply: randomSize(rng, most), framing: [...]string{byLength, byLength, byChunks, byClose}[rng.IntN(4)],
	}
	if a.method == "POST" || a.method == "PATCH" || a.method == "PUT" {
		a.size, a.chunked = randomSize(rng, most), rng.IntN(2) == 0
		if rng.IntN(2) == 0 {
			a.act = actEcho
		}
		if rng.IntN(25) == 0 {
			a.act, a.size = actEarly, rng.Int64N(min(most, 400_000))
		}
	}
	if rng.IntN(8) == 0 {
		a.delay = time.Duration(rng.IntN(50)) * time.Millisecond
	}
	a.interim = rng.IntN(12) == 0
	return a
}
