//go:build !linux

package loop

// hungUp knows nothing where poll has no POLLRDHUP.
func hungUp(int) bool { return false }
