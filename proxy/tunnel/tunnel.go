// Package tunnel is TCP mode: each connection of a client gets one to an upstream,
// and bytes go both ways until both sides have said their last.
//
// It knows nothing of what the bytes mean, so it tries another upstream only as
// long as none has accepted a connection: a byte that was passed on is never
// repeated. A client that cannot be served is reset, for there is no other way to
// tell it anything.
//
// A Handler belongs to one worker and runs in its tasks. What moves bytes, and the
// memory for that, is package relay's.
package tunnel

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/proxyhead"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// Config is how a Handler treats connections.
type Config struct {
	Idle     time.Duration // silence in both directions; 0 is idleDefault
	Grace    time.Duration // silence of one once the other has ended; 0 is graceDefault
	Retries  int           // further tries to connect, to other targets
	Strategy balance.Strategy
	Stats    *stats.Stats // the worker's
	// Log takes a record of each connection; nil: nobody does.
	Log   *accesslog.Ring
	Timed bool // how long connections to upstreams take is counted in Stats
	// Failed is told of connections that ended otherwise than by their two ends.
	// It is called on the worker and must not wait. nil: nobody is.
	Failed func(Failure)
}

const (
	idleDefault  = 10 * time.Minute // as in nginx
	graceDefault = 30 * time.Second
)

// Handler serves clients by upstreams.
type Handler struct {
	config  Config
	pool    *upstream.Pool
	buffers relay.Buffers
}

// New makes the handler of one worker.
func New(cfg Config, pool *upstream.Pool) *Handler {
	if cfg.Idle == 0 {
		cfg.Idle = idleDefault
	}
	if cfg.Grace == 0 {
		cfg.Grace = graceDefault
	}
	return &Handler{config: cfg, pool: pool}
}

// Open has nothing to wait for.
func (h *Handler) Open(loop.Conn) {}

// Greets has every connection served at once: in many protocols the upstream
// speaks first.
func (h *Handler) Greets(loop.Conn) bool { return true }

// Serve carries a connection to its end.
func (h *Handler) Serve(client loop.Conn) (keep bool) {
	// Of a connection that was reset nobody can tell any more whose it was.
	c := connection{handler: h, client: client, from: client.Remote(), began: client.Loop().Now()}
	if !c.connect() {
		client.Reset()
		c.tell(&relay.Ending{})
		return false
	}
	defer c.drop() // also in a panic
	ending := relay.Tunnel([2]loop.Conn{client, c.up.Conn}, &h.buffers,
		relay.Silence{Idle: h.config.Idle, Grace: h.config.Grace})
	c.ended(&ending)
	c.tell(&ending)
	return false
}

// connection is a client with the upstream that it gets.
type connection struct {
	handler *Handler
	client  loop.Conn
	from    netip.AddrPort // the client's address
	target  *upstream.Target
	up      *upstream.Conn
	tried   []*upstream.Target // those that did not let us connect
	refused error              // why the last of them did not

	began loop.Instant
	trip  accesslog.Trip
	why   Failure // what was told of; its Why is empty where nothing was
	broke bool    // the client broke off
}

func (c *connection) drop() {
	c.up.Drop()
	c.handler.pool.Done(c.target)
}

// connect finds an upstream that accepts a connection.
func (c *connection) connect() bool {
	h, l := c.handler, c.client.Loop()
	choice := balance.Request{Now: int64(l.Now())}
	if h.config.Strategy == balance.IPHash {
		choice.Key = balance.ClientKey(c.from.Addr())
	}
	for {
		if err := c.pick(choice); err != nil {
			c.failPick(err)
			return false
		}
		began := l.Now()
		up, err := h.pool.TakeFor(c.target, c.introduction())
		c.trip.Tries++
		c.trip.Connect += time.Duration(l.Now() - began)
		if err == nil {
			h.pool.Succeeded(c.target, time.Duration(l.Now()-began))
			c.up = up
			return true
		}
		h.pool.Done(c.target)
		if errors.Is(err, loop.ErrStopped) {
			return false
		}
		if errors.Is(err, upstream.ErrScarce) {
			c.fail(Failure{Upstream: c.target.Name, Why: upstream.ErrScarce.Error(), Cause: err})
			return false
		}
		h.pool.Failed(c.target, 0)
		c.tried = append(c.tried, c.target)
		c.refused = err
		if len(c.tried) > h.config.Retries || !h.pool.MayRetry(err) {
			c.failConnect()
			return false
		}
	}
}

// pick chooses the target, and waits for one where all have as much as they may.
func (c *connection) pick(choice balance.Request) (err error) {
	pool := c.handler.pool
	c.target, err = pool.Pick(choice, c.tried)
	if err == upstream.ErrFull {
		began := c.client.Loop().Now()
		c.target, err = pool.Await(c.client, c.tried)
		c.trip.Queue += time.Duration(c.client.Loop().Now() - began)
	}
	if err == nil {
		c.trip.Upstream = &c.target.Label
	}
	return err
}

// secure is a connection whose client has asked for something, and may have proved
// who it is, before its first byte.
type secure interface {
	State() tls.ConnectionState
}

// introduction is what an upstream may be told of the client.
func (c *connection) introduction() proxyhead.Header {
	if !c.target.Introduces() {
		return proxyhead.Header{}
	}
	h := proxyhead.Header{From: c.from, To: c.client.Local()}
	if client, is := c.client.(secure); is {
		state := client.State()
		h.TLS = &state
	}
	return h
}

// Failure is the record of a connection that broke off, or was never made.
type Failure struct {
	Client   netip.AddrPort // invalid for a Unix socket
	Upstream string         // its name, if there was one
	Why      string
	Cause    error    // if there is one
	Moved    [2]int64 // bytes from the client and from the upstream
	// Peer says that one of the two broke it off, which is no fault of anybody
	// else.
	Peer bool
}

func (c *connection) fail(f Failure) {
	c.why = f
	if failed := c.handler.config.Failed; failed != nil {
		f.Client = c.from
		failed(f)
	}
}

// failPick tells of a client for which there is no upstream.
func (c *connection) failPick(err error) {
	count := c.handler.config.Stats
	switch err {
	case upstream.ErrNone:
		if c.refused != nil {
			c.failConnect()
			return
		}
		count.FailUpstream(stats.NoUpstream)
	case upstream.ErrNoAddress:
		count.FailUpstream(stats.NoUpstream)
	case upstream.ErrQueueFull:
		count.FailUpstream(stats.QueueFull)
	case upstream.ErrQueueWait:
		count.FailUpstream(stats.QueueTimeout)
	case loop.ErrStopped:
		return
	default:
		count.FailClient(stats.ClientReset)
		c.fail(Failure{Why: "the client went away while it waited for an upstream", Cause: err, Peer: true})
		return
	}
	c.fail(Failure{Why: err.Error()})
}

// failConnect tells of a client that no upstream took.
func (c *connection) failConnect() {
	f := Failure{Upstream: c.tried[len(c.tried)-1].Name, Why: "no upstream accepts connections", Cause: c.refused}
	if errors.Is(c.refused, loop.ErrDeadline) {
		f.Why = "no connection to an upstream in time"
	}
	c.fail(f)
}

// ended counts and tells how a tunnel ended, if not in order.
func (c *connection) ended(ending *relay.Ending) {
	f := Failure{Upstream: c.target.Name, Cause: ending.Err, Moved: ending.Moved}
	switch {
	case ending.Err == nil, ending.Err == loop.ErrStopped, ending.Err == loop.ErrPanic:
		return // a panic is told of where it was caught
	case ending.Err == loop.ErrDeadline:
		f.Why, f.Cause = "nothing has moved for too long", nil
	case ending.Side == 0:
		c.handler.config.Stats.FailClient(stats.ClientReset)
		f.Why, f.Peer, c.broke = "the client broke off", true, true
	default:
		c.handler.config.Stats.FailUpstream(stats.UpstreamReset)
		f.Why, f.Peer = "the upstream broke off", true
	}
	c.fail(f)
}
