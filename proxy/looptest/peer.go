package looptest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// pieceGap is how long Send waits between two pieces, so that they arrive
// apart. No test fails because they do not: it only tests less then.
const pieceGap = time.Millisecond

// Peer is a plain socket that a test drives by hand, as a client or as an
// upstream: exactly these bytes, in exactly these pieces. What does not go as
// the script says fails the test and ends the goroutine that drives the peer.
type Peer struct {
	*net.TCPConn
	In    *bufio.Reader // what was received and not yet read
	fatal func(format string, args ...any)
}

// Client connects a peer that the test's own goroutine drives.
func (e *Env) Client(address string) *Peer {
	e.Helper()
	return newPeer(e.Dial(address), e.Fatalf)
}

func newPeer(c *net.TCPConn, fatal func(string, ...any)) *Peer {
	return &Peer{TCPConn: c, In: bufio.NewReaderSize(c, 64<<10), fatal: fatal}
}

// Send sends each piece in a write of its own.
func (p *Peer) Send(pieces ...string) {
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(pieceGap)
		}
		if _, err := io.WriteString(p, piece); err != nil {
			p.fatal("send %.40q: %v", piece, err)
		}
	}
}

// Head reads a head with its empty line. It is "" at the end of the connection.
func (p *Peer) Head() string {
	var head strings.Builder
	for {
		line, err := p.In.ReadString('\n')
		head.WriteString(line)
		switch {
		case line == "\r\n" && err == nil:
			return head.String()
		case err == io.EOF, isGone(err):
			return ""
		case err != nil:
			p.fatal("read a head: %v after %q", err, head.String())
		}
	}
}

// Text reads n bytes.
func (p *Peer) Text(n int) string {
	text := make([]byte, n)
	if got, err := io.ReadFull(p.In, text); err != nil {
		p.fatal("read %d bytes: %v after %.200q", n, err, text[:got])
	}
	return string(text)
}

// Expect wants exactly text to come next.
func (p *Peer) Expect(text string) {
	got := make([]byte, len(text))
	n, err := io.ReadFull(p.In, got)
	if err != nil || string(got) != text {
		p.fatal("want %.400q, got %.400q, %v", text, got[:n], err)
	}
}

// Rest reads until the connection ends, and says how it did: nil in order.
func (p *Peer) Rest() (string, error) {
	text, err := io.ReadAll(p.In)
	return string(text), err
}

// End wants the connection to end in order, with nothing before it.
func (p *Peer) End() {
	if text, err := p.Rest(); text != "" || err != nil {
		p.fatal("want the end, got %.400q, %v", text, err)
	}
}

// Gone waits until the other side has closed, in order or not. It forgets what
// comes before that.
func (p *Peer) Gone() {
	_, err := io.Copy(io.Discard, struct{ io.Reader }{p.In})
	if err != nil && !isGone(err) {
		p.fatal("want the end, got %v", err)
	}
}

// Reset closes with RST.
func (p *Peer) Reset() {
	_ = p.SetLinger(0) // fails on a closed socket only
	_ = p.Close()
}

// Quiet wants nothing to come for a while: no bytes, no end.
func (p *Peer) Quiet() {
	_ = p.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err := p.In.Peek(1)
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		got, _ := p.In.Peek(p.In.Buffered())
		p.fatal("want nothing, got %.200q, %v", got, err)
	}
	_ = p.SetReadDeadline(time.Now().Add(patience))
}

// Response is an answer as net/http reads it, with its body.
type Response struct {
	*http.Response
	Text string
	Err  error // how reading the body ended: nil if it is whole
}

// Answer reads the final response to a request with this method, and forgets
// interim ones.
func (p *Peer) Answer(method string) *Response {
	for {
		resp, err := http.ReadResponse(p.In, &http.Request{Method: method})
		if err != nil {
			p.fatal("read a response: %v", err)
			return nil
		}
		if resp.StatusCode < 200 {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		return &Response{resp, string(text), err}
	}
}

// isGone reports an end that is not in order: by the other side, or because the
// test is over.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// Script is an upstream that does what a test says, byte by byte.
type Script struct {
	Address  loop.Address
	accepted atomic.Int64
	mu       sync.Mutex
	conns    []*net.TCPConn
	running  sync.WaitGroup
}

// Script listens, and runs serve in a goroutine for each connection; nth counts
// them from 0. A connection is closed when its script has ended.
func (e *Env) Script(serve func(p *Peer, nth int)) *Script {
	e.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	s := &Script{Address: loop.Address{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()}}
	s.running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.start(e, c.(*net.TCPConn), serve)
		}
	})
	e.Cleanup(func() {
		_ = ln.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		wait(e, "scripts to end", s.running.Wait)
	})
	return s
}

func (s *Script) start(e *Env, c *net.TCPConn, serve func(p *Peer, nth int)) {
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	nth := int(s.accepted.Add(1)) - 1
	// Longer than the tests' own patience: who waits in vain is the test.
	_ = c.SetDeadline(time.Now().Add(2 * patience))
	s.running.Go(func() {
		defer c.Close()
		serve(newPeer(c, func(format string, args ...any) {
			e.Errorf("upstream: "+format, args...)
			runtime.Goexit()
		}), nth)
	})
}

// Accepted is how many connections came.
func (s *Script) Accepted() int { return int(s.accepted.Load()) }

// Answers is a script that answers every request without a body with the same
// bytes, for as long as the connection lasts.
func Answers(response string) func(*Peer, int) {
	return func(p *Peer, _ int) {
		for p.Head() != "" {
			p.Send(response)
		}
	}
}

// Pair returns both ends of a connection: a peer, and the loop's, which was
// dialled. Use the second one in tasks only.
func (e *Env) Pair() (*Peer, loop.Conn) {
	e.Helper()
	peer, c := e.peers()
	return newPeer(peer, e.Fatalf), c
}

// Full is an address that answers no one who connects: its queue is full.
func (e *Env) Full() loop.Address {
	e.Helper()
	address, free := fullListener(e)
	e.Cleanup(free)
	return address
}

// Eventually waits until cond holds.
func (e *Env) Eventually(what string, cond func() bool) {
	e.Helper()
	e.eventually(what, cond)
}

// Pattern is n bytes that repeat nowhere near.
func Pattern(n int) []byte { return pattern(n) }
