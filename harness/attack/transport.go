package attack

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// headMax bounds the head of an answer; it is also the read buffer, but
	// for large answers, where a read must not be what the load waits for.
	headMax   = 16 << 10
	bufferMax = 256 << 10
	// One answer in sampledEvery of each connection, the first included, has
	// its body hashed; the length is checked of all.
	sampledEvery = 64
)

// errClosed is the error of requests after close.
var errClosed = errors.New("load generator: closed")

// transport is an http.RoundTripper that knows one request and one right
// answer. Go's own would saturate at half of what one nginx core serves;
// this one comes close to wrk. It speaks HTTP/1.1 on persistent connections,
// at most as many as it has callers. Safe for concurrent use.
type transport struct {
	target  Target
	request []byte
	brief   bool // each connection is for one request, which asks for its end
	buffer  int  // bytes of each connection's
	sum     [sha256.Size]byte
	// right is the answer to everything that passed the checks. The client
	// only reads it, so that one serves all.
	right *http.Response
	// full is the answer to what was shed; nil where that is an error.
	full *http.Response

	mu     sync.Mutex
	closed bool
	all    map[*conn]bool
	idle   []*conn // last in, first out
	sizes  sizes
}

// sizes are the least and the most bytes a right answer took on the wire.
type sizes struct {
	least, most int
}

func newTransport(target Target, conns int) *transport {
	return &transport{
		target:  target,
		request: target.request(),
		buffer:  max(headMax, min(target.Length, bufferMax)),
		sum:     target.expected(),
		right: &http.Response{
			Status: "200 OK", StatusCode: http.StatusOK,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody,
		},
		all:  make(map[*conn]bool, conns),
		idle: make([]*conn, 0, conns),
	}
}

// request is what wrk sends, byte for byte but for the order of the fields.
func (t Target) request() []byte {
	head := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n", t.Path, t.Address)
	for _, field := range t.Fields {
		head = append(append(head, field...), "\r\n"...)
	}
	return append(head, "\r\n"...)
}

// RoundTrip sends the one request, whatever it is given, and reads the whole
// answer. Anything but the right answer is an error.
func (t *transport) RoundTrip(*http.Request) (*http.Response, error) {
	c, err := t.take()
	if err != nil {
		return nil, err
	}
	size, keep, err := c.exchange(t)
	if t.brief && err == nil {
		err = c.ended(keep)
	}
	answer := t.right
	if c.shed {
		answer = t.full
	}
	t.put(c, size, keep && err == nil)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// take returns an idle connection, or a new one.
func (t *transport) take() (*conn, error) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, errClosed
	}
	if n := len(t.idle); n > 0 {
		c := t.idle[n-1]
		t.idle = t.idle[:n-1]
		t.mu.Unlock()
		return c, nil
	}
	t.mu.Unlock()

	return t.add(make([]byte, t.buffer))
}

// add opens a connection that reads into buffer; close ends it.
func (t *transport) add(buffer []byte) (*conn, error) {
	c, err := t.target.dial(buffer)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.Join(errClosed, c.Close())
	}
	t.all[c] = true
	return c, nil
}

// openers of connections work at once.
const openers = 32

// open has n connections ready, unless one cannot be had.
func (t *transport) open(n int) error {
	return crowded(n, func(int) error {
		c, err := t.add(make([]byte, t.buffer))
		if err != nil {
			return err
		}
		t.put(c, 0, true)
		return nil
	})
}

// crowded calls do for 0 to n-1, a few at once. It stops at the first error,
// which it returns.
func crowded(n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range min(n, openers) {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n) && failed.Load() == nil; i = next.Add(1) {
				if err := do(int(i - 1)); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// put takes a connection back after an exchange of size bytes, to keep or to
// close it.
func (t *transport) put(c *conn, size int, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if size > 0 {
		if t.sizes.least == 0 || size < t.sizes.least {
			t.sizes.least = size
		}
		t.sizes.most = max(t.sizes.most, size)
	}
	if keep && !t.closed {
		t.idle = append(t.idle, c)
		return
	}
	delete(t.all, c)
	_ = c.Close() // nothing is buffered: there is nothing to lose
}

// wire returns the sizes seen so far.
func (t *transport) wire() sizes {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sizes
}

// close ends every connection, in use or not, which fails what is in flight.
func (t *transport) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, c := range t.idle {
		_ = c.Close() // as in put
	}
	for c := range t.all {
		_ = c.socket.Close() // whoever uses it will say so; TLS would wait to say good-bye
	}
	clear(t.all)
	t.idle = nil
}

// conn is one persistent connection.
type conn struct {
	net.Conn          // what to read and write: socket, or TLS on it
	socket   net.Conn // TCP
	buffer   []byte
	answers  int
	shed     bool // the last answer was a refusal that stands
}

// dial opens a connection that reads into buffer.
func (t Target) dial(buffer []byte) (*conn, error) {
	socket, err := net.DialTimeout("tcp", t.Address, dialTimeout)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: socket, socket: socket, buffer: buffer}
	if t.TLS == nil {
		return c, nil
	}
	secure := tls.Client(socket, t.TLS)
	c.Conn = secure
	err = socket.SetDeadline(time.Now().Add(dialTimeout))
	if err == nil {
		err = secure.Handshake()
	}
	if err == nil {
		err = socket.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("TLS handshake: %w", err), socket.Close())
	}
	return c, nil
}

// exchange sends the request and reads one answer. It returns the answer's
// size in bytes and whether the server keeps the connection.
func (c *conn) exchange(t *transport) (size int, keep bool, err error) {
	if _, err := c.Write(t.request); err != nil {
		return 0, false, err
	}
	n, end := 0, -1
	for end < 0 {
		if n >= headMax {
			return 0, false, fmt.Errorf("head of more than %d bytes", headMax)
		}
		m, err := c.Read(c.buffer[n:])
		if err != nil {
			return 0, false, fmt.Errorf("after %d bytes of a head: %w", n, err)
		}
		n += m
		end = bytes.Index(c.buffer[:n], []byte("\r\n\r\n"))
	}
	head, body := c.buffer[:end+2], c.buffer[end+4:n]
	if c.shed = t.full != nil && bytes.HasPrefix(head, []byte("HTTP/1.1 503 ")); c.shed {
		keep, err = c.refused(head, body)
		return 0, keep, err
	}
	keep, err = checkHead(head, t.target.Length)
	if err != nil {
		return 0, false, err
	}
	if len(body) > t.target.Length {
		return 0, false, fmt.Errorf("%d bytes after the end of an answer", len(body)-t.target.Length)
	}
	c.answers++
	if err := c.readBody(body, t, c.answers%sampledEvery == 1); err != nil {
		return 0, false, err
	}
	return end + 4 + t.target.Length, keep, nil
}

// ended waits for the end of a connection that was to be for one request: who
// ends it first has its port in use for a minute, and ours would run out.
func (c *conn) ended(keep bool) error {
	if keep {
		return stays(keep)
	}
	_ = c.socket.SetReadDeadline(time.Now().Add(dialTimeout)) // open, as it has just read
	// However it ends: that is not the load's to judge.
	_, _ = c.Read(c.buffer)
	return nil
}

// readBody reads what is missing of a body that begins with part, which lies
// in the buffer, and checks its sum if asked to.
func (c *conn) readBody(part []byte, t *transport, sampled bool) error {
	var sum hash.Hash
	if sampled {
		sum = sha256.New()
		sum.Write(part)
	}
	for missing := t.target.Length - len(part); missing > 0; {
		m, err := c.Read(c.buffer[:min(missing, len(c.buffer))])
		if err != nil {
			return fmt.Errorf("with %d bytes of the body missing: %w", missing, err)
		}
		missing -= m
		if sampled {
			sum.Write(c.buffer[:m])
		}
	}
	if sampled && [sha256.Size]byte(sum.Sum(nil)) != t.sum {
		return errors.New("body of the right length with other bytes")
	}
	return nil
}

// refused reads the rest of a refusal, of which body is a part: its words are the
// server's own.
func (c *conn) refused(head, body []byte) (keep bool, err error) {
	_, rest, _ := bytes.Cut(head, []byte("\r\n"))
	length, keep := framing(rest)
	missing, err := strconv.Atoi(length)
	if err != nil {
		return false, fmt.Errorf("Content-Length %s of an answer with status 503", length)
	}
	for missing -= len(body); missing > 0; {
		m, err := c.Read(c.buffer[:min(missing, len(c.buffer))])
		if err != nil {
			return false, fmt.Errorf("with %d bytes of a refusal missing: %w", missing, err)
		}
		missing -= m
	}
	return keep, nil
}

// checkHead looks at the lines of a head, the last line end included: the
// status must be 200 and the length as wanted. It says whether the connection
// stays open.
func checkHead(head []byte, length int) (keep bool, err error) {
	status, rest, _ := bytes.Cut(head, []byte("\r\n"))
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return false, fmt.Errorf("answer %.40q, want HTTP/1.1 200", status)
	}
	got, keep := framing(rest)
	if got != strconv.Itoa(length) {
		return false, fmt.Errorf("Content-Length %s, want %d", got, length)
	}
	return keep, nil
}

// framing is what the fields of a head say of the body's length, "none" for
// nothing, and whether the connection stays open.
func framing(rest []byte) (got string, keep bool) {
	got, keep = "none", true
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			got = string(bytes.TrimSpace(value))
		case bytes.EqualFold(name, []byte("Connection")):
			keep = !bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	return got, keep
}
