//go:build !linux

package looptest

// Evict reports that the file is still in memory: nothing tells otherwise.
func (e *Env) Evict(string) bool { return false }
