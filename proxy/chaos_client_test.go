package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// client behaves in one way after the other.
type client struct {
	run *chaos
	rng *rand.Rand
}

// habits are the ways in which clients behave, and how often.
var habits = []struct {
	name   string
	weight int
	do     func(*client, *line)
}{
	{"session", 30, (*client).session},
	{"pipeline", 15, (*client).pipeline},
	{"large", 6, (*client).large},
	{"expect", 6, (*client).expect},
	{"http10", 6, (*client).oldVersion},
	{"slow reader", 6, (*client).slowReader},
	{"slow writer", 6, (*client).slowWriter},
	{"half close", 4, (*client).halfClose},
	{"abort request", 8, (*client).abortRequest},
	{"abort response", 8, (*client).abortResponse},
	{"faulty upstream", 6, (*client).faultyUpstream},
	{"malformed", 3, (*client).malformed},
	{"never reads", 1, (*client).neverReads},
	{"staller", 1, (*client).staller},
}

// behave goes on until the phase is over.
func (c *client) behave() {
	sum := 0
	for _, h := range habits {
		sum += h.weight
	}
	for !c.run.isOver() {
		n := c.rng.IntN(sum)
		for _, h := range habits {
			if n -= h.weight; n < 0 {
				if l, ok := c.run.dial(h.name); ok {
					h.do(c, l)
					l.checkQuiet()
					l.close()
				}
				break
			}
		}
	}
}

// think is the time between two requests.
func (c *client) think() {
	most := 30 * time.Millisecond
	if c.rng.IntN(20) == 0 {
		most = waits.idle / 5
	}
	c.run.sleep(time.Duration(c.rng.Int64N(int64(most))))
}

// session asks one thing after the other.
func (c *client) session(l *line) {
	for range 1 + c.rng.IntN(20) {
		if l.over || c.run.isOver() {
			return
		}
		a := randomAsk(c.rng, bodyMax)
		a.keep = c.rng.IntN(20) > 0
		l.exchange(a, ordinary(c.rng))
		c.think()
	}
}

// pipeline asks without waiting for answers.
func (c *client) pipeline(l *line) {
	asks := make([]*ask, 2+c.rng.IntN(10))
	for i := range asks {
		a := randomAsk(c.rng, 20_000)
		if c.rng.IntN(2) == 0 {
			a.method, a.size, a.chunked, a.act = "GET", 0, false, actMake
		}
		c.run.ledger.issue(a, l.kind)
		asks[i] = a
	}
	from, p := time.Now(), ordinary(c.rng)
	sent := make(chan error, 1)
	go func() {
		for _, a := range asks {
			if err := l.send(a, p); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for _, a := range asks {
		l.proceed = make(chan struct{})
		got := l.receive(a)
		got.from = from
		c.run.judge(l, a, got)
		if l.over = !got.whole || got.closing; l.over {
			l.checkRest(got)
			break // who sent more behind it knows nothing of that
		}
	}
	if l.over {
		l.close()
	}
	<-sent
}

// large sends and receives as much as there is.
func (c *client) large(l *line) {
	a := randomAsk(c.rng, bodyMax)
	a.reply = c.rng.Int64N(bodyMax + 1)
	if a.method != "GET" && a.method != "HEAD" && a.method != "DELETE" {
		a.size = c.rng.Int64N(bodyMax + 1)
	}
	l.exchange(a, ordinary(c.rng))
}

func withBody(rng *rand.Rand, a *ask, size int64) *ask {
	if a.bodiless() {
		a.method, a.size = "POST", 1+rng.Int64N(size)
	}
	return a
}

// expect waits for 100 before it sends a body, though not for ever.
func (c *client) expect(l *line) {
	for range 3 {
		if l.over {
			return
		}
		a := withBody(c.rng, randomAsk(c.rng, 200_000), 20_000)
		a.expect = true
		l.exchange(a, ordinary(c.rng))
	}
}

func (c *client) oldVersion(l *line) {
	keep := c.rng.IntN(2) == 0
	for range 4 {
		if l.over {
			return
		}
		a := randomAsk(c.rng, 200_000)
		a.minor, a.keep, a.chunked = 0, keep, false
		l.exchange(a, ordinary(c.rng))
	}
}

func (c *client) slowReader(l *line) {
	// Less than a segment of loopback would stall TCP itself, 200 ms at a time.
	_ = l.conn.SetReadBuffer(64 << 10) // a hint
	l.lag = time.Duration(1+c.rng.IntN(5)) * time.Millisecond
	a := randomAsk(c.rng, 20_000)
	a.reply = c.rng.Int64N(1_000_000)
	l.exchange(a, ordinary(c.rng))
}

func (c *client) slowWriter(l *line) {
	a := withBody(c.rng, randomAsk(c.rng, 20_000), 20_000)
	p := ordinary(c.rng)
	p.split, p.pause = 400, 20*time.Millisecond
	l.exchange(a, p)
}

// halfClose says that it has nothing more to send, and wants its answer.
func (c *client) halfClose(l *line) {
	a := randomAsk(c.rng, 16<<10)
	l.halfClosed, l.over = true, true
	c.run.ledger.issue(a, l.kind)
	from := time.Now()
	if err := l.send(a, ordinary(c.rng)); err == nil {
		_ = l.conn.CloseWrite() // the answer may be here, and the connection gone
	}
	l.proceed = make(chan struct{})
	got := l.receive(a)
	got.from = from
	c.run.judge(l, a, got)
}

// abortRequest leaves at any byte of a request, or behind it.
func (c *client) abortRequest(l *line) {
	a := randomAsk(c.rng, bodyMax)
	c.run.ledger.issue(a, l.kind)
	p := ordinary(c.rng)
	p.cut = 1 + c.rng.Int64N(int64(len(a.head()))+a.size+10)
	if c.rng.IntN(3) == 0 {
		p.cut = 1 + c.rng.Int64N(int64(len(a.head())))
	}
	var both sync.WaitGroup
	both.Go(func() { _ = l.send(a, p) }) // its error is the aim
	if c.rng.IntN(2) == 0 {
		l.proceed, l.allowance = make(chan struct{}), c.rng.Int64N(1000)
		both.Go(func() { l.receive(a) })
	}
	c.run.sleep(time.Duration(c.rng.IntN(100)) * time.Millisecond)
	c.leave(l)
	both.Wait()
}

// leave ends the connection in one of the ways there are.
func (c *client) leave(l *line) {
	if c.rng.IntN(2) == 0 {
		l.reset()
	}
	l.close()
	l.over = true
	c.run.count("aborted")
}

// abortResponse leaves at any byte of a response.
func (c *client) abortResponse(l *line) {
	a := randomAsk(c.rng, bodyMax)
	a.reply = c.rng.Int64N(bodyMax)
	l.allowance = c.rng.Int64N(max(a.reply, a.size) + 300)
	if c.rng.IntN(2) == 0 {
		l.allowance = c.rng.Int64N(300)
	}
	_, sent := l.begin(a, ordinary(c.rng))
	c.leave(l)
	<-sent
}

// faultyUpstream asks for trouble.
func (c *client) faultyUpstream(l *line) {
	if c.rng.IntN(2) == 0 { // on a connection that was used before
		l.exchange(randomAsk(c.rng, 2000), ordinary(c.rng))
	}
	if l.over {
		return
	}
	a := randomAsk(c.rng, 20_000)
	if a.method == "HEAD" {
		a.method = "GET"
	}
	a.act, a.reply, a.framing = faults[c.rng.IntN(len(faults))], 100+c.rng.Int64N(20_000), byLength
	if c.rng.IntN(2) == 0 {
		a.framing = byChunks
	}
	l.exchange(a, ordinary(c.rng))
}

// nonsense is what is no request, and the status that it gets.
var nonsense = []struct {
	text   string
	status int
}{
	{"GET / HTTP/1.1\r\n\r\n", 400},
	{"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
	{"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400},
	{"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505},
	{"GET /" + strings.Repeat("a", 20_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
	{"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 20_000) + "\r\n\r\n", 431},
}

// malformed sends what is no request, perhaps behind one that is.
func (c *client) malformed(l *line) {
	if c.rng.IntN(2) == 0 {
		l.exchange(randomAsk(c.rng, 2000), ordinary(c.rng))
	}
	if l.over {
		return
	}
	l.over = true
	row := nonsense[c.rng.IntN(len(nonsense))]
	if _, err := io.WriteString(l.conn, row.text); err != nil {
		c.run.fail("malformed: write: %v", err)
		return
	}
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		c.run.fail("malformed: %.80q: %v, want status %d", row.text, err, row.status)
		return
	}
	if resp.StatusCode != row.status || !resp.Close {
		c.run.fail("malformed: %.80q: status %d, close %v", row.text, resp.StatusCode, resp.Close)
	}
	c.run.count(fmt.Sprintf("malformed %d", resp.StatusCode))
}

// neverReads asks for much, and takes none of it.
func (c *client) neverReads(l *line) {
	a := randomAsk(c.rng, 20_000)
	a.reply = bodyMax
	c.run.ledger.issue(a, l.kind)
	sent := make(chan error, 1)
	go func() { sent <- l.send(a, ordinary(rand.New(rand.NewPCG(a.id, 0)))) }()
	c.run.sleep(time.Duration(c.rng.Int64N(int64(waits.write * 3 / 2))))
	c.leave(l)
	<-sent
}

// staller stops in the middle of a request. Atlas ends that, in time.
func (c *client) staller(l *line) {
	a := withBody(c.rng, randomAsk(c.rng, 20_000), 20_000)
	c.run.ledger.issue(a, l.kind)
	l.over = true
	p := ordinary(c.rng)
	p.cut = 1 + c.rng.Int64N(int64(len(a.head()))+a.size-1)
	if err := l.send(a, p); err != errCut {
		return // answered early
	}
	ended := make(chan error, 1)
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(l), &http.Request{Method: a.method})
		if err == nil && resp.StatusCode == http.StatusRequestTimeout {
			c.run.count("stalled 408")
		} else if err == nil {
			c.run.count(fmt.Sprintf("stalled %d", resp.StatusCode))
		}
		ended <- err
	}()
	select {
	case <-c.run.phase.Done():
		l.close()
	case <-time.After(rules.hung):
		c.run.hang("id %d: %s: a client that sent %d bytes is still waited for", a.id, a, p.cut)
		l.close()
	case <-ended:
		return
	}
	<-ended
}
