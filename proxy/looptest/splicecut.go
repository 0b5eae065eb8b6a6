package looptest

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

func spliceReset(e *Env) {
	source, _, from, to := e.spliced()
	if from == nil {
		return
	}
	e.write(source, "x")
	require.NoError(e, source.SetLinger(0))
	e.Task(func() {
		reset := e.Loop.Go(func() { e.Loop.Sleep(5 * time.Millisecond); _ = source.Close() })
		_, err, sending := pump(e, from, to)
		assert.ErrorContains(e, err, "reset")
		assert.False(e, sending)
		assert.NoError(e, reset.Join())
		from.Close()
		to.Close()
	})

	source, sink, from, to := e.spliced()
	go func() { _, _ = source.Write(make([]byte, 64<<20)) }() // until from is reset
	require.NoError(e, sink.SetLinger(0))
	e.Task(func() {
		reset := e.Loop.Go(func() { e.Loop.Sleep(20 * time.Millisecond); _ = sink.Close() })
		_, err, sending := pump(e, from, to)
		assert.Error(e, err)
		assert.True(e, sending)
		assert.NoError(e, reset.Join())
		_, err = to.Write([]byte("x"))
		assert.Error(e, err, "a failed send stays failed")
		from.Reset()
		to.Reset()
	})
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
	e.Post(func() { assert.Zero(e, e.Loop.Counters().Pipes.Load()) })
}

func spliceReadDeadline(e *Env) {
	source, sink, from, to := e.spliced()
	if from == nil {
		return
	}
	e.Task(func() {
		pipe, err := e.Loop.Pipe()
		assert.NoError(e, err)
		for range 3 {
			from.SetReadDeadline(e.Loop.Now().After(10 * time.Millisecond))
			_, err := readPipe(from, pipe)
			assert.Equal(e, loop.ErrDeadline, err)
			from.SetReadDeadline(e.Loop.Now().After(patience))
			e.write(source, "late")
			n, err := readPipe(from, pipe)
			assert.Equal(e, 4, n)
			assert.NoError(e, err)
			for pipe.Held() > 0 && err == nil {
				_, err = to.WritePipe(pipe)
			}
			assert.NoError(e, err)
		}
		e.Loop.PutPipe(pipe)
		from.Close()
		to.Close()
	})
	e.read(sink, "latelatelate")
}

func spliceWriteDeadline(e *Env) {
	source, _, from, to := e.spliced()
	if from == nil {
		return
	}
	go func() { _, _ = source.Write(make([]byte, 64<<20)) }() // until from is reset
	e.Task(func() {
		to.SetWriteDeadline(e.Loop.Now().After(100 * time.Millisecond))
		_, err, sending := pump(e, from, to)
		assert.Equal(e, loop.ErrDeadline, err)
		assert.True(e, sending)
		_, err = to.Write([]byte("x"))
		assert.Equal(e, loop.ErrDeadline, err, "a failed send stays failed")
		from.Reset()
		to.Reset()
	})
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

func spliceInterrupted(e *Env) {
	wants := map[string]error{"deadline": loop.ErrDeadline, "close": loop.ErrClosed, "reset": loop.ErrClosed}
	for what, want := range wants {
		for _, full := range []bool{false, true} { // whether it waits for bytes or for room
			source, _, from, to := e.spliced()
			if from == nil {
				return
			}
			if full {
				go func() { _, _ = source.Write(make([]byte, 64<<20)) }()
			}
			e.Task(func() {
				waits := e.Loop.Go(func() {
					_, err, sending := pump(e, from, to)
					assert.Equal(e, want, err, what)
					assert.Equal(e, full, sending, what)
				})
				e.Loop.Sleep(50 * time.Millisecond)
				switch c := map[bool]loop.Splicer{false: from, true: to}[full]; what {
				case "deadline":
					c.SetReadDeadline(loop.Past)
					c.SetWriteDeadline(loop.Past)
				case "close":
					c.Close()
				default:
					c.Reset()
				}
				assert.NoError(e, waits.Join())
				from.Reset()
				to.Reset()
			})
		}
	}
	e.eventually("all to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
}

func spliceStopped(e *Env) {
	ended := make(chan error, 2)
	for _, full := range []bool{false, true} {
		source, _, from, to := e.spliced()
		if from == nil {
			return
		}
		if full {
			go func() { _, _ = source.Write(make([]byte, 64<<20)) }()
		}
		e.Post(func() {
			e.Loop.Go(func() {
				_, err, _ := pump(e, from, to)
				ended <- err
				from.Close()
				to.Close()
			})
		})
	}
	time.Sleep(50 * time.Millisecond)
	e.Loop.Stop()
	assert.Equal(e, loop.ErrStopped, <-ended)
	assert.Equal(e, loop.ErrStopped, <-ended)
	wait(e, "worker", e.Loop.Wait)
}
