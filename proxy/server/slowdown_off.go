//go:build !(slowdown && linux)

package server

// slowdown is there in builds with the tag slowdown only.
type slowdown struct{}

func (slowdown) spend() {}
