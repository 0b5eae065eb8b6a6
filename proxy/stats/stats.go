// Package stats counts what workers do. It does not export, name a port or
// keep history: whoever reads merges what all workers have counted, by
// Set.Snapshot and Set.Distributions. Each worker owns one Stats and is the only one to write it; any
// thread may read it at any time. Counting allocates nothing and shares no
// cache line with another worker.
package stats

import (
	"sync"
	"sync/atomic"
)

// Counter is a number that one worker writes and anybody reads.
type Counter struct{ n atomic.Int64 }

// Add adds n, which is negative where something that was counted ended.
func (c *Counter) Add(n int64) { c.n.Add(n) }

// Set replaces the number, of something that is measured and not counted.
func (c *Counter) Set(n int64) { c.n.Store(n) }

// Load returns the number.
func (c *Counter) Load() int64 { return c.n.Load() }

// lineBytes is what a processor may fetch at once: a cache line of 64 bytes and
// its neighbour, which x86 prefetches with it.
const lineBytes = 128

// Stats are the counters of one worker.
type Stats struct {
	// The padding in front and behind keeps neighbours in memory away; nothing
	// aligns a Stats, so both are needed.
	_ [lineBytes]byte

	Requests       Counter // heads read, complete or refused
	Responses      [classes]Counter
	ClientErrors   [clientErrors]Counter
	UpstreamErrors [upstreamErrors]Counter
	Retries        Counter // tries of a request beyond its first
	Underscores    Counter // request fields dropped for an underscore in their name
	Scarcities     Counter // requests answered 503, as there was no descriptor or memory for a file

	// By the reasons of the HTTP parser, which this package does not know: their
	// names are given to NewSet.
	RefusedRequests  [ReasonsMax]Counter
	RefusedResponses [ReasonsMax]Counter

	Handshakes      Counter // TLS handshakes with clients that succeeded
	Resumed         Counter // of these, how many went on with an earlier session
	HandshakeErrors [handshakeErrors]Counter

	CacheHits   Counter // requests for files that were answered from memory
	CacheMisses Counter // those for which the disk was looked at
	CacheBytes  Counter // that the cache of files charges itself for, now

	LogDropped Counter // records of the access log that there was no room for

	// FirstByte and Total are those without an upstream: see Times.
	Phases [phases]Histogram

	mu        sync.Mutex // over the map; the Times in it are the worker's
	upstreams map[string]*Times

	_ [lineBytes]byte
}

// ReasonsMax is how many reasons for a refusal can be told apart.
const ReasonsMax = 64

// class is the first digit of a status, less one.
type class uint8

// classes is the number of response classes: 1xx to 5xx.
const classes = 5

// String is the class as it is written: "2xx".
func (c class) String() string { return "1xx2xx3xx4xx5xx"[3*c:][:3] }

// Respond counts a response. A status of no class is not counted.
func (s *Stats) Respond(status int) {
	if c := status/100 - 1; c >= 0 && c < classes {
		s.Responses[c].Add(1)
	}
}

// ClientError is why a request was refused or its client was lost.
type ClientError uint8

// The client errors, with the status that answers them.
const (
	BadRequest      ClientError = iota // 400: not valid HTTP
	RequestTimeout                     // 408
	BodyTooLarge                       // 413
	TargetTooLong                      // 414
	BadExpectation                     // 417
	HeadTooLarge                       // 431
	NotImplemented                     // 501: transfer coding or method
	BadVersion                         // 505
	ClientReset                        // gone in the middle of an exchange
	HandshakeFailed                    // TLS
	BadProxyHeader                     // none, or none in time, from a proxy that has to send one
	RateLimited                        // 429: more requests than the client may make
	PeerConnections                    // closed: more connections than an address may have
	clientErrors
)

// String is the reason in one word, for a label or a log.
func (e ClientError) String() string {
	switch e {
	case BadRequest:
		return "bad_request"
	case RequestTimeout:
		return "request_timeout"
	case BodyTooLarge:
		return "body_too_large"
	case TargetTooLong:
		return "target_too_long"
	case BadExpectation:
		return "bad_expectation"
	case HeadTooLarge:
		return "head_too_large"
	case NotImplemented:
		return "not_implemented"
	case BadVersion:
		return "bad_version"
	case ClientReset:
		return "client_reset"
	case HandshakeFailed:
		return "handshake_failed"
	case BadProxyHeader:
		return "bad_proxy_header"
	case RateLimited:
		return "rate_limited"
	case PeerConnections:
		return "peer_connections"
	}
	return "unknown"
}

// FailClient counts a client error.
func (s *Stats) FailClient(e ClientError) { s.ClientErrors[e].Add(1) }

// HandshakeError is why a TLS handshake with a client failed.
type HandshakeError uint8

// The handshake errors.
const (
	HandshakeTimeout     HandshakeError = iota // it took too long
	HandshakeGone                              // the client ended or reset the connection
	HandshakePlain                             // it did not speak TLS
	HandshakeVersion                           // no version of TLS that both know
	HandshakeProtocol                          // no application protocol that both know (ALPN)
	HandshakeCipher                            // no cipher suite, key exchange or signature that both know
	HandshakeCertificate                       // of the client: missing, or not one that we trust
	HandshakeRefused                           // the client sent an alert: mostly it does not trust our certificate
	HandshakeMalformed                         // it broke the protocol
	HandshakeOurs                              // our key could not sign
	handshakeErrors
)

// String is the reason in one word, for a label or a log.
func (e HandshakeError) String() string {
	switch e {
	case HandshakeTimeout:
		return "timeout"
	case HandshakeGone:
		return "gone"
	case HandshakePlain:
		return "not_tls"
	case HandshakeVersion:
		return "version"
	case HandshakeProtocol:
		return "application_protocol"
	case HandshakeCipher:
		return "cipher"
	case HandshakeCertificate:
		return "client_certificate"
	case HandshakeRefused:
		return "refused_by_client"
	case HandshakeMalformed:
		return "malformed"
	case HandshakeOurs:
		return "own_key"
	}
	return "unknown"
}

// FailHandshake counts a failed handshake, and its client as lost.
func (s *Stats) FailHandshake(e HandshakeError) {
	s.HandshakeErrors[e].Add(1)
	s.FailClient(HandshakeFailed)
}

// UpstreamError is why an upstream did not do its part.
type UpstreamError uint8

// The upstream errors.
const (
	Refused         UpstreamError = iota // no connection
	BadTLS                               // a connection, but no TLS on it: mostly a certificate that is not trusted
	ConnectTimeout                       // no connection in time
	UpstreamReset                        // connection lost in the middle of an exchange
	ResponseTimeout                      // no response in time
	BadResponse                          // not valid HTTP
	NoUpstream                           // none was eligible
	QueueFull                            // none had room, and too many waited already
	QueueTimeout                         // none had room in time
	Scarce                               // no descriptor, port or memory here for a connection to it
	upstreamErrors
)

// String is the reason in one word, for a label or a log.
func (e UpstreamError) String() string {
	switch e {
	case Refused:
		return "refused"
	case BadTLS:
		return "tls"
	case ConnectTimeout:
		return "connect_timeout"
	case UpstreamReset:
		return "reset"
	case ResponseTimeout:
		return "response_timeout"
	case BadResponse:
		return "bad_response"
	case NoUpstream:
		return "no_upstream"
	case QueueFull:
		return "queue_full"
	case QueueTimeout:
		return "queue_timeout"
	case Scarce:
		return "scarce"
	}
	return "unknown"
}

// FailUpstream counts an upstream error.
func (s *Stats) FailUpstream(e UpstreamError) { s.UpstreamErrors[e].Add(1) }
