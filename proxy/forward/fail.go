package forward

import (
	"errors"
	"io"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// errUpgraded is an upstream that switches protocols although we have not
// asked it to.
var errUpgraded = errors.New("101 without a request to upgrade")

// clientLost is an error of the client's side.
type clientLost struct{ err error }

func (e clientLost) Error() string { return "client: " + e.err.Error() }
func (e clientLost) Unwrap() error { return e.err }

// failConnect answers a request that no upstream took. last is the last error
// of a connect, if there was one.
func (t *transfer) failConnect(last error) {
	x := t.x
	switch {
	case last == nil:
		x.Stats.FailUpstream(stats.NoUpstream)
		x.Fail(503, upstream.ErrNone.Error(), "Retry-After", "1")
	case errors.Is(last, loop.ErrDeadline):
		x.Fail(504, "no connection to an upstream in time")
	default:
		x.Fail(502, "no upstream accepts connections")
	}
}

// again decides what an exchange's error means: another try, an answer that
// says so, or a connection that ends visibly.
//
// A try is repeated only where the upstream cannot have acted on the request,
// or may act on it twice: a reused connection that was closed without a byte of
// response, for an idempotent request that is all in our hands (RFC 9110
// section 9.2.2).
func (t *transfer) again(err error) bool {
	x := t.x
	var lost clientLost
	var syntax *h1.SyntaxError
	isLost := errors.As(err, &lost)
	isSyntax := errors.As(err, &syntax)
	switch {
	case x.Begun():
		t.count(err, isLost)
		x.Abort()
	case isLost && isSyntax:
		x.Stats.FailClient(stats.BadRequest)
		x.Close()
		x.Fail(syntax.Status, syntax.Error())
	case isLost && lost.err == relay.ErrTooLong:
		x.Stats.FailClient(stats.BodyTooLarge)
		x.Fail(413, "the request body is larger than this server takes")
	case isLost && lost.err == loop.ErrDeadline:
		x.Stats.FailClient(stats.RequestTimeout)
		x.Close()
		x.Fail(408, "the request body took too long")
	case isLost, err == loop.ErrGuard, err == loop.ErrStopped:
		x.Stats.FailClient(stats.ClientReset)
		x.Abort()
	case err == loop.ErrDeadline:
		x.Stats.FailUpstream(stats.ResponseTimeout)
		x.Fail(504, "the upstream did not answer in time")
	case isSyntax, err == errUpgraded:
		x.Stats.FailUpstream(stats.BadResponse)
		x.Fail(502, "the upstream's answer is not valid HTTP")
	case t.up.Reused && !t.streaming && x.Method.Idempotent() && len(t.up.Peek()) == 0:
		t.up.Drop()
		t.up, t.stale = nil, true
		return true
	default:
		x.Stats.FailUpstream(stats.UpstreamReset)
		x.Fail(502, "the upstream closed the connection before it answered")
	}
	return false
}

// count notes whose fault it is that a response broke off.
func (t *transfer) count(err error, isLost bool) {
	switch {
	case isLost || err == loop.ErrGuard:
		t.x.Stats.FailClient(stats.ClientReset)
	case err == loop.ErrDeadline:
		t.x.Stats.FailUpstream(stats.ResponseTimeout)
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		t.x.Stats.FailUpstream(stats.UpstreamReset)
	default:
		t.x.Stats.FailUpstream(stats.BadResponse)
	}
}
