package relay

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

const patience = 30 * time.Second

// copied runs Copy and End over fake connections.
func copied(from, to *fakeConn, framing h1.Body, chunk bool) (readErr, writeErr error) {
	from.others, to.others = append(from.others, to), append(to.others, from)
	var b Body
	var w Writer
	b.Start(from, framing)
	w.Start(to, chunk)
	readErr, writeErr = Copy(&w, &b, make([]byte, 8), time.Second, time.Minute)
	if readErr == nil && writeErr == nil {
		writeErr = w.End(b.Trailer(), false)
		b.End()
	}
	return readErr, writeErr
}

func TestCopy(t *testing.T) {
	for _, row := range bodies {
		t.Run(row.name, func(t *testing.T) {
			from := &fakeConn{pieces: nonEmpty(row.wire), end: io.EOF}
			to := &fakeConn{}
			readErr, writeErr := copied(from, to, row.framing, false)
			assert.NoError(t, writeErr)
			assert.Equal(t, row.body, string(to.out))
			if row.err != "" {
				assert.ErrorContains(t, readErr, row.err)
			} else {
				assert.NoError(t, readErr)
				assert.Equal(t, row.rest, string(from.in)+strings.Join(from.pieces, ""))
			}

			from = &fakeConn{pieces: strings.Split(row.wire, ""), end: io.EOF}
			to = &fakeConn{}
			readErr, _ = copied(from, to, row.framing, true)
			wire := &fakeConn{pieces: nonEmpty(string(to.out)), end: io.EOF}
			body, trailer, err := readAll(wire, chunked, 10)
			assert.Equal(t, row.body, body)
			assert.Equal(t, row.trailer, trailer)
			assert.Equal(t, readErr != nil, err != io.EOF, "an end where there was none: %v", err)
		})
	}
}

// What a body's sender said goes on at once: the flush follows each piece.
func TestCopyFlushesEachPiece(t *testing.T) {
	from := &fakeConn{pieces: []string{"ab", "cd", "ef"}, end: io.EOF}
	to := &fakeConn{}
	var seen []string
	from.onWait = func() { seen = append(seen, string(to.out[:len(to.out)*min(1, to.flushes)])) }
	readErr, writeErr := copied(from, to, closing, false)
	assert.NoError(t, readErr)
	assert.NoError(t, writeErr)
	assert.Contains(t, seen, "ab")
	assert.Contains(t, seen, "abcd")
	assert.Equal(t, 3, to.flushes)
}

// A body that is here to its end needs no flush of its own.
func TestCopyEndsInOnePiece(t *testing.T) {
	for wire, flushes := range map[string]int{
		"2\r\nab\r\n0\r\n\r\n":         0,
		"2\r\nab\r\n0\r\nX: y\r\n\r\n": 0,
		"2\r\nab\r\n0\r\n":             1,
		"2\r\nab\r\n":                  1,
	} {
		from := &fakeConn{pieces: []string{wire}, end: io.EOF}
		to := &fakeConn{}
		var b Body
		var w Writer
		b.Start(from, chunked)
		w.Start(to, true)
		_ = from.Fill()
		_, _ = Copy(&w, &b, make([]byte, 100), time.Second, time.Minute)
		assert.Equal(t, flushes, to.flushes, "%q", wire)
	}
}

func TestCopyBlamesTheRightSide(t *testing.T) {
	from := &fakeConn{pieces: []string{"abc"}, end: io.ErrNoProgress}
	readErr, writeErr := copied(from, &fakeConn{}, closing, false)
	assert.Equal(t, io.ErrNoProgress, readErr)
	assert.NoError(t, writeErr)
	for _, chunk := range []bool{false, true} {
		for most := 1; most < 7; most++ {
			from = &fakeConn{pieces: []string{"abcdef", "x"}, end: io.EOF}
			readErr, writeErr = copied(from, &fakeConn{outMax: most}, closing, chunk)
			assert.NoError(t, readErr)
			assert.Equal(t, io.ErrClosedPipe, writeErr)
		}
	}
}

// The end of a body may come long after its last byte: what is written for it
// has a deadline of its own.
func TestCopyDeadlines(t *testing.T) {
	from := &fakeConn{pieces: []string{"5\r\nhello\r\n", "0\r\n\r\n"}, end: io.EOF}
	to := &fakeConn{}
	waits := 0
	from.onWait = func() { waits++ }
	_, _ = copied(from, to, chunked, true)
	now := fakeLoop{}.Now()
	for _, at := range from.readSets {
		assert.Equal(t, now.After(time.Second), at)
	}
	for _, at := range to.writeSets {
		assert.Equal(t, now.After(time.Minute), at)
	}
	assert.Len(t, to.writeSets, 2, "one for the piece, one for the end")
}

func TestWriter(t *testing.T) {
	for _, row := range []struct {
		name    string
		chunked bool
		writes  []string
		trailer string
		want    string
	}{
		{"as it is", false, []string{"ab", "", "cd"}, "X-Sum: 1\r\n", "abcd"},
		{"chunks", true, []string{"ab", "cdefghijklmnopqrs"}, "", "2\r\nab\r\n11\r\ncdefghijklmnopqrs\r\n0\r\n\r\n"},
		{"an empty chunk would be the end", true, []string{"", "a", ""}, "", "1\r\na\r\n0\r\n\r\n"},
		{"no chunks", true, nil, "", "0\r\n\r\n"},
		{"trailer", true, []string{"a"}, "X-Sum: 1\r\nExpires: 0\r\n", "1\r\na\r\n0\r\nX-Sum: 1\r\nExpires: 0\r\n\r\n"},
		{"trailer fields that stay", true, nil,
			"Connection: close\r\nX_Sum: 1\r\nSet-Cookie: a=b\r\nTE: x\r\nX-Sum: 2\r\n", "0\r\nX-Sum: 2\r\n\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := &fakeConn{}
			var w Writer
			w.Start(c, row.chunked)
			for _, p := range row.writes {
				n, err := w.Write([]byte(p))
				assert.NoError(t, err)
				assert.Equal(t, len(p), n)
			}
			var trailer *h1.Trailer
			if row.trailer != "" {
				trailer = new(h1.Trailer)
				_, err := h1.ParseTrailer([]byte(row.trailer+"\r\n"), trailer)
				require.NoError(t, err)
			}
			assert.NoError(t, w.End(trailer, false))
			assert.Equal(t, row.want, string(c.out))
		})
	}
}

func TestBuffers(t *testing.T) {
	var b Buffers
	first, second := b.Take(), b.Take()
	assert.Len(t, first, BufferBytes)
	first[0], second[0] = 1, 2
	b.Put(first)
	b.Put(second)
	assert.EqualValues(t, 2, b.Take()[0], "the warmest first")
	assert.EqualValues(t, 1, b.Take()[0])
	for range 2 * buffersKept {
		b.Put(make([]byte, BufferBytes))
	}
	assert.Len(t, b.free, buffersKept)
}

// wire frames body for a sender, in pieces of random sizes.
func wire(framing h1.Body, body []byte, rng *rand.Rand) []byte {
	if framing.Kind != h1.BodyChunked {
		return body
	}
	var b []byte
	for len(body) > 0 {
		n := min(len(body), 1+rng.IntN(1<<rng.IntN(18)))
		b = h1.AppendChunk(b, body[:n])
		body = body[n:]
	}
	return append(b, "0\r\nX-Sum: 1\r\n\r\n"...)
}

// TestCopyThrough moves bodies through a worker, from one socket to another.
func TestCopyThrough(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for name, framing := range map[string]h1.Body{
			"length": sized(3<<20 + 7), "chunked": chunked, "close": closing,
		} {
			t.Run(name, func(t *testing.T) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				source, from := e.Pair()
				sink, to := e.Pair()
				body := looptest.Pattern(3<<20 + 7)
				rng := rand.New(rand.NewPCG(1, 2))
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					rest := wire(framing, body, rng)
					for len(rest) > 0 {
						n := min(len(rest), 1+rng.IntN(200_000))
						_, _ = source.Write(rest[:n]) // the sink sees if it failed
						rest = rest[n:]
					}
					_ = source.CloseWrite()
				}()
				got := make(chan []byte)
				go func() {
					all, err := io.ReadAll(sink)
					assert.NoError(t, err)
					got <- all
				}()
				e.Task(func() {
					var b Body
					var w Writer
					b.Start(from, framing)
					w.Start(to, false)
					readErr, writeErr := Copy(&w, &b, make([]byte, BufferBytes), patience, patience)
					assert.NoError(t, readErr)
					assert.NoError(t, writeErr)
					assert.True(t, b.Done())
					assert.Equal(t, framing == chunked, b.Trailer() != nil)
					b.End()
					assert.Empty(t, from.Peek())
					from.Close()
					to.Close()
				})
				<-sent
				assert.True(t, bytes.Equal(body, <-got), "the body has changed")
			})
		}
	})
}

// TestCopyBackPressure has both directions of two connections copied at once,
// while nobody reads: little of it is in our memory. Then all of it arrives.
func TestCopyBackPressure(t *testing.T) {
	const size = 32 << 20
	body := looptest.Pattern(size)
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for name, framing := range map[string]h1.Body{"length": sized(size), "chunked": chunked} {
			t.Run(name, func(t *testing.T) {
				e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
				left, inLeft := e.Pair()
				right, inRight := e.Pair()
				text := wire(framing, body, rand.New(rand.NewPCG(3, 4)))
				read := make(chan struct{})
				done := make(chan bool, 2)
				for _, p := range []*looptest.Peer{left, right} {
					go func() { _, _ = p.Write(text) }()
					go func() {
						<-read
						got := make([]byte, size)
						_, err := io.ReadFull(p, got)
						done <- err == nil && bytes.Equal(body, got)
					}()
				}
				before := looptest.HeapInUse()
				e.Post(func() {
					start := func(from, to loop.Conn) {
						var b Body
						var w Writer
						b.Start(from, framing)
						w.Start(to, false)
						readErr, writeErr := Copy(&w, &b, make([]byte, BufferBytes), patience, patience)
						assert.NoError(t, readErr)
						assert.NoError(t, writeErr)
						assert.NoError(t, to.Flush())
					}
					e.Loop.Go(func() { start(inLeft, inRight) })
					e.Loop.Go(func() { start(inRight, inLeft) })
				})
				time.Sleep(200 * time.Millisecond) // until the kernel's buffers are full
				assert.Less(t, looptest.HeapInUse()-before, size/4)
				close(read)
				assert.True(t, <-done)
				assert.True(t, <-done)
				e.Task(func() { inLeft.Close(); inRight.Close() })
			})
		}
	})
}

// A body that is interrupted ends, whatever its copier was about to do: it sets
// deadlines of its own, and must not set them over the interruption.
func TestInterrupt(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		t.Run("reading", func(t *testing.T) {
			e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
			_, from := e.Pair()
			_, to := e.Pair()
			e.Task(func() {
				var b Body
				var w Writer
				b.Start(from, sized(10))
				w.Start(to, false)
				var readErr, writeErr error
				copying := e.Loop.Go(func() { readErr, writeErr = Copy(&w, &b, make([]byte, 100), patience, patience) })
				e.Loop.Sleep(5 * time.Millisecond)
				b.Interrupt()
				assert.NoError(t, copying.Join())
				assert.Equal(t, loop.ErrDeadline, readErr)
				assert.NoError(t, writeErr)
				from.Close()
				to.Close()
			})
		})
		t.Run("writing", func(t *testing.T) {
			e := looptest.New(t, loop.Config{Engine: engine, CPU: -1})
			source, from := e.Pair()
			_, to := e.Pair()
			go func() { _, _ = source.Write(make([]byte, 32<<20)) }()
			e.Task(func() {
				var b Body
				var w Writer
				b.Start(from, closing)
				w.Start(to, true)
				var readErr, writeErr error
				copying := e.Loop.Go(func() {
					readErr, writeErr = Copy(&w, &b, make([]byte, BufferBytes), patience, patience)
				})
				e.Loop.Sleep(100 * time.Millisecond)
				w.Interrupt()
				assert.NoError(t, copying.Join())
				assert.NoError(t, readErr)
				assert.Equal(t, loop.ErrDeadline, writeErr)
				from.Reset()
				to.Reset()
			})
		})
	})
	t.Run("between two waits", func(t *testing.T) {
		from := &fakeConn{pieces: []string{"abc"}, end: io.ErrNoProgress}
		to := &fakeConn{}
		var b Body
		var w Writer
		b.Start(from, sized(10))
		w.Start(to, false)
		to.onWait = b.Interrupt // while the copier is elsewhere
		readErr, writeErr := Copy(&w, &b, make([]byte, 100), patience, patience)
		assert.Equal(t, loop.ErrDeadline, readErr)
		assert.NoError(t, writeErr)
		b.Start(from, sized(10))
		_, err := b.Read(make([]byte, 1))
		assert.Equal(t, io.ErrNoProgress, err, "the next message is not interrupted")

		from = &fakeConn{pieces: []string{"abc"}, end: io.EOF}
		to = &fakeConn{}
		b.Start(from, closing)
		w.Start(to, true)
		from.onWait = w.Interrupt
		readErr, writeErr = Copy(&w, &b, make([]byte, 100), patience, patience)
		assert.NoError(t, readErr)
		assert.Equal(t, loop.ErrDeadline, writeErr)
		assert.Equal(t, loop.ErrDeadline, w.End(nil, false))
		assert.Empty(t, to.out)
		w.Start(to, true)
		assert.NoError(t, w.End(nil, false))
	})
}
