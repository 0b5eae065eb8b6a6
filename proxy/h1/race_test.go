//go:build race

package h1

// The race detector allocates on its own account.
const raceEnabled = true
