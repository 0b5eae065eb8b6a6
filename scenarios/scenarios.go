// Package scenarios holds the loads the lab can apply, one per TOML file, and
// their strict reader. It refuses to hold limits or verdicts: whoever edits a
// load must not be able to loosen its limit in the same line. Values are
// immutable after Load and may be shared between goroutines.
package scenarios

import (
	"embed"
	"time"
)

// Files are the scenarios of this repository, compiled in so that the programs
// run from any directory.
//
//go:embed *.toml
var Files embed.FS

// Kind says what a subject does with a request.
type Kind string

// The kinds of work.
const (
	Static Kind = "static" // answer from its own files
	Proxy  Kind = "proxy"  // forward requests to the origin
	TCP    Kind = "tcp"    // forward bytes to the origin, whatever they say
)

// Forwards says whether the work needs an origin.
func (k Kind) Forwards() bool { return k == Proxy || k == TCP }

// Key is the kind of private key behind the subject's certificate.
type Key string

// The keys. Without one the load speaks plain HTTP.
const (
	Plain Key = ""
	ECDSA Key = "ecdsa-p256"
	RSA   Key = "rsa-2048"
)

// Mode says what decides when a request is sent.
type Mode string

// The modes of load. Closed is for capacity only: its latency restates its
// throughput. Open is for latency only: its throughput is the rate asked for.
const (
	Closed Mode = "closed" // the answer to the previous request
	Open   Mode = "open"   // the clock
)

// Work says what a load consists of, and so what its figures count.
type Work string

// The works. All but the first are of mode closed. Of connections, as many are
// made in a second as there are requests.
const (
	Requests    Work = "requests"    // on connections that stay open; the default
	Handshakes  Work = "handshakes"  // full TLS handshakes, each with one request, and a close
	Resumptions Work = "resumptions" // the same with the ticket of the connection before
	Idle        Work = "idle"        // connections that were used and rest: the memory they take
	Connections Work = "connections" // requests with a connection of their own each, which the answer ends
)

// Handshaking says whether the work is one of the two that count handshakes.
func (w Work) Handshaking() bool { return w == Handshakes || w == Resumptions }

// Greed is what one client more does beside an open loop, on one connection and
// as fast as it can.
type Greed string

// The greeds. Without one there is no such client.
const (
	Upload   Greed = "upload"   // requests with a body of GreedyLength, one after another
	Download Greed = "download" // answers of GreedyLength, read as they come
	Pipeline Greed = "pipeline" // target.path, GreedyDepth requests in one write, again once all are answered
)

// What a greedy client wants. The document is that of static-100m.
const (
	GreedyPath   = "/large/100m.html"
	GreedyLength = 100 << 20
	GreedyDepth  = 1000
)

// Bounds on what a file may ask for.
const (
	connsMax  = 10_000
	lengthMax = 128 << 20
	// Above this a paced generator on one core falls behind its own schedule,
	// and the latency would be the generator's.
	rateMax = 10_000
	// A handshake costs the generator's core 300 microseconds.
	handshakesMax = 1000
	sharedMax     = 64
	// Atlas, nginx and HAProxy take a hundred fields by default.
	headersMax = 90
	delayMax   = time.Second
)

// Scenario is one load, as written in its file.
type Scenario struct {
	Name   string  `toml:"name"`
	About  string  `toml:"about"`
	Target Target  `toml:"target"`
	Load   Traffic `toml:"load"`
	Shared Shared  `toml:"shared"`
	Origin Origin  `toml:"origin"`
	Vary   Vary    `toml:"vary"`
	// At is what Each has set, of a scenario that it returned.
	At Point `toml:"-"`
}

// Shared is what all sides have together: the subject and the origin as many
// workers as there are cores, the load as many threads, on the same cores.
// Without it the subject has one worker, on a core of its own.
type Shared struct {
	Cores int `toml:"cores"` // 0 is not shared; a machine with fewer takes no part
}

// Origin is how the origin behaves, of a kind that forwards.
type Origin struct {
	// Delay is how long it waits before an answer.
	Delay Duration `toml:"delay"`
	// Connections are as many as the subject may have to it at once; 0 is no
	// bound. What finds all of them busy waits in the subject's queue.
	Connections int `toml:"connections"`
}

// OwnOrigin says whether the origin has to do what nginx's cannot: to wait, or
// to read what is sent to it.
func (s *Scenario) OwnOrigin() bool { return s.Origin.Delay > 0 || s.Load.Greedy == Upload }

// Duration is written as "10ms".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// Target is what is asked for and what must come back.
type Target struct {
	Kind   Kind   `toml:"kind"`
	TLS    Key    `toml:"tls"`    // between the load and the subject
	Path   string `toml:"path"`   // of the URL, beginning with a slash
	Length int    `toml:"length"` // bytes of body
}

// Traffic is how it is asked for.
type Traffic struct {
	Mode Mode `toml:"mode"`
	Of   Work `toml:"of"`
	// Conns are the connection counts to measure one by one; in an open
	// loop, the bound on requests in flight.
	Conns []int `toml:"conns"`
	// Quick are those of Conns that belong to the quick form of a run; a
	// scenario without any is measured when it is named, or in the full form.
	Quick []int `toml:"quick"`
	Rate  int   `toml:"rate"` // requests per second; open loop only
	// Headers are fields of each request beside Host, of about 32 bytes.
	Headers int `toml:"headers"`
	// Handshakes are full TLS handshakes per second beside the requests, on
	// connections of their own; open loop only.
	Handshakes int `toml:"handshakes"`
	// Shed lets answers with status 503 stand: they are counted by themselves,
	// and req/s is of the others; open loop only.
	Shed bool `toml:"shed"`
	// Greedy is what one client more does. The load is measured without it
	// first, and then beside it; open loop only.
	Greedy Greed `toml:"greedy"`
}

// Counts returns the connection counts to measure, of the quick form or all.
func (l *Traffic) Counts(quick bool) []int {
	if quick {
		return l.Quick
	}
	return l.Conns
}
