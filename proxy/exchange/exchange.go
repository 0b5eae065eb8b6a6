// Package exchange is what handlers see of a client: one request and the
// response to it. It owns the connection between exchanges: reading heads,
// time-outs, keep-alive, pipelining, and the answers to requests that are not
// HTTP.
//
// It refuses to know what is served: which methods, which paths, which
// upstream. Handlers never see an HTTP/1 connection, so that another version of
// HTTP can bring exchanges of its own.
//
// A Server belongs to one worker and runs in its tasks. The head of a request
// aliases the connection's receive memory: it is valid until the handler waits
// for anything, or calls ReleaseHead. An Exchange is reused: handlers keep
// nothing of it when Handle returns.
package exchange

import (
	"io"
	"net/netip"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
)

// Handler answers requests.
type Handler interface {
	// Handle answers one request, in a task. It begins a response and ends
	// it, or fails or aborts the exchange.
	Handle(x *Exchange)
}

// Config is how a Server treats its clients.
type Config struct {
	Header time.Duration // first to last byte of a head
	Body   time.Duration // between two pieces of a request body
	Write  time.Duration // until the client has taken what was sent
	Idle   time.Duration // between two exchanges, and before the first
	Limits h1.Limits     // of heads
	// BodyMax is the largest request body in bytes; 0 is unlimited. One that
	// says its length is refused at once; reading another fails behind it.
	BodyMax int64
	Stats   *stats.Stats // the worker's
	// Trusted are peers that may say for whom they ask: see ClientAddr.
	Trusted []netip.Prefix
	// Name is what a proxy calls itself in Proxy-Status, on responses of our own.
	// "" leaves the field out, as an origin server has to (RFC 9209 section 2).
	Name string
	// Rate bounds the requests of each client. nil: nothing does.
	Rate *RateLimit
	// Log takes a record of each exchange; nil: nobody does.
	Log   *accesslog.Ring
	Timed bool // how long exchanges take is counted in Stats
	// Failed is told of exchanges that ended in an error of ours. It is called on
	// the worker and must not wait. nil: nobody is.
	Failed func(Failure)
}

// exchangesKept bounds the free list: exchanges that can wait at once without
// allocating. One holds 300 bytes.
const exchangesKept = 8192

// Server is the loop.Handler that turns connections into exchanges.
type Server struct {
	config  Config
	handler Handler
	date    h1.DateCache
	request h1.Request // being read; every exchange copies what it needs for longer
	heads   [][]byte   // free memory for heads of responses, last in first out
	free    []*Exchange
	trusted *networks
	retired bool
	rateLog
}

// headsKept bounds the free memory for heads. One is in use by each exchange
// whose client has no room for its head: mostly that is none, and always the same
// memory.
const headsKept = 64

// NewServer makes the server of one worker.
func NewServer(cfg Config, h Handler) *Server {
	return &Server{
		config: cfg, handler: h, request: h1.Request{Limits: cfg.Limits}, trusted: &networks{cfg.Trusted},
	}
}

// Open bounds how long a new connection may be silent.
func (s *Server) Open(c loop.Conn) {
	c.SetReadDeadline(c.Loop().Now().After(s.config.Idle))
}

// exchangesTurn is how many pipelined requests of a connection are answered before
// everybody else has a turn: as many as their answers are worth a system call of
// their own. Answers of 1 KB fit one message then, with 32 they do not, and the p99
// of others beside such a client is 0.65 ms instead of 0.27 (12 and 14 rounds of
// greedy-static-pipeline), while that client gets no more. Without a bound it is what
// the receive buffer holds, 85 requests, and on netpoll several times that.
const exchangesTurn = 16

// Serve carries a connection through all exchanges whose heads have arrived.
func (s *Server) Serve(c loop.Conn) (keep bool) {
	x := s.take(c)
	defer x.crashed()
	for n := 1; ; n++ {
		if !x.readHead() {
			keep = x.quiet && c.Flush() == nil
			break
		}
		if rate := s.config.Rate; rate == nil || x.admit(rate) {
			s.handler.Handle(x)
		}
		if !x.finish() {
			break
		}
		if n%exchangesTurn == 0 && len(c.Peek()) > 0 {
			if c.Flush() != nil {
				break
			}
			c.Loop().Yield()
		}
		if len(c.Peek()) > 0 && !s.retired {
			continue // pipelined: answer it before anything is sent
		}
		keep = c.Flush() == nil
		break
	}
	if keep {
		c.SetReadDeadline(c.Loop().Now().After(s.config.Idle))
	}
	s.put(x)
	return keep
}

// Retire has Serve return behind the request that it is at, from now on: there is
// another server for those that follow, be they here already.
func (s *Server) Retire() { s.retired = true }

func (s *Server) take(c loop.Conn) *Exchange {
	var x *Exchange
	if n := len(s.free); n > 0 {
		x = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		x = &Exchange{server: s, Request: &s.request, Stats: s.config.Stats}
	}
	x.Client, x.Loop = c, c.Loop()
	return x
}

func (s *Server) put(x *Exchange) {
	x.Client, x.Loop, x.Trip.Upstream = nil, nil, nil
	if len(s.free) < exchangesKept {
		s.free = append(s.free, x)
	}
}

func (s *Server) takeHead() []byte {
	if n := len(s.heads); n > 0 {
		b := s.heads[n-1]
		s.heads = s.heads[:n-1]
		return b
	}
	return nil
}

func (s *Server) putHead(b []byte) {
	if len(s.heads) < headsKept {
		s.heads = append(s.heads, b[:0])
	}
}

// Exchange is one request and its response.
//
// It is small, because one exists for each request that waits for an upstream;
// a head is 6 KB, and there is one for the worker.
type Exchange struct {
	// Request is valid until the handler waits for anything, or ReleaseHead:
	// it is the worker's, and its slices alias receive memory. What may be
	// asked for later stands below.
	Request *h1.Request
	Method  h1.Method
	Minor   uint8   // HTTP/1.Minor of the client
	Framing h1.Body // of the request body

	Body   relay.Body // the request's; starts behind the head
	Client loop.Conn  // for Guard and addresses; handlers neither read nor write it
	Loop   loop.Loop
	Stats  *stats.Stats
	Trip   accesslog.Trip // to upstreams, as the handler notes it

	server    *Server
	headBytes int // of the request, still in Peek
	begun     bool
	keep      bool // the connection goes on after this exchange
	continued bool // the client was told to go on, or did not ask
	quiet     bool // there was no request

	account account
	paper   *accesslog.Record // memory for account.record

	writer     relay.Writer
	status     int
	clientAddr netip.Addr
	out        []byte // head of the response, from Begin until it is written
}

// readHead waits for one whole request head. false ends the connection, and the
// client has its answer then, if it gets one; but for a quiet connection, on which
// there was nothing but the empty line that some clients put behind a body: no
// request has begun with it (RFC 9112 section 2.2).
func (x *Exchange) readHead() bool {
	c := x.Client
	x.begun, x.status, x.clientAddr, x.quiet = false, 0, netip.Addr{}, false
	x.headBytes = 0
	x.open()
	known, _ := c.Attachment().(*link)
	blank := known != nil && known.blank
	for timed := false; ; {
		x.Request.Begun = blank // each time: it is the worker's
		n, err := h1.ParseRequest(c.Peek(), x.Request)
		if err == nil {
			if blank {
				known.blank = false
			}
			return x.start(n)
		}
		if err != h1.ErrShort {
			x.Stats.Requests.Add(1)
			x.refuseSyntax(err.(*h1.SyntaxError))
			return false
		}
		if string(c.Peek()) == "\r\n" {
			c.Consume(len(c.Peek()))
			x.link().blank, x.quiet = true, true
			return false
		}
		if !timed {
			timed = true
			if c.Flush() != nil { // answers to the requests before this one
				return false
			}
			c.SetReadDeadline(x.Loop.Now().After(x.server.config.Header))
		}
		switch err := c.Fill(); err {
		case nil:
		case loop.ErrDeadline:
			x.refuse(stats.RequestTimeout, Fault{Status: 408, Why: "the request head took too long"})
			return false
		default:
			x.lostBefore(err)
			return false // nobody is left to answer
		}
	}
}

// lostBefore notes a client that went away before it had asked for something. One
// that has not begun to is no exchange.
func (x *Exchange) lostBefore(err error) {
	partial := len(x.Client.Peek()) > 0
	if err != io.EOF && err != loop.ErrStopped || partial {
		x.Stats.FailClient(stats.ClientReset)
	}
	if partial {
		x.account.writeRaw(x.Client.Peek())
		x.account.fail(&Fault{Status: StatusGone}, false)
		x.Body.Start(x.Client, h1.Body{})
		x.tell()
	}
}

// start begins an exchange whose head is the first n bytes of Peek.
func (x *Exchange) start(n int) bool {
	r := x.Request
	x.headBytes = n
	x.Method, x.Minor, x.Framing = r.Method, r.Minor, r.Body
	x.keep = r.KeepAlive
	x.continued = !r.Expect100
	x.Stats.Requests.Add(1)
	x.account.write(x, n)
	x.Body.Start(x.Client, r.Body)
	if most := x.server.config.BodyMax; most > 0 {
		if r.Body.Length > most {
			x.reject(stats.BodyTooLarge, Fault{Status: 413, Why: "the request body is larger than this server takes"})
			return false
		}
		x.Body.Limit(most)
	}
	if r.ExpectOther && !x.Body.Done() {
		x.reject(stats.BadExpectation, Fault{Status: 417, Why: "this server only knows the expectation 100-continue"})
		return false
	}
	return true
}

// refuseSyntax answers bytes that are not a request.
func (x *Exchange) refuseSyntax(why *h1.SyntaxError) {
	x.Stats.RefusedRequests[why.Reason].Add(1)
	x.refuse(clientError(why.Status), Fault{
		Status: why.Status, Why: why.Why(), Error: RequestError, Details: why.Reason.String(), Request: x.Client.Peek(),
	})
}

// refuse answers what is no request, or not a whole one in time, and ends the
// connection.
func (x *Exchange) refuse(count stats.ClientError, f Fault) {
	x.Method, x.Minor, x.Framing = h1.MethodOther, 1, h1.Body{}
	x.headBytes, x.continued = 0, true
	x.account.writeRaw(x.Client.Peek())
	x.Body.Start(x.Client, x.Framing)
	x.reject(count, f)
}

// reject answers a request that no handler gets, and ends the connection.
func (x *Exchange) reject(count stats.ClientError, f Fault) {
	x.keep = false
	x.Stats.FailClient(count)
	f.Side, f.Step = ClientSide, "read request head"
	x.Fault(f)
	x.finish()
}

func clientError(status int) stats.ClientError {
	switch status {
	case 414:
		return stats.TargetTooLong
	case 431:
		return stats.HeadTooLarge
	case 501:
		return stats.NotImplemented
	case 505:
		return stats.BadVersion
	}
	return stats.BadRequest
}

// ReleaseHead gives the memory of the request's head back: its slices are gone.
// A handler calls it when it has what it needs, before it waits for a peer.
func (x *Exchange) ReleaseHead() {
	if x.headBytes > 0 {
		x.Client.Consume(x.headBytes)
		x.headBytes = 0
	}
}

// ReadBody waits for bytes of the request body: see relay.Body.Read. A client
// that expects 100 (Continue) is told so the first time.
func (x *Exchange) ReadBody(p []byte) (int, error) {
	x.ReleaseHead()
	if err := x.Continue(); err != nil {
		return 0, err
	}
	x.Client.SetReadDeadline(x.Loop.Now().After(x.server.config.Body))
	return x.Body.Read(p)
}

// Continue tells a client that waits for it to send its body. It is a hint:
// a client that has begun to send already needs none (RFC 9110 section 10.1.1).
func (x *Exchange) Continue() error {
	if x.continued || x.begun {
		return nil
	}
	x.continued = true
	if x.Body.Done() || len(x.Client.Peek()) > x.headBytes {
		return nil
	}
	x.account.sent += int64(len(continueHead))
	x.Client.SetWriteDeadline(x.Loop.Now().After(x.server.config.Write))
	if _, err := x.Client.Write(continueHead); err != nil {
		return err
	}
	return x.Client.Flush()
}

var continueHead = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// finish ends the exchange and reports whether another may follow.
func (x *Exchange) finish() bool {
	if !x.begun {
		// A handler that says nothing is broken; so is the exchange.
		x.report(&Fault{Status: 500, Why: "no answer", Error: InternalError, Side: ProxySide, Step: "answer"})
		x.Abort()
	}
	if x.status == 0 {
		x.tell()
		return false // aborted: nothing of the connection is left to read
	}
	x.ReleaseHead()
	if _, whole := x.Body.Whole(); whole {
		x.Body.Skip()
	}
	x.Body.End()
	x.tell()
	if x.keep && x.Body.Done() {
		return true
	}
	x.linger()
	return false
}

// crashed tells of an exchange whose handler has panicked: the loop resets the
// connection. It is called in any case.
func (x *Exchange) crashed() {
	if x.Client != nil && x.account.received > 0 && !x.account.closed {
		x.account.fail(&Fault{Status: 500, Error: InternalError, Details: "panic"}, x.begun)
		x.tell()
	}
}

const (
	lingerTime  = 5 * time.Second
	lingerBytes = 1 << 30 // what loopback brings in that time, so the time is the bound
)

// linger ends a connection whose client may still be sending: closing now would
// make the kernel send a reset, and that can overtake the response (RFC 9112
// section 9.6). So our direction is ended first, and the other one is read on,
// within bounds.
func (x *Exchange) linger() {
	c := x.Client
	if len(c.Peek()) == 0 && x.Body.Done() {
		return // it was told that this is the last response, and all is read
	}
	if err := c.CloseWrite(); err != nil {
		return
	}
	c.SetReadDeadline(x.Loop.Now().After(lingerTime))
	for read := 0; read < lingerBytes; {
		read += len(c.Peek())
		c.Consume(len(c.Peek()))
		if err := c.Fill(); err != nil {
			return
		}
	}
}
