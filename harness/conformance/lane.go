package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"atlas/harness/origin"
)

const (
	dialTimeout = 5 * time.Second
	// An answer that must come may take this long on a busy machine.
	answerTime = 5 * time.Second
	// quietTime without an answer is waiting, where an answer need not come.
	quietTime = 300 * time.Millisecond
)

// Lane is one copy of a server with an origin of its own. Nothing in a
// forwarded request says which client it came from, so a lane handles one case
// at a time, and lanes run side by side.
type Lane struct {
	Proxy    string // address of the server, set once it runs
	recorder *recorder
}

// NewLane starts the origin of a lane.
func NewLane() (*Lane, error) {
	r, err := newRecorder()
	return &Lane{recorder: r}, err
}

// Origin is the address that the lane's server has to forward to.
func (l *Lane) Origin() string { return l.recorder.listener.Addr().String() }

// Close stops the origin.
func (l *Lane) Close() { l.recorder.close() }

// talk is one conversation of a client.
type talk struct {
	send []byte
	// filler is sent if nothing has come after patience: it completes a body
	// that a lenient server may wait for.
	filler   []byte
	patience time.Duration
	release  bool // the origin's held answer, instead of a filler
	head     bool // the answer to HEAD is expected
}

// heard is what a client saw.
type heard struct {
	raw    []byte
	final  *message // nil without a whole head
	early  []*message
	whole  bool // final is complete
	quiet  bool // nothing came in time
	closed bool // the server ended the connection
}

// converse has one conversation on a connection of its own.
func (l *Lane) converse(ctx context.Context, t talk) (*heard, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", l.Proxy)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, _ = conn.Write(t.send) // a server that refuses early may not take all of it
	h := &heard{}
	h.listen(conn, t, t.patience)
	if len(h.raw) == 0 && !h.closed {
		h.quiet = true
		switch {
		case t.release:
			l.recorder.release()
			h.listen(conn, t, answerTime)
		case t.filler != nil:
			_, _ = conn.Write(t.filler)
			h.listen(conn, t, t.patience)
		}
	}
	return h, ctx.Err()
}

// listen reads until the server closes or patience ends. Once the answer is
// complete the client's direction is ended, which ends a connection that
// waits for the next request.
func (h *heard) listen(conn net.Conn, t talk, patience time.Duration) {
	from := fromServer
	if t.head {
		from = fromServerToHead
	}
	deadline := time.Now().Add(patience)
	buffer := make([]byte, 32<<10)
	for {
		_ = conn.SetReadDeadline(deadline)
		n, err := conn.Read(buffer)
		h.raw = append(h.raw, buffer[:n]...)
		h.final, h.early = nil, nil
		if m, early := readResponse(h.raw, from); m.begun {
			h.final, h.early = m, early
			if m.complete && !h.whole {
				h.whole = true
				_ = conn.(*net.TCPConn).CloseWrite()
				deadline = time.Now().Add(quietTime)
			}
		}
		if err != nil {
			h.closed = !errors.Is(err, os.ErrDeadlineExceeded)
			// A reset is no orderly end of a body that ends with the connection.
			if h.final != nil && h.final.toClose && err == io.EOF {
				h.whole = true
			}
			return
		}
	}
}

// sentinelTries is how often a sentinel may be sent. An origin that closes a
// connection which it has not announced to close can meet the next request on
// it: that is nobody's fault.
const sentinelTries = 3

// sentinel has the server forward a request and checks the answer.
func (l *Lane) sentinel(ctx context.Context) error {
	var raw []byte
	for range sentinelTries {
		h, err := l.converse(ctx, talk{
			send:     []byte("GET " + SentinelPath + " HTTP/1.1\r\nHost: conformance\r\nConnection: close\r\n\r\n"),
			patience: answerTime,
		})
		if err != nil {
			return err
		}
		if h.whole && h.final.status() == http.StatusOK && bytes.Equal(h.final.body, origin.Document(SentinelLength)) {
			return nil
		}
		raw = h.raw
	}
	return fmt.Errorf("GET %s was answered %.200q", SentinelPath, raw)
}
