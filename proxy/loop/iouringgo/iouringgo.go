//go:build iouringgo && linux

// Package iouringgo holds one benchmark: the echo of proxy/loop on the
// top-level API of iouring-go. It shows why the proxy uses that module's
// syscall layer and not its API, and does nothing else.
//
// It is built only with the tag iouringgo, because the module links on today's
// Go only with -ldflags=-checklinkname=0:
//
//	go test -tags iouringgo -ldflags=-checklinkname=0 -run '^$' -bench Echo ./proxy/loop/iouringgo
package iouringgo
