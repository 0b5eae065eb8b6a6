package relay

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// BenchmarkCopy moves bodies of 1 MiB from one socket to another, as they came
// and in chunks of 16 KiB.
func BenchmarkCopy(b *testing.B) {
	const size, chunk = 1 << 20, 16 << 10
	var inChunks []byte
	for range size / chunk {
		inChunks = h1.AppendChunk(inChunks, make([]byte, chunk))
	}
	inChunks = append(inChunks, h1.LastChunkEnd...)
	for _, engine := range []loop.Engine{loop.IOUring, loop.Netpoll} {
		b.Run("engine="+string(engine), func(b *testing.B) {
			if engine == loop.IOUring {
				looptest.RequireRing(b)
			}
			b.Run("framing=length", func(b *testing.B) { benchmarkCopy(b, engine, sized(size), make([]byte, size)) })
			b.Run("framing=chunked", func(b *testing.B) { benchmarkCopy(b, engine, chunked, inChunks) })
		})
	}
}

func benchmarkCopy(b *testing.B, engine loop.Engine, framing h1.Body, wire []byte) {
	e := looptest.New(b, loop.Config{Engine: engine, CPU: -1})
	source, from := e.Pair()
	sink, to := e.Pair()
	// Bodies by the thousand take longer than the peers' patience.
	for _, p := range []net.Conn{source, sink} {
		require.NoError(b, p.SetDeadline(time.Time{}))
	}
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			_, _ = source.Write(wire) // the copier sees if it failed
		}
	}()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, struct{ io.Reader }{sink}) }()
	e.Post(func() {
		e.Loop.Go(func() {
			var body Body
			var w Writer
			buffer := make([]byte, BufferBytes)
			for range b.N {
				body.Start(from, framing)
				w.Start(to, framing.Kind == h1.BodyChunked)
				readErr, writeErr := Copy(&w, &body, buffer, patience, patience)
				if readErr != nil || writeErr != nil || w.End(body.Trailer(), false) != nil {
					b.Errorf("copy: %v, %v", readErr, writeErr)
					break
				}
				body.End()
			}
			from.Close()
			to.Close()
		})
	})
	<-done
}

// BenchmarkTunnel moves a megabyte through a tunnel, spliced and copied.
func BenchmarkTunnel(b *testing.B) {
	for _, engine := range []loop.Engine{loop.IOUring, loop.Netpoll} {
		b.Run("engine="+string(engine), func(b *testing.B) {
			if engine == loop.IOUring {
				looptest.RequireRing(b)
			}
			b.Run("way=splice", func(b *testing.B) { benchmarkTunnel(b, engine, func(c loop.Conn) loop.Conn { return c }) })
			b.Run("way=copy", func(b *testing.B) { benchmarkTunnel(b, engine, plain) })
		})
	}
}

// plain hides that a connection can be spliced, as one that speaks TLS cannot.
func plain(c loop.Conn) loop.Conn { return struct{ loop.Conn }{c} }

func benchmarkTunnel(b *testing.B, engine loop.Engine, end func(loop.Conn) loop.Conn) {
	e := looptest.New(b, loop.Config{Engine: engine, CPU: -1})
	source, from := e.Pair()
	sink, to := e.Pair()
	for _, p := range []net.Conn{source, sink} {
		require.NoError(b, p.SetDeadline(time.Time{}))
	}
	piece := make([]byte, 1<<20)
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for range b.N {
			_, _ = source.Write(piece) // the tunnel sees if it failed
		}
		_ = source.CloseWrite()
		_ = sink.CloseWrite()
	}()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(io.Discard, struct{ io.Reader }{sink}) }()
	var buffers Buffers
	e.Task(func() {
		ending := Tunnel([2]loop.Conn{end(from), end(to)}, &buffers, Silence{Idle: time.Hour, Grace: time.Hour})
		if ending.Err != nil {
			b.Error(ending.Err)
		}
		from.Close()
		to.Close()
	})
	<-done
}
