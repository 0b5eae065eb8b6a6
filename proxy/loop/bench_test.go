package loop_test

import (
	"testing"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// BenchmarkEcho compares the engines on 64 connections; the same echo on the
// top-level API of iouring-go is in proxy/loop/iouringgo.
func BenchmarkEcho(b *testing.B) {
	for _, engine := range []struct {
		name   string
		engine loop.Engine
	}{{"ring", loop.IOUring}, {"netpoll", loop.Netpoll}} {
		b.Run("engine="+engine.name, func(b *testing.B) {
			if engine.engine == loop.IOUring {
				looptest.RequireRing(b)
			}
			e := looptest.New(b, loop.Config{Engine: engine.engine, CPU: -1})
			looptest.BenchmarkEcho(b, e.Listen(looptest.Echo), 64, 1024)
		})
	}
}
