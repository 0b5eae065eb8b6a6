package conformance

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"time"

	"atlas/harness/origin"
)

// A sentinel is a request that is certainly forwarded and answered. Once it is
// answered, every connection that the server opened for the case before it has
// been accepted, because connections are accepted in their order.
const (
	SentinelPath   = "/sentinel"
	SentinelLength = 64 // bytes of the body, which is origin.Document
)

var sentinelStart = []byte("GET " + SentinelPath + " ")

// originMark is a field of the origin's usual answer.
const originMark = "Conformance-Origin"

const (
	// A connection whose case is over is ended after this.
	lateTime = 2 * time.Second
	// recordMax bounds what is kept of a connection; no case is as long.
	recordMax = 256 << 10
)

// script is what the origin answers in a case.
type script struct {
	own   bool // answer with reply, instead of the usual answer
	reply []byte
	hold  bool // leave the connection open after it, until released
}

// recorder is the upstream of one lane: it keeps every byte of every request
// and answers. It closes each connection after one answer, so that each case
// has connections of its own.
type recorder struct {
	listener net.Listener
	ended    chan struct{} // the accept loop

	mu       sync.Mutex
	script   script
	released chan struct{} // closed when a held answer may end
	records  []*record     // since begin
	all      map[*record]bool
}

// record is one connection.
type record struct {
	conn     net.Conn
	done     chan struct{}
	raw      []byte // valid after done, as is sentinel
	sentinel bool
}

func newRecorder() (*recorder, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &recorder{
		listener: listener, ended: make(chan struct{}), released: make(chan struct{}),
		all: map[*record]bool{},
	}
	go r.accept()
	return r, nil
}

// begin starts a case.
func (r *recorder) begin(s script) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script, r.released, r.records = s, make(chan struct{}), nil
}

// release ends an answer that is held.
func (r *recorder) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.released:
	default:
		close(r.released)
	}
}

// collect returns what came since begin. The server has answered a sentinel
// since, and nobody waits for an answer any more.
func (r *recorder) collect() (requests [][]byte) {
	r.release()
	r.mu.Lock()
	records := r.records
	r.mu.Unlock()
	late := time.After(lateTime)
	for _, rec := range records {
		select {
		case <-rec.done:
		case <-late:
			_ = rec.conn.Close() // its read fails
			<-rec.done
		}
		if !rec.sentinel && len(rec.raw) > 0 {
			requests = append(requests, rec.raw)
		}
	}
	return requests
}

// close ends every connection.
func (r *recorder) close() {
	_ = r.listener.Close()
	<-r.ended
	r.release()
	r.mu.Lock()
	var open []*record
	for rec := range r.all {
		_ = rec.conn.Close()
		open = append(open, rec)
	}
	r.mu.Unlock()
	for _, rec := range open {
		<-rec.done
	}
}

func (r *recorder) accept() {
	defer close(r.ended)
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		rec := &record{conn: conn, done: make(chan struct{})}
		r.mu.Lock()
		s, released := r.script, r.released
		r.records = append(r.records, rec)
		r.all[rec] = true
		r.mu.Unlock()
		go func() {
			rec.serve(s, released)
			close(rec.done)
			r.mu.Lock()
			delete(r.all, rec)
			r.mu.Unlock()
		}()
	}
}

// serve answers one request and reads on until the server ends the connection.
func (rec *record) serve(s script, released chan struct{}) {
	defer rec.conn.Close()
	var m *message
	for {
		if !rec.read() {
			return
		}
		if m = readMessage(rec.raw, fromClient); m.complete {
			break
		}
	}
	if rec.sentinel = bytes.HasPrefix(rec.raw, sentinelStart); rec.sentinel {
		s = script{own: true, reply: sentinelReply}
	}
	if !s.own {
		s.reply = usualReply
		if m.word(0) == "HEAD" {
			s.reply = usualReply[:len(usualReply)-len(usualBody)]
		}
	}
	if _, err := rec.conn.Write(s.reply); err != nil {
		return
	}
	if s.hold {
		<-released
	}
	// Closing with unread bytes would reset the connection, and take the
	// answer with it.
	_ = rec.conn.(*net.TCPConn).CloseWrite()
	_ = rec.conn.SetReadDeadline(time.Now().Add(lateTime))
	for rec.read() {
	}
}

// read adds what arrives and reports whether there may be more.
func (rec *record) read() bool {
	if len(rec.raw) > recordMax {
		return false
	}
	buffer := make([]byte, 32<<10)
	n, err := rec.conn.Read(buffer)
	rec.raw = append(rec.raw, buffer[:n]...)
	return err == nil
}

const usualBody = "ok"

var (
	usualReply    = reply(originMark+": yes\r\n", []byte(usualBody))
	sentinelReply = reply("", origin.Document(SentinelLength))
)

func reply(fields string, body []byte) []byte {
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n", fields, len(body))
	return append(head, body...)
}
