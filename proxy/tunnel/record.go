package tunnel

import (
	"errors"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// session is a connection that knows what it has settled on with its client.
type session interface{ Session() *accesslog.TLS }

// tell has the connection, which has ended, counted and logged.
func (c *connection) tell(ending *relay.Ending) {
	cfg, l := &c.handler.config, c.client.Loop()
	if cfg.Timed && c.trip.Queue > 0 {
		cfg.Stats.Observe(stats.Queue, c.trip.Queue)
	}
	if cfg.Timed && c.trip.Connect > 0 {
		cfg.Stats.Observe(stats.Connect, c.trip.Connect)
	}
	if !cfg.Log.On() {
		return
	}
	total := time.Duration(l.Now() - c.began)
	var r accesslog.Record
	r.Begin(l.Clock().Add(-total), accesslog.TCP)
	r.SetAddress(accesslog.Peer, c.from.Addr())
	r.SetTrip(&c.trip)
	if s, is := c.client.(session); is {
		r.SetTLS(s.Session(), true)
	}
	if c.why.Why != "" {
		r.Fail(c.errorType(), c.why.Why)
	}
	in, out := ending.Moved[0], ending.Moved[1]
	r.End(accesslog.Ending{Total: total, Bytes: out, Sent: out, Received: in})
	if r.Failed() || cfg.Log.Draw() {
		cfg.Log.Push(&r)
	}
}

// errorType is what a failure is called in the log: a type of RFC 9209, as in the
// mode that speaks HTTP.
func (c *connection) errorType() string {
	f := &c.why
	switch {
	case f.Upstream == "" && f.Peer, c.broke && f.Peer:
		return accesslog.ClientGone
	case f.Peer:
		return "connection_terminated"
	case errors.Is(f.Cause, upstream.ErrScarce):
		return "proxy_internal_error"
	case errors.Is(c.refused, loop.ErrDeadline):
		return "connection_timeout"
	case c.refused != nil:
		return "connection_refused"
	case c.up != nil:
		return "connection_read_timeout"
	}
	return "destination_unavailable"
}
