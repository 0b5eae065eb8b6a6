// Package scenarios holds the loads the lab can apply, one per TOML file, and
// their strict reader. It refuses to hold limits or verdicts: whoever edits a
// load must not be able to loosen its limit in the same line. Values are
// immutable after Load and may be shared between goroutines.
package scenarios

import "embed"

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
	Proxy  Kind = "proxy"  // forward to the origin
)

// Mode says what decides when a request is sent.
type Mode string

// The modes of load. Closed is for capacity only: its latency restates its
// throughput. Open is for latency only: its throughput is the rate asked for.
const (
	Closed Mode = "closed" // the answer to the previous request
	Open   Mode = "open"   // the clock
)

// Bounds on what a file may ask for.
const (
	connsMax  = 10_000
	lengthMax = 16 << 20
	// Above this a paced generator on one core falls behind its own schedule,
	// and the latency would be the generator's.
	rateMax = 10_000
)

// Scenario is one load, as written in its file.
type Scenario struct {
	Name   string  `toml:"name"`
	About  string  `toml:"about"`
	Target Target  `toml:"target"`
	Load   Traffic `toml:"load"`
}

// Target is what is asked for and what must come back.
type Target struct {
	Kind   Kind   `toml:"kind"`
	Path   string `toml:"path"`   // of the URL, beginning with a slash
	Length int    `toml:"length"` // bytes of body
}

// Traffic is how it is asked for.
type Traffic struct {
	Mode Mode `toml:"mode"`
	// Conns are the connection counts to measure one by one; in an open
	// loop, the bound on requests in flight.
	Conns []int `toml:"conns"`
	Rate  int   `toml:"rate"` // requests per second; open loop only
}
