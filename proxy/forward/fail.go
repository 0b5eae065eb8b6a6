package forward

import (
	"errors"
	"io"
	"time"

	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/relay"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// errInterims is an upstream that never comes to its point.
var errInterims = errors.New("too many interim responses")

// clientLost is an error of the client's side.
type clientLost struct {
	step string
	err  error
}

// The steps at which a client may be lost.
const (
	chooseUpstream = "choose an upstream"
	readBody       = "read request body"
	sendResponse   = "send response"
)

func (e clientLost) Error() string { return "client: " + e.step + ": " + e.err.Error() }
func (e clientLost) Unwrap() error { return e.err }

// failPick answers a request for which there is no upstream, or none any more.
func (t *transfer) failPick(err error) {
	f := exchange.Fault{Status: 503, Why: err.Error(), Side: exchange.UpstreamSide, Step: chooseUpstream}
	switch {
	case err == upstream.ErrNone && t.refused != nil:
		t.failConnect()
		return
	case err == upstream.ErrQueueFull:
		t.x.Stats.FailUpstream(stats.QueueFull)
		f.Error = exchange.ConnectionLimitReached
	case err == upstream.ErrQueueWait:
		t.x.Stats.FailUpstream(stats.QueueTimeout)
		f.Error = exchange.ConnectionLimitReached
	case err == upstream.ErrNoAddress:
		t.x.Stats.FailUpstream(stats.NoUpstream)
		f.Error = exchange.DNSError
	case err == upstream.ErrNone:
		t.x.Stats.FailUpstream(stats.NoUpstream)
		f.Error = exchange.DestinationUnavailable
	case err == loop.ErrStopped:
		t.fail(stopped(err))
		return
	default:
		t.failClient(err, clientLost{chooseUpstream, err})
		return
	}
	t.fail(f, "Retry-After", "1")
}

// stopped is what an exchange comes to that the worker's end has cut.
func stopped(err error) exchange.Fault {
	return exchange.Fault{Status: 503, Why: "this server is shutting down", Side: exchange.ProxySide,
		Step: "wait", Cause: err}
}

// failConnect answers a request that no upstream took.
func (t *transfer) failConnect() {
	f := exchange.Fault{
		Status: 502, Why: "no upstream accepts connections", Error: exchange.ConnectionRefused,
		Upstream: t.tried[len(t.tried)-1].Name, Side: exchange.UpstreamSide, Step: "connect", Cause: t.refused,
	}
	if errors.Is(t.refused, loop.ErrDeadline) {
		f.Status, f.Why, f.Error = 504, "no connection to an upstream in time", exchange.ConnectionTimeout
	}
	t.fail(f)
}

// again decides what an exchange's error means: another try, an answer that
// says so, or a connection that ends visibly.
//
// A try is repeated only where the upstream cannot have acted on the request,
// or may act on it twice: a reused connection that was closed without a byte of
// response, for an idempotent request that is all in our hands (RFC 9110
// section 9.2.2).
func (t *transfer) again(err error) bool {
	var lost clientLost
	var syntax *h1.SyntaxError
	isLost := errors.As(err, &lost)
	isSyntax := errors.As(err, &syntax)
	switch {
	case err == loop.ErrPanic: // of the upload; counted where it happened
		t.fail(exchange.Fault{Status: 500, Why: "this server is broken", Side: exchange.ProxySide,
			Step: readBody, Cause: err})
	case isLost && isSyntax:
		t.x.Stats.FailClient(stats.BadRequest)
		t.x.Stats.RefusedRequests[syntax.Reason].Add(1)
		t.fail(exchange.Fault{
			Status: syntax.Status, Why: syntax.Why(), Error: exchange.RequestError, Details: syntax.Reason.String(),
			Side: exchange.ClientSide, Step: lost.step, Cause: err,
		})
	case errors.Is(err, loop.ErrStopped):
		t.fail(stopped(err))
	case isLost, err == loop.ErrGuard, err == loop.ErrDeadline && t.leaving:
		t.failClient(err, lost)
	case t.up.Reused && t.repeatable() && !isSyntax && !ours(err):
		t.up.Drop()
		t.up, t.stale = nil, true
		return true
	default:
		t.failUpstream(err, syntax)
	}
	return false
}

// ours reports an error that says nothing about whether the connection was dead
// before.
func ours(err error) bool {
	return err == loop.ErrDeadline || err == errUpgraded || err == errUpgrade || err == errInterims
}

// repeatable reports that nothing of a response has come, and that the request
// is all in our hands and may be acted upon twice.
func (t *transfer) repeatable() bool {
	return !t.streaming && t.interims == 0 && len(t.up.Peek()) == 0 && !t.x.Begun() && t.x.Method.Idempotent()
}

// failClient ends an exchange whose client did not do its part.
func (t *transfer) failClient(err error, lost clientLost) {
	x := t.x
	f := exchange.Fault{Side: exchange.ClientSide, Step: lost.step, Cause: err}
	switch {
	case lost.err == relay.ErrTooLong:
		x.Stats.FailClient(stats.BodyTooLarge)
		f.Status, f.Why = 413, "the request body is larger than this server takes"
	case lost.step == readBody && lost.err == loop.ErrDeadline:
		x.Stats.FailClient(stats.RequestTimeout)
		f.Status, f.Why = 408, "the request body took too long"
	case lost.err == relay.ErrTooSlow:
		x.Stats.FailClient(stats.RequestTimeout)
		f.Status, f.Why = 408, "the request body comes too slowly"
	case lost.step == sendResponse && lost.err == loop.ErrDeadline:
		x.Stats.FailClient(stats.ClientReset)
		f.Status, f.Why = exchange.StatusGone, "the client did not take the response in time"
	default:
		x.Stats.FailClient(stats.ClientReset)
		f.Status, f.Why = exchange.StatusGone, "the client went away"
		if f.Step == "" {
			f.Step = t.step() // it left while we waited for the upstream
		}
	}
	t.fail(f)
}

// failUpstream ends an exchange whose upstream did not do its part. syntax is
// not nil if what it said is no HTTP.
func (t *transfer) failUpstream(err error, syntax *h1.SyntaxError) {
	x := t.x
	f := exchange.Fault{
		Status: 502, Why: "the upstream's answer is not valid HTTP", Error: exchange.ProtocolError,
		Side: exchange.UpstreamSide, Step: t.step(), Cause: err,
	}
	count := stats.BadResponse
	switch {
	case err == loop.ErrDeadline:
		count = stats.ResponseTimeout
		t.handler.pool.Failed(t.target, time.Duration(x.Loop.Now()-t.sent))
		f.Status, f.Why, f.Error = 504, "the upstream did not answer in time", exchange.ResponseTimeout
	case syntax != nil:
		x.Stats.RefusedResponses[syntax.Reason].Add(1)
		f.Details = syntax.Reason.String()
		f.Error = responseError(f.Details)
	case err == errUpgraded, err == errInterims:
		f.Details = err.Error()
	case err == errUpgrade:
		f.Error, f.Details = exchange.UpgradeFailed, err.Error()
	default:
		count = stats.UpstreamReset
		t.handler.pool.Failed(t.target, 0)
		f.Why, f.Error = "the upstream closed the connection before it answered", exchange.ConnectionTerminated
		if len(t.up.Peek()) > 0 || t.interims > 0 || x.Begun() {
			f.Error = exchange.ResponseIncomplete
		}
		if x.Begun() {
			f.Why = "the upstream closed the connection in the middle of its answer"
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			f.Cause = nil // it says no more than Why
		}
	}
	x.Stats.FailUpstream(count)
	t.fail(f)
}

// responseError is the type that is made for a reason, if there is one.
func responseError(reason string) exchange.ErrorType {
	switch reason {
	case "head-long", "line-long", "fields-many":
		return exchange.ResponseHeaderSize
	case "te-invalid", "te-unknown", "te-repeated", "te-order", "te-http10":
		return exchange.ResponseCoding
	}
	return exchange.ProtocolError
}

// step is what is under way with the upstream.
func (t *transfer) step() string {
	switch {
	case t.switched:
		return "switch protocols"
	case t.x.Begun():
		return "read response body"
	case t.asked:
		return "read response head"
	}
	return "send request"
}

// fail answers, or breaks off what has begun to be an answer.
func (t *transfer) fail(f exchange.Fault, extra ...string) {
	f.Request = t.request
	if t.up != nil {
		f.Upstream = t.target.Name
	}
	t.x.Fault(f, extra...)
}
