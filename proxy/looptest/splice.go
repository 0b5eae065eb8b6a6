package looptest

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// spliceTests are about pipes between two connections. They hold for connections
// that are Splicers, and say nothing of others.
var spliceTests = map[string]func(*Env){
	"splice: a large volume":                         spliceVolume,
	"splice: what is in Peek comes first":            splicePeekFirst,
	"splice: behind what was written":                spliceBehindWrites,
	"splice: to a peer that takes little at a time":  spliceSlowly,
	"splice: the end":                                spliceEnd,
	"splice: a peer that resets, on either side":     spliceReset,
	"splice: read deadline, then it goes on":         spliceReadDeadline,
	"splice: write deadline":                         spliceWriteDeadline,
	"splice: another task sets a deadline or closes": spliceInterrupted,
	"splice: a stop ends both waits":                 spliceStopped,
	"splice: both directions at once":                spliceBothWays,
	"splice: other kinds of reading in between":      spliceMixed,
	"splice: a Unix socket":                          spliceUnix,
	"pipes: one that holds bytes is not lent again":  pipesHoldNothing,
	"pipes: as many as may be, and then more":        pipesBounded,
}

// spliced is a source and a sink, and the connections to them. They are nil where
// connections are no Splicers.
func (e *Env) spliced() (source, sink *net.TCPConn, from, to loop.Splicer) {
	e.Helper()
	source, a := e.peers()
	sink, b := e.peers()
	from, can := a.(loop.Splicer)
	to, both := b.(loop.Splicer)
	if !can || !both {
		e.Post(func() { a.Close(); b.Close() })
		return nil, nil, nil, nil
	}
	return source, sink, from, to
}

// readPipe waits for what it reads: bytes in the pipe, or in Peek, or an error.
func readPipe(from loop.Splicer, pipe *loop.Pipe) (n int, err error) {
	for n == 0 && err == nil {
		if err = from.AwaitBytes(); err != nil || len(from.Peek()) > 0 {
			break
		}
		n, err = from.ReadPipe(pipe)
	}
	return n, err
}

// pump moves everything, through a pipe where it can, until an error, which is of
// the sending side if that is true.
func pump(e *Env, from, to loop.Splicer) (moved int, err error, sending bool) {
	pipe, err := e.Loop.Pipe()
	if !assert.NoError(e, err) {
		return 0, err, false
	}
	defer e.Loop.PutPipe(pipe)
	for {
		n, err := readPipe(from, pipe)
		if err != nil {
			return moved, err, false
		}
		assert.Equal(e, n, pipe.Held())
		if n == 0 {
			n, err = to.Write(from.Peek())
			moved += n
			if !assert.NotZero(e, n) || err != nil || to.Flush() != nil {
				return moved, err, true
			}
			from.Consume(n)
		}
		for pipe.Held() > 0 {
			m, err := to.WritePipe(pipe)
			moved += m
			if err != nil {
				return moved, err, true
			}
			assert.Positive(e, m)
		}
	}
}

func spliceVolume(e *Env) {
	source, sink, from, to := e.spliced()
	if from == nil {
		return
	}
	volume := pattern(24<<20 + 7)
	go func() {
		for rest := volume; len(rest) > 0; {
			n, _ := source.Write(rest[:min(len(rest), 1+len(rest)%300_000)])
			rest = rest[n:]
		}
		_ = source.CloseWrite()
	}()
	got := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(sink) // compared below
		got <- all
	}()
	e.Task(func() {
		moved, err, _ := pump(e, from, to)
		assert.Equal(e, len(volume), moved)
		assert.Equal(e, io.EOF, err)
		assert.NoError(e, to.CloseWrite())
		assert.Greater(e, e.Loop.Counters().Spliced.Load(), uint64(moved/2))
		assert.Zero(e, e.Loop.Counters().Pipes.Load())
		from.Close()
		to.Close()
	})
	assert.True(e, bytes.Equal(volume, <-got))
}

func splicePeekFirst(e *Env) {
	source, sink, from, to := e.spliced()
	if from == nil {
		return
	}
	e.write(source, "first")
	e.Task(func() {
		for len(from.Peek()) == 0 {
			if !assert.NoError(e, from.Fill()) {
				return
			}
		}
		pipe, err := e.Loop.Pipe()
		assert.NoError(e, err)
		n, err := readPipe(from, pipe)
		assert.Zero(e, n)
		assert.NoError(e, err)
		_, err = to.Write(from.Peek())
		assert.NoError(e, err)
		from.Consume(len(from.Peek()))
		e.write(source, "second")
		for n == 0 && err == nil { // a receive that was under way may bring it
			if n, err = readPipe(from, pipe); n == 0 && err == nil {
				_, err = to.Write(from.Peek())
				n = len(from.Peek())
				from.Consume(n)
			}
		}
		assert.NoError(e, err)
		for pipe.Held() > 0 && err == nil {
			_, err = to.WritePipe(pipe)
		}
		assert.NoError(e, err)
		assert.NoError(e, to.Flush())
		e.Loop.PutPipe(pipe)
		from.Close()
		to.Close()
	})
	e.read(sink, "firstsecond")
	e.readEnd(sink)
}

func spliceBehindWrites(e *Env) {
	source, sink, from, to := e.spliced()
	if from == nil {
		return
	}
	large := []byte(strings.Repeat("L", 300_000))
	got := make(chan string)
	go func() {
		all, _ := io.ReadAll(sink) // compared below
		got <- string(all)
	}()
	e.Task(func() {
		pipe := fill(e, source, from, "<spliced>")
		_, err := to.Write([]byte("<copied>"))
		assert.NoError(e, err)
		assert.NoError(e, to.Queue(large))
		for pipe.Held() > 0 && err == nil {
			_, err = to.WritePipe(pipe)
		}
		assert.NoError(e, err)
		e.Loop.PutPipe(pipe)
		from.Close()
		to.Close()
	})
	assert.Equal(e, "<copied>"+string(large)+"<spliced>", <-got)
}

// fill returns a pipe with what source sends.
func fill(e *Env, source *net.TCPConn, from loop.Splicer, text string) *loop.Pipe {
	pipe, err := e.Loop.Pipe()
	assert.NoError(e, err)
	from.SetReadDeadline(e.Loop.Now().After(time.Millisecond))
	_, err = readPipe(from, pipe) // no other receive is under way then
	assert.Equal(e, loop.ErrDeadline, err)
	from.SetReadDeadline(0)
	_, err = io.WriteString(source, text)
	assert.NoError(e, err)
	_, err = readPipe(from, pipe)
	assert.NoError(e, err)
	assert.Equal(e, len(text), pipe.Held())
	return pipe
}

func spliceSlowly(e *Env) {
	source, sink, from, to := e.spliced()
	if from == nil {
		return
	}
	volume := pattern(12 << 20)
	go func() {
		_, _ = source.Write(volume)
		_ = source.CloseWrite()
	}()
	got := make(chan []byte)
	go func() {
		var all []byte
		p := make([]byte, 150_000)
		for {
			n, err := sink.Read(p)
			all = append(all, p[:n]...)
			if err != nil {
				got <- all
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	e.Task(func() {
		moved, err, _ := pump(e, from, to)
		assert.Equal(e, len(volume), moved)
		assert.Equal(e, io.EOF, err)
		from.Close()
		to.Close()
	})
	assert.True(e, bytes.Equal(volume, <-got))
}

func spliceEnd(e *Env) {
	source, _, from, to := e.spliced()
	if from == nil {
		return
	}
	e.write(source, "last words")
	require.NoError(e, source.CloseWrite())
	e.Task(func() {
		moved, err, _ := pump(e, from, to)
		assert.Equal(e, 10, moved)
		assert.Equal(e, io.EOF, err)
		assert.Equal(e, io.EOF, from.Fill(), "it stays")
		_, err, _ = pump(e, from, to)
		assert.Equal(e, io.EOF, err)
		_, err = from.Write([]byte("the other direction goes on"))
		assert.NoError(e, err)
		from.Close()
		to.Close()
	})
	e.read(source, "the other direction goes on")
}

func spliceBothWays(e *Env) {
	left, right, a, b := e.spliced()
	if a == nil {
		return
	}
	volume := pattern(8 << 20)
	results := make(chan bool, 2)
	for _, c := range []*net.TCPConn{left, right} {
		go func() {
			_, _ = c.Write(volume)
			_ = c.CloseWrite()
		}()
		go func() {
			got, _ := io.ReadAll(c)
			results <- bytes.Equal(volume, got)
		}()
	}
	e.Task(func() {
		back := e.Loop.Go(func() {
			_, err, _ := pump(e, b, a)
			assert.Equal(e, io.EOF, err)
			assert.NoError(e, a.CloseWrite())
		})
		_, err, _ := pump(e, a, b)
		assert.Equal(e, io.EOF, err)
		assert.NoError(e, b.CloseWrite())
		assert.NoError(e, back.Join())
		a.Close()
		b.Close()
	})
	assert.True(e, <-results)
	assert.True(e, <-results)
}

// spliceMixed reads a stream in all ways by turns.
func spliceMixed(e *Env) {
	source, sink, from, to := e.spliced()
	if from == nil {
		return
	}
	volume := pattern(6 << 20)
	go func() {
		for rest := volume; len(rest) > 0; {
			n, _ := source.Write(rest[:min(len(rest), 1+(len(rest)*7)%90_000)])
			rest = rest[n:]
		}
		_ = source.CloseWrite()
	}()
	got := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(sink) // compared below
		got <- all
	}()
	e.Task(func() {
		pipe, err := e.Loop.Pipe()
		p := make([]byte, 64<<10)
		for turn := 0; err == nil; turn++ {
			n := 0
			switch turn % 3 {
			case 0:
				if err = from.Fill(); err == nil {
					n = copy(p, from.Peek())
					from.Consume(n)
				}
			case 1:
				n, err = from.Read(p[:1+turn%len(p)])
			default:
				_, err = readPipe(from, pipe)
				for pipe.Held() > 0 && err == nil {
					_, err = to.WritePipe(pipe)
				}
			}
			_, writeErr := to.Write(p[:n])
			assert.NoError(e, writeErr)
		}
		assert.Equal(e, io.EOF, err)
		rest := append([]byte(nil), from.Peek()...)
		_, err = to.Write(rest)
		assert.NoError(e, err)
		e.Loop.PutPipe(pipe)
		from.Close()
		to.Close()
	})
	assert.True(e, bytes.Equal(volume, <-got))
}

func spliceUnix(e *Env) {
	source, _, from, to := e.spliced()
	if from == nil {
		return
	}
	path := filepath.Join(e.TempDir(), "socket")
	ln, err := net.Listen("unix", path)
	require.NoError(e, err)
	defer ln.Close()
	go func() {
		if c, err := ln.Accept(); err == nil {
			_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			_ = c.Close()
		}
	}()
	volume := pattern(3 << 20)
	go func() {
		_, _ = source.Write(volume)
		_ = source.CloseWrite()
	}()
	got := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(source)
		got <- all
	}()
	e.Task(func() {
		to.Close()
		c, err := e.Loop.Dial(loop.Address{Path: path}, patience)
		if !assert.NoError(e, err) {
			return
		}
		there := e.Loop.Go(func() {
			_, err, _ := pump(e, from, c.(loop.Splicer))
			assert.Equal(e, io.EOF, err)
			assert.NoError(e, c.CloseWrite())
		})
		_, err, _ = pump(e, c.(loop.Splicer), from)
		assert.Equal(e, io.EOF, err)
		assert.NoError(e, there.Join())
		c.Close()
		from.Close()
	})
	assert.True(e, bytes.Equal(volume, <-got))
}

// A pipe that was given back with bytes of one connection in it never has them
// for another.
func pipesHoldNothing(e *Env) {
	for range 40 {
		source, _, from, to := e.spliced()
		if from == nil {
			return
		}
		e.Task(func() {
			e.Loop.PutPipe(fill(e, source, from, strings.Repeat("secret", 1000)))
			from.Reset()
			to.Reset()
		})
		source, sink, from, to := e.spliced()
		e.Task(func() {
			pipe := fill(e, source, from, "mine")
			for pipe.Held() > 0 {
				if _, err := to.WritePipe(pipe); !assert.NoError(e, err) {
					break
				}
			}
			e.Loop.PutPipe(pipe)
			from.Close()
			to.Close()
		})
		e.read(sink, "mine")
		e.readEnd(sink)
	}
}

func pipesBounded(e *Env) {
	_, _, from, to := e.spliced()
	if from == nil {
		return
	}
	e.Post(func() {
		from.Close()
		to.Close()
		for range 2 {
			var lent []*loop.Pipe
			for {
				pipe, err := e.Loop.Pipe()
				if err != nil {
					break
				}
				lent = append(lent, pipe)
				if !assert.Less(e, len(lent), 10_000) {
					break
				}
			}
			assert.EqualValues(e, len(lent), e.Loop.Counters().Pipes.Load())
			assert.NotEmpty(e, lent)
			for _, pipe := range lent {
				e.Loop.PutPipe(pipe)
			}
			assert.Zero(e, e.Loop.Counters().Pipes.Load())
		}
	})
}
