package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// line is a client's connection.
type line struct {
	run  *chaos
	kind string
	conn *net.TCPConn
	in   *bufio.Reader

	lag        time.Duration // before each read, of a few bytes then
	allowance  int64         // bytes that are read before errCut; negative: all
	halfClosed bool
	over       bool // nothing more can be asked

	proceed   chan struct{} // closed at the first head of a response, interim or not
	continued bool          // that was 100
}

// errCut is the client's own doing.
var errCut = errors.New("cut by the client")

// dial connects, or says that Atlas does not listen.
func (run *chaos) dial(kind string) (*line, bool) {
	conn, err := net.DialTimeout("tcp", run.address, rules.hung)
	if err != nil {
		run.fail("dial: %v", err)
		return nil, false
	}
	l := &line{run: run, kind: kind, conn: conn.(*net.TCPConn), allowance: -1}
	l.in = bufio.NewReaderSize(l, 16<<10)
	return l, true
}

func (l *line) close() { _ = l.conn.Close() } // it may be closed already

// reset ends the connection with a reset.
func (l *line) reset() {
	_ = l.conn.SetLinger(0) // fails on a closed socket only
	l.close()
}

// Read reads as the client's habits are.
func (l *line) Read(p []byte) (int, error) {
	if l.allowance == 0 {
		return 0, errCut
	}
	if l.lag > 0 {
		time.Sleep(l.lag)
		p = p[:min(len(p), 16<<10)]
	}
	if l.allowance > 0 {
		p = p[:min(int64(len(p)), l.allowance)]
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(rules.hung)); err != nil {
		return 0, err
	}
	n, err := l.conn.Read(p)
	if l.allowance > 0 {
		l.allowance -= int64(n)
	}
	return n, err
}

// pace is how a request is sent.
type pace struct {
	seed  uint64        // of sizes and pauses
	piece int           // most bytes of a body in one write
	split int           // most bytes of anything in one write; 0: no bound
	pause time.Duration // most between two writes
	cut   int64         // bytes after which to stop; negative: none
}

func ordinary(rng *rand.Rand) pace {
	return pace{seed: rng.Uint64(), piece: 1 + rng.IntN(64<<10), cut: -1}
}

// sender is a request on its way.
type sender struct {
	line  *line
	ask   *ask
	pace  pace
	rng   *rand.Rand
	wrote int64
}

func (l *line) send(a *ask, p pace) error {
	s := &sender{line: l, ask: a, pace: p, rng: rand.New(rand.NewPCG(p.seed, a.id))}
	if a.bodiless() {
		return s.emit([]byte(a.head()), headSent|sent)
	}
	if err := s.emit([]byte(a.head()), headSent); err != nil {
		return err
	}
	if a.expect {
		select {
		case <-l.proceed:
			if !l.continued {
				return errCut // the answer is here
			}
		case <-time.After(time.Duration(s.rng.IntN(400)) * time.Millisecond):
		}
	}
	return s.sendBody()
}

func (s *sender) sendBody() error {
	a, body := s.ask, patternOf(s.line.run.seed, s.ask.id, upwards)
	for off := int64(0); off < a.size; {
		p := make([]byte, min(int64(1+s.rng.IntN(s.pace.piece)), a.size-off))
		body.fill(p, off)
		off += int64(len(p))
		f := fate(0)
		if a.chunked {
			p = fmt.Appendf(nil, "%x\r\n%s\r\n", len(p), p)
		} else if off == a.size {
			f = sent
		}
		if err := s.emit(p, f); err != nil {
			return err
		}
	}
	if a.chunked {
		return s.emit([]byte("0\r\n\r\n"), sent)
	}
	return nil
}

// emit sends bytes of which the last one makes a fact.
func (s *sender) emit(p []byte, f fate) (err error) {
	if most := s.pace.cut; most >= 0 && s.wrote+int64(len(p)) > most {
		p, f, err = p[:most-s.wrote], 0, errCut
	}
	if f != 0 {
		s.line.run.ledger.mark(s.ask.id, f)
	}
	s.wrote += int64(len(p))
	for len(p) > 0 {
		n := len(p)
		if s.pace.split > 0 {
			n = min(n, 1+s.rng.IntN(s.pace.split))
			time.Sleep(time.Duration(s.rng.Int64N(int64(s.pace.pause))))
		}
		if err := s.line.conn.SetWriteDeadline(time.Now().Add(rules.hung)); err != nil {
			return err
		}
		if _, err := s.line.conn.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return err
}

// exchange makes a request and receives its answer, at the same time, and has it
// judged.
func (l *line) exchange(a *ask, p pace) *answer {
	got, sent := l.begin(a, p)
	l.settle(a, got, sent)
	l.run.judge(l, a, got)
	return got
}

// begin sends and receives. The request may still be on its way then.
func (l *line) begin(a *ask, p pace) (got *answer, sent chan error) {
	l.run.ledger.issue(a, l.kind)
	l.proceed, l.continued = make(chan struct{}), false
	sent = make(chan error, 1)
	from := time.Now()
	if a.size < 16<<10 && p.split == 0 && !a.expect { // which a socket takes at once
		sent <- l.send(a, p)
	} else {
		go func() { sent <- l.send(a, p) }()
	}
	got = l.receive(a)
	got.from = from
	return got, sent
}

// settle ends the connection where its answer does, and waits for the sender.
func (l *line) settle(a *ask, got *answer, sent chan error) {
	if !got.whole || got.closing || !a.keep || a.expect && !l.continued {
		l.over = true
	}
	if l.over {
		l.checkRest(got)
		l.close()
	}
	if err := <-sent; err != nil {
		l.over = true // whatever the answer was: more is not to be asked behind half a request
		l.close()
	}
}

// checkRest: behind the last answer comes the end and nothing else.
func (l *line) checkRest(got *answer) {
	if n := l.in.Buffered(); got.whole && n > 0 {
		rest, _ := l.in.Peek(n)
		l.run.fail("%s: %d bytes behind the last answer: %.200q", l.kind, n, rest)
	}
}

// checkQuiet: nobody speaks out of turn on a connection that could go on.
func (l *line) checkQuiet() {
	if l.over {
		return
	}
	l.checkRest(&answer{whole: true})
	p := make([]byte, 200)
	_ = l.conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // fails on a closed socket only
	if n, err := l.conn.Read(p); n > 0 {
		l.run.fail("%s: it says %q, %v, and nobody has asked", l.kind, p[:n], err)
	}
}

// receive reads the final response to the request.
func (l *line) receive(a *ask) *answer {
	got := new(answer)
	defer func() {
		got.to = time.Now()
		if timeout, ok := got.err.(net.Error); ok && timeout.Timeout() {
			l.run.hang("id %d (%s): %s: nothing came for %v; so far %s", a.id, l.kind, a, rules.hung, got)
		}
	}()
	for {
		resp, err := http.ReadResponse(l.in, &http.Request{Method: a.method})
		if err != nil {
			got.err = err
			l.announce(false)
			return got
		}
		if resp.StatusCode >= 200 {
			l.announce(false)
			got.status, got.closing = resp.StatusCode, resp.Close
			l.receiveFinal(a, resp, got)
			return got
		}
		l.interim(a, resp)
	}
}

// announce lets a sender go on that waits for 100.
func (l *line) announce(continued bool) {
	select {
	case <-l.proceed:
	default:
		l.continued = continued
		close(l.proceed)
	}
}

func (l *line) interim(a *ask, resp *http.Response) {
	wanted := a.minor == 1
	switch resp.StatusCode {
	case http.StatusContinue:
		wanted = wanted && a.expect
		l.announce(true)
	case http.StatusEarlyHints:
		wanted = wanted && a.interim && resp.Header.Get("Link") == fmt.Sprintf("</%d>", a.id)
	default:
		wanted = false
	}
	if !wanted {
		l.run.fail("id %d: %s: an interim response: %d %v", a.id, a, resp.StatusCode, resp.Header)
	}
}

// receiveFinal reads a body and compares it with what it has to be.
func (l *line) receiveFinal(a *ask, resp *http.Response, got *answer) {
	own := resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusForbidden // Atlas says so
	if id := resp.Header.Get("X-Id"); id != strconv.FormatUint(a.id, 10) && !(own && id == "") {
		l.run.fail("id %d: %s: the answer is of %q: %d %v", a.id, a, id, resp.StatusCode, resp.Header)
	}
	if hop := resp.Header.Get("Keep-Alive"); hop != "" {
		l.run.fail("id %d: %s: Keep-Alive: %s is none of the client's business", a.id, a, hop)
	}
	if resp.StatusCode != http.StatusOK {
		var text []byte
		text, got.err = io.ReadAll(io.LimitReader(resp.Body, 10_000))
		got.whole, got.said = got.err == nil, strings.TrimSpace(string(text))
		return
	}
	want, size := a.body(l.run.seed)
	if a.method == http.MethodHead {
		if length := resp.ContentLength; length != size && (a.framing == byLength || length != -1) {
			l.run.fail("id %d: %s: Content-Length %d, want %d", a.id, a, length, size)
		}
		size = 0
	}
	var off int64
	off, got.err = l.compare(a, resp.Body, want)
	switch {
	case got.err != nil:
	case off > size, off < size && a.framing != byClose:
		// Only what an upstream ended by closing may be short: nobody can tell.
		l.run.fail("id %d: %s: the body ends in order after %d bytes of %d", a.id, a, off, size)
	case off < size:
		got.err = io.ErrUnexpectedEOF
	default:
		got.whole = true
	}
}

// compare reads the body to its end.
func (l *line) compare(a *ask, body io.Reader, want pattern) (off int64, err error) {
	p := make([]byte, 32<<10)
	for {
		n, err := body.Read(p)
		if at := want.differs(p[:n], off); at >= 0 {
			shown := p[at-off : min(at-off+64, int64(n))]
			right := make([]byte, len(shown))
			want.fill(right, at)
			l.run.fail("id %d (%s): %s: byte %d is wrong: %x, want %x", a.id, l.kind, a, at, shown, right)
			return off, errors.New("wrong body")
		}
		off += int64(n)
		if err == io.EOF {
			return off, nil
		}
		if err != nil {
			return off, err
		}
	}
}
