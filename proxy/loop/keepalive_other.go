//go:build !linux

package loop

// inheritKeepAlive does nothing where package net accepts every socket.
func inheritKeepAlive(int) error { return nil }
