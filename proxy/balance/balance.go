// Package balance picks the upstream for the next request. It does no I/O,
// takes no lock and allocates nothing per pick: it sees a slice of upstreams
// and the picker's own few words of state. It does not know whether an
// upstream is healthy or how many exchanges are in flight; the caller writes
// both into the slice before it picks. A Picker belongs to one worker; only
// that worker's thread may call it.
package balance

// None is the answer of a pick when no upstream is eligible.
const None = -1

// Strategy is the rule of a pick, by the name it has in the config file.
type Strategy string

// The strategies.
const (
	RoundRobin       Strategy = "round_robin"
	Random           Strategy = "random"
	LeastConnections Strategy = "least_connections"
)

// Strategies lists every strategy, the default first.
func Strategies() []Strategy {
	return []Strategy{RoundRobin, Random, LeastConnections}
}
