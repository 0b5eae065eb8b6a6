//go:build !linux

package loop

// bytesAcked is not known where each system has a way of its own to ask for it.
func bytesAcked(int) (uint64, bool) { return 0, false }
