// Package forward is the HTTP reverse proxy: it sends a client's request to an
// upstream and the upstream's response to the client.
//
// It forwards no raw bytes: every head is written anew from what was parsed, so
// both sides agree on where messages end. It never repeats a request that an
// upstream may have acted upon, and never holds a whole body.
//
// A Handler belongs to one worker and runs in its tasks. A transfer is what one
// exchange needs besides; it is taken from a free list and aliases nothing that
// outlives a wait.
package forward

import (
	"errors"
	"io"
	"strings"
	"time"

	"atlas/proxy/balance"
	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/upstream"
)

// Config bounds the waits for upstreams.
type Config struct {
	Upstream time.Duration // for the response head, and between two pieces of its body
	Body     time.Duration // for pieces of a request body
	Write    time.Duration // for a peer to take what is sent
	Tunnel   time.Duration // silence after a switch of protocols; 0 is an hour
	Limits   h1.Limits     // of response heads
	Retries  int           // further tries of an exchange, at other targets
	Route    Route
	// Via is what we call ourselves in Via: one token, as no other proxy calls
	// itself, for a request that has it already goes round in circles.
	Via string
	// RateMin is how many bytes of a request body a second a client has to
	// send, while it is waited for; 0 is any. RateGrace is how long it is waited
	// for before that counts; 0 is rateGrace.
	RateMin   int64
	RateGrace time.Duration
	// Timing has responses say in Server-Timing what they have waited for.
	Timing bool
}

// rateGrace forgives a connection that starts slowly.
const rateGrace = 10 * time.Second

// interimMax is how many interim responses one request may get.
const interimMax = 32

// transfersKept bounds the free list: exchanges that can wait at once without
// allocating. One holds 500 bytes and memory for its request, up to requestKept:
// all of them together are bounded by it.
const (
	transfersKept = 8192
	requestKept   = 4 << 10
)

// Handler answers requests by asking upstreams.
type Handler struct {
	config  Config
	via     [2]string // our field line, by the client's minor version
	pool    *upstream.Pool
	buffers relay.Buffers
	// response is the head being read, of whichever exchange: it is done with
	// before anything is waited for.
	response h1.Response
	free     []*transfer
}

// New makes the handler of one worker.
func New(cfg Config, pool *upstream.Pool) *Handler {
	if cfg.Tunnel == 0 {
		cfg.Tunnel = tunnelIdleDefault
	}
	if cfg.RateGrace == 0 {
		cfg.RateGrace = rateGrace
	}
	if cfg.Route.Hash == HashHeader {
		cfg.Route.Name = strings.ToLower(cfg.Route.Name) // as h1.EqualFold wants it
	}
	return &Handler{
		config:   cfg,
		via:      [2]string{"Via: 1.0 " + cfg.Via + "\r\n", "Via: 1.1 " + cfg.Via + "\r\n"},
		pool:     pool,
		response: h1.Response{Limits: cfg.Limits},
	}
}

// Handle carries one exchange: request head, connection, bodies, response.
func (h *Handler) Handle(x *exchange.Exchange) {
	t := h.take(x)
	defer t.drop()
	t.serve()
	h.put(t) // not after a panic: its upload may still run
}

// serve answers the exchange.
func (t *transfer) serve() {
	if !t.prepare() {
		return
	}
	for t.connect() { // at most once more for each target, see again
		err := t.exchange()
		if err == nil {
			t.park()
			return
		}
		if !t.again(err) {
			return
		}
	}
}

// transfer is the state of one exchange with an upstream.
type transfer struct {
	handler *Handler
	x       *exchange.Exchange

	request   []byte // head for the upstream, and a body that was here with it
	trailers  bool   // of the request may be forwarded
	streaming bool   // the request body follows in a task of its own
	uplink    relay.Writer
	hops      int64 // that TRACE or OPTIONS may still make; 0: nobody counts
	uploadErr error // why the client's body broke off
	uploading bool  // the task of the upload runs
	watching  bool  // the upload has ended and watches the client
	leaving   bool  // the client has ended its direction behind its request
	answered  bool  // the response is complete, or has failed: nobody wants the rest of the body
	uploaded  bool  // all of the body, and its end, went to the upstream

	choice  balance.Request // what the choice of a target goes by
	up      *upstream.Conn
	target  *upstream.Target
	stale   bool               // the last try found a dead connection: dial the same target
	tried   []*upstream.Target // targets that did not let us connect
	sent    loop.Instant       // when the request went to the upstream
	refused error              // why the last of tried did not

	asked    bool // the request head went to the upstream
	interims int  // interim responses
	// What the request offers to switch to is request[offer:offerEnd]; 0: nothing.
	offer, offerEnd int
	switched        bool // the connection is a tunnel

	body         relay.Body // of the response
	bodyTrailers bool       // of the response may be forwarded
	reusable     bool       // the upstream keeps the connection open after it
	keepFor      int        // seconds that it does, or upstream.Forever
	scratch      []byte     // for the value of a field
}

func (h *Handler) take(x *exchange.Exchange) *transfer {
	var t *transfer
	if n := len(h.free); n > 0 {
		t = h.free[n-1]
		h.free = h.free[:n-1]
	} else {
		t = &transfer{handler: h}
	}
	t.x = x
	t.tried, t.stale, t.refused = t.tried[:0], false, nil
	t.uploadErr, t.watching, t.answered, t.uploaded = nil, false, false, false
	t.offer, t.switched, t.leaving = 0, false, false
	return t
}

func (h *Handler) put(t *transfer) {
	t.x = nil
	if cap(t.request) > requestKept {
		t.request = nil
	}
	if len(h.free) < transfersKept {
		h.free = append(h.free, t)
	}
}

// drop closes an upstream connection whose exchange did not end in order.
func (t *transfer) drop() {
	if t.up != nil {
		if t.uploading { // after a panic: its task goes on
			t.up.Abandon()
		} else {
			t.up.Drop()
		}
		t.up = nil
		t.handler.pool.Done(t.target)
	}
}

// connect takes a connection. A connect that fails has sent nothing, so any
// request may go to another target then.
func (t *transfer) connect() bool {
	pool := t.handler.pool
	for {
		if !t.stale && !t.pick() {
			return false
		}
		if t.stale || !t.target.Ready() {
			// Answers to earlier requests of the client do not wait for a dial.
			if err := t.x.Flush(); err != nil {
				pool.Done(t.target)
				t.failClient(err, clientLost{sendResponse, err})
				return false
			}
		}
		began := t.x.Loop.Now()
		up, err := pool.Take(t.target, t.stale)
		t.stale = false
		trip := &t.x.Trip
		trip.Tries++
		if err == nil {
			t.up = up
			if trip.Reused = up.Reused; !up.Reused {
				trip.Connect += time.Duration(t.x.Loop.Now() - began)
			}
			return true
		}
		trip.Connect += time.Duration(t.x.Loop.Now() - began)
		pool.Done(t.target)
		if errors.Is(err, loop.ErrStopped) {
			t.fail(stopped(err))
			return false
		}
		if errors.Is(err, upstream.ErrScarce) {
			t.fail(exchange.Fault{Status: 503, Why: upstream.ErrScarce.Error(), Error: exchange.InternalError,
				Side: exchange.ProxySide, Step: "connect", Cause: err}, "Retry-After", "1")
			return false
		}
		pool.Failed(t.target, 0)
		t.tried = append(t.tried, t.target)
		t.refused = err
		if len(t.tried) > t.handler.config.Retries || !pool.MayRetry(err) {
			t.failConnect()
			return false
		}
	}
}

// pick chooses the target. Where all have as much as they may, the exchange waits
// for one.
func (t *transfer) pick() bool {
	x, pool := t.x, t.handler.pool
	target, err := pool.Pick(t.choice, t.tried)
	if err == upstream.ErrFull {
		// Answers to earlier requests of the client do not wait for this one.
		if err := x.Flush(); err != nil {
			t.failClient(err, clientLost{sendResponse, err})
			return false
		}
		began := x.Loop.Now()
		target, err = pool.Await(x.Client, t.tried)
		x.Trip.Queue += time.Duration(x.Loop.Now() - began)
	}
	t.target = target
	if err != nil {
		t.failPick(err)
		return false
	}
	x.Trip.Upstream = &target.Label
	return true
}

// exchange sends the request and relays the response.
func (t *transfer) exchange() error {
	c, x, cfg := t.up, t.x, &t.handler.config
	t.asked, t.interims = false, 0
	t.sent = x.Loop.Now()
	c.SetWriteDeadline(t.sent.After(cfg.Upstream))
	if _, err := c.Write(t.request); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	t.asked = true
	// Answers to earlier requests of the client do not wait for this one.
	if err := x.Flush(); err != nil {
		return clientLost{sendResponse, err}
	}
	if t.streaming {
		return t.exchangeUpload()
	}
	c.SetReadDeadline(x.Loop.Now().After(cfg.Upstream))
	c.Guard(x.Client)
	err := t.respond()
	c.Guard(nil)
	if err == nil && t.switched {
		t.tunnel()
	}
	return err
}

// respond relays the response. Errors of the client come as clientLost; all
// others are the upstream's.
func (t *transfer) respond() error {
	if err := t.readHead(); err != nil || t.switched {
		return err
	}
	return t.relay()
}

// readHead waits for the head of the final response and relays interim ones.
func (t *transfer) readHead() error {
	c, resp := t.up, &t.handler.response
	for {
		n, err := h1.ParseResponse(c.Peek(), resp)
		if err == h1.ErrShort {
			if err := c.Fill(); err != nil && !(err == loop.ErrGuard && t.hurry()) {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if resp.Status >= 200 {
			return t.begin(n)
		}
		if t.interims++; t.interims > interimMax {
			return errInterims
		}
		if resp.Status == 101 {
			return t.switches(n)
		}
		// 100 is answered by ourselves when the body is asked for, which may be
		// before the upstream asks: a client that was told to go on too early
		// sends a body that is refused, no worse than one that does not wait.
		if resp.Status != 100 {
			if err := t.x.Informational(resp); err != nil {
				return clientLost{sendResponse, err}
			}
		}
		c.Consume(n)
		if !t.leaving && (t.uploaded || !t.streaming) {
			c.SetReadDeadline(t.x.Loop.Now().After(t.handler.config.Upstream)) // it is at work
		}
	}
}

// leavingSilence is how long an upstream may be silent once the client has ended
// its direction.
const leavingSilence = time.Second

// hurry is called when the client's direction has ended while the upstream is
// waited for. A client that has nothing more to say and one that has left look the
// same until something is sent to them. So what the upstream says soon goes on,
// and tells which of both it is; and who has left does not keep the upstream busy
// for long. It is false for a client that is gone for sure.
func (t *transfer) hurry() bool {
	if t.leaving {
		return false
	}
	// Whatever deadline is left of earlier waits: this one is over at once.
	t.x.Client.SetReadDeadline(t.x.Loop.Now().After(leavingSilence))
	var err error
	for err == nil && len(t.x.Client.Peek()) < watchMax { // its next requests may stand before its end
		err = t.x.Client.Fill()
	}
	if err != nil && err != io.EOF {
		return false
	}
	t.leaving = true
	t.up.Guard(nil)
	if t.x.Begun() {
		t.body.Hurry(leavingSilence)
	} else {
		t.up.SetReadDeadline(t.x.Loop.Now().After(leavingSilence))
	}
	return true
}

// bodyWithHead is up to which size a body that has arrived with its head is sent
// with it, in one piece.
const bodyWithHead = 4 << 10

// begin sends the head of the response, which is the first n bytes of the
// upstream's Peek, and a short body that is here with it.
func (t *transfer) begin(n int) error {
	x, resp := t.x, &t.handler.response
	x.Trip.FirstByte = time.Duration(x.Loop.Now() - t.sent)
	t.handler.pool.Succeeded(t.target, x.Trip.FirstByte)
	x.Begin(resp.Status, resp.Reason)
	fields := resp.Fields()
	for i := range fields {
		if !resp.HopByHop(i) {
			value := fields[i].Value
			if fields[i].Key == h1.KeyContentLength {
				value = h1.PlainLength(value)
			}
			x.Field(fields[i].Name, value)
		}
	}
	if !resp.Has(h1.KeyDate) {
		x.Date()
	}
	t.stick()
	if t.handler.config.Timing {
		t.timing()
	}
	framing := resp.Body(x.Method)
	t.reusable = resp.KeepAlive && framing.Kind != h1.BodyClose
	t.keepFor = resp.KeepAliveTimeout
	t.bodyTrailers = framing.Kind == h1.BodyChunked && forwardsTrailers(&resp.Head)
	t.up.Consume(n)
	t.body.Start(t.up.Conn, framing) // before SendHead waits: the upload may interrupt it
	if t.leaving {
		t.body.Hurry(leavingSilence)
	}
	short, whole := t.body.Whole()
	if len(short) > bodyWithHead {
		short, whole = nil, false
	}
	if err := x.SendHead(framing.Kind, short); err != nil {
		return clientLost{sendResponse, err}
	}
	if whole {
		t.body.Skip()
	}
	return nil
}

// relay sends the body of the response, as far as it has not left with the head.
func (t *transfer) relay() error {
	if t.body.Done() {
		return nil
	}
	x, cfg := t.x, &t.handler.config
	buffer := t.handler.buffers.Take()
	defer t.handler.buffers.Put(buffer)
	if !t.body.Here() { // else the head leaves with what is here of the body
		if err := x.Flush(); err != nil {
			return clientLost{sendResponse, err}
		}
	}
	readErr, writeErr := relay.Copy(x.Writer(), &t.body, buffer, cfg.Upstream, cfg.Write)
	if readErr == loop.ErrGuard && t.hurry() {
		readErr, writeErr = relay.Copy(x.Writer(), &t.body, buffer, cfg.Upstream, cfg.Write)
	}
	if readErr != nil {
		return readErr
	}
	if writeErr == nil {
		writeErr = x.End(trailer(&t.body, t.bodyTrailers))
	}
	if writeErr != nil {
		return clientLost{sendResponse, writeErr}
	}
	return nil
}

// park returns the upstream connection to the pool, if both messages on it are
// complete and the upstream keeps it open.
func (t *transfer) park() {
	t.body.End()
	if !t.reusable || t.streaming && !t.uploaded {
		return // Handle drops it
	}
	t.up.Release(t.keepFor)
	t.up = nil
	t.handler.pool.Done(t.target)
}
