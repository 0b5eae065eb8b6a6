package forward

import (
	"errors"
	"time"

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
type clientLost struct {
	step string
	err  error
}

// The steps at which a client may be lost.
const (
	readBody     = "read request body"
	sendResponse = "send response"
)

func (e clientLost) Error() string { return "client: " + e.step + ": " + e.err.Error() }
func (e clientLost) Unwrap() error { return e.err }

// failPick answers a request for which there is no upstream, or none any more.
func (t *transfer) failPick(err error) {
	x := t.x
	switch {
	case err == upstream.ErrNone && t.refused != nil:
		t.failConnect()
	case err == upstream.ErrQueueFull:
		x.Stats.FailUpstream(stats.QueueFull)
		x.Fail(503, err.Error(), "Retry-After", "1")
	case err == upstream.ErrQueueWait:
		x.Stats.FailUpstream(stats.QueueTimeout)
		x.Fail(503, err.Error(), "Retry-After", "1")
	case err == upstream.ErrNone:
		x.Stats.FailUpstream(stats.NoUpstream)
		x.Fail(503, err.Error(), "Retry-After", "1")
	default: // the client is gone, or the worker stops
		x.Stats.FailClient(stats.ClientReset)
		x.Abort()
	}
}

// failConnect answers a request that no upstream took.
func (t *transfer) failConnect() {
	if errors.Is(t.refused, loop.ErrDeadline) {
		t.x.Fail(504, "no connection to an upstream in time")
		return
	}
	t.x.Fail(502, "no upstream accepts connections")
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
	case err == loop.ErrPanic:
		x.Abort() // of the upload; counted where it happened
	case isLost && isSyntax:
		x.Stats.FailClient(stats.BadRequest)
		t.fail(syntax.Status, syntax.Why())
	case isLost && lost.err == relay.ErrTooLong:
		x.Stats.FailClient(stats.BodyTooLarge)
		t.fail(413, "the request body is larger than this server takes")
	case isLost && lost.step == readBody && lost.err == loop.ErrDeadline:
		x.Stats.FailClient(stats.RequestTimeout)
		t.fail(408, "the request body took too long")
	case isLost && lost.err == relay.ErrTooSlow:
		x.Stats.FailClient(stats.RequestTimeout)
		t.fail(408, "the request body comes too slowly")
	case isLost, err == loop.ErrGuard, err == loop.ErrStopped:
		x.Stats.FailClient(stats.ClientReset)
		x.Abort()
	case err == loop.ErrDeadline:
		t.handler.pool.Failed(t.target, time.Duration(x.Loop.Now()-t.sent))
		x.Stats.FailUpstream(stats.ResponseTimeout)
		t.fail(504, "the upstream did not answer in time")
	case isSyntax, err == errUpgraded:
		x.Stats.FailUpstream(stats.BadResponse)
		t.fail(502, "the upstream's answer is not valid HTTP")
	case t.up.Reused && t.repeatable():
		t.up.Drop()
		t.up, t.stale = nil, true
		return true
	default:
		t.handler.pool.Failed(t.target, 0)
		x.Stats.FailUpstream(stats.UpstreamReset)
		t.fail(502, "the upstream closed the connection before it answered")
	}
	return false
}

// repeatable reports that nothing of a response has come, and that the request
// is all in our hands and may be acted upon twice.
func (t *transfer) repeatable() bool {
	return !t.streaming && !t.interim && len(t.up.Peek()) == 0 && !t.x.Begun() && t.x.Method.Idempotent()
}

// fail answers, or breaks off what has begun to be an answer.
func (t *transfer) fail(status int, why string) {
	if t.x.Begun() {
		t.x.Abort()
		return
	}
	t.x.Fail(status, why)
}
