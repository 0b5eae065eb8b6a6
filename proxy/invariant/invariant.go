// Package invariant states what must hold if the program has no bug. It is not
// for what the world may do: a peer, a file or a kernel that misbehaves is an
// error. The checks are compiled in by the build tag invariants and under the
// race detector; without them a check costs nothing, as long as its condition
// has no side effect. It holds no memory; every thread may call it.
package invariant

// That panics with msg if cond is false and the checks are compiled in. A
// condition that costs something to find out goes behind `if Enabled`.
func That(cond bool, msg string) {
	if Enabled && !cond {
		panic("invariant: " + msg)
	}
}
