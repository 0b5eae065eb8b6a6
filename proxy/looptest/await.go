package looptest

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// awaitTests are about waits for what other tasks do.
var awaitTests = map[string]func(*Env){
	"await: notified by another task":             awaitNotified,
	"await: notified from another goroutine":      awaitPosted,
	"await: notified before":                      awaitNotifiedBefore,
	"await: notified, and the peer has gone":      awaitNotifiedFirst,
	"await: the peer leaves, resets, is gone":     awaitPeerGoes,
	"await: the peer leaves after a body":         awaitPeerGoesAfterBody,
	"await: the deadline":                         awaitDeadline,
	"await: the read deadline stands":             awaitReadDeadline,
	"await: closed on our side":                   awaitClosed,
	"await: notify when nobody can be told":       notifyClosed,
	"await: a drain does not end it":              awaitDrain,
	"await: a stop ends it":                       awaitStop,
	"await: bytes stay for later":                 awaitKeepsBytes,
	"await: bytes stay, with few buffers":         awaitKeepsBytesStarved,
	"await: a flood is held back":                 awaitHoldsBack,
	"await: costs nothing while it lasts":         awaitIsQuiet,
	"await: on a client that guards another wait": awaitGuards,
	"await: a queue for a few slots":              awaitQueue,
}

func awaitNotified(e *Env) {
	_, c := e.peers()
	e.Task(func() {
		for range 50 {
			other := e.Loop.Go(func() { c.Notify() })
			assert.NoError(e, c.Await(0))
			assert.NoError(e, other.Join())
			waits := e.Loop.Go(func() { assert.NoError(e, c.Await(e.Loop.Now().After(patience))) })
			e.Loop.Sleep(time.Millisecond)
			c.Notify()
			c.Notify()
			assert.NoError(e, waits.Join())
			assert.Equal(e, loop.ErrDeadline, c.Await(loop.Past), "both were for one wait")
		}
		c.Close()
	})
}

func awaitPosted(e *Env) {
	address := e.Serve(func(c loop.Conn) bool {
		c.Consume(len(c.Peek()))
		go func() {
			time.Sleep(10 * time.Millisecond)
			assert.True(e, e.Loop.Post(c.Notify))
		}()
		assert.NoError(e, c.Await(0))
		_, err := c.Write([]byte("told"))
		return err == nil && c.Flush() == nil
	})
	c := e.Dial(address)
	for range 3 {
		e.write(c, "x")
		e.read(c, "told")
	}
}

func awaitNotifiedBefore(e *Env) {
	_, c := e.peers()
	e.Task(func() {
		c.Notify()
		c.Notify()
		assert.NoError(e, c.Await(e.Loop.Now().After(patience)))
		assert.Equal(e, loop.ErrDeadline, c.Await(e.Loop.Now().After(5*time.Millisecond)), "it is forgotten")
		c.Notify() // behind an Await that has failed
		assert.NoError(e, c.Await(0))
		c.Close()
	})
}

// What was granted with a Notify must not be lost because something else has
// happened as well.
func awaitNotifiedFirst(e *Env) {
	peer, c := e.peers()
	_, closed := e.peers()
	e.Task(func() {
		require.NoError(e, peer.Close())
		assert.Equal(e, io.EOF, c.Fill())
		for _, c := range []loop.Conn{c, closed} {
			c.Notify()
			assert.NoError(e, c.Await(loop.Past))
			closed.Close()
		}
		assert.Equal(e, loop.ErrGuard, c.Await(0))
		closed.Notify()
		assert.NoError(e, closed.Await(loop.Past))
		c.Close()
	})
}

func awaitPeerGoes(e *Env) {
	for name, end := range map[string]func(*Peer){
		"leaves": func(p *Peer) { _ = p.Close() },
		"half":   func(p *Peer) { _ = p.CloseWrite() },
		"resets": func(p *Peer) { p.Reset() },
	} {
		for _, before := range []bool{true, false} {
			peer, c := e.Pair()
			if before {
				end(peer)
			} else {
				time.AfterFunc(10*time.Millisecond, func() { end(peer) })
			}
			e.Task(func() {
				assert.Equal(e, loop.ErrGuard, c.Await(0), "%s, before is %v", name, before)
				assert.Equal(e, loop.ErrGuard, c.Await(0))
				if name == "resets" {
					assert.Equal(e, syscall.ECONNRESET, c.Fill())
				} else {
					assert.Equal(e, io.EOF, c.Fill())
				}
				c.Close()
			})
		}
	}
}

// Reading a body may leave the connection without anything that would tell of
// its end.
func awaitPeerGoesAfterBody(e *Env) {
	peer, c := e.Pair()
	body := pattern(300_000)
	go func() {
		_, _ = peer.Write(body)
		time.Sleep(50 * time.Millisecond)
		_ = peer.Close()
	}()
	e.Task(func() {
		p := make([]byte, 64<<10)
		for read := 0; read < len(body); {
			n, err := c.Read(p)
			assert.NoError(e, err)
			read += n
		}
		assert.Equal(e, loop.ErrGuard, c.Await(e.Loop.Now().After(patience)))
		c.Close()
	})
}

func awaitDeadline(e *Env) {
	_, c := e.peers()
	e.Task(func() {
		for range 2 {
			began := time.Now()
			assert.Equal(e, loop.ErrDeadline, c.Await(e.Loop.Now().After(30*time.Millisecond)))
			assert.Greater(e, time.Since(began), 20*time.Millisecond) // the worker's clock may be behind
		}
		c.Close()
	})
}

// A read deadline is for waits for bytes: it neither ends this one, nor is it
// forgotten over it.
func awaitReadDeadline(e *Env) {
	_, c := e.peers()
	e.Task(func() {
		after := func(d time.Duration) loop.Instant { return e.Loop.Now().After(d) }
		c.SetReadDeadline(after(20 * time.Millisecond)) // passes during the wait
		began := time.Now()
		assert.Equal(e, loop.ErrDeadline, c.Await(after(60*time.Millisecond)))
		assert.Greater(e, time.Since(began), 50*time.Millisecond)
		assert.Equal(e, loop.ErrDeadline, c.Fill())

		c.SetReadDeadline(after(60 * time.Millisecond)) // passes behind it
		assert.Equal(e, loop.ErrDeadline, c.Await(after(5*time.Millisecond)))
		assert.Equal(e, loop.ErrDeadline, c.Fill())

		other := e.Loop.Go(func() { // is set during the wait
			c.SetReadDeadline(after(10 * time.Millisecond))
			e.Loop.Sleep(30 * time.Millisecond)
			c.Notify()
		})
		assert.NoError(e, c.Await(0))
		assert.NoError(e, other.Join())
		assert.Equal(e, loop.ErrDeadline, c.Fill())
		c.Close()
	})
}

func awaitClosed(e *Env) {
	for _, end := range []func(loop.Conn){loop.Conn.Close, loop.Conn.Reset} {
		for _, rest := range []int{0, 32 << 20} { // with nothing, and much, still to be sent
			_, c := e.peers()
			e.Task(func() {
				waits := e.Loop.Go(func() { assert.Equal(e, loop.ErrClosed, c.Await(0)) })
				e.Loop.Sleep(5 * time.Millisecond)
				assert.NoError(e, c.Queue(make([]byte, rest)))
				end(c)
				assert.NoError(e, waits.Join())
				assert.Equal(e, loop.ErrClosed, c.Await(0))
				c.Reset()
			})
		}
	}
}

func notifyClosed(e *Env) {
	address := e.Serve(echoLines)
	_, c := e.peers()
	e.Task(func() {
		c.Close()
		c.Notify()
	})
	e.eventually("it to close", func() bool { return e.Loop.Counters().Dialled.Load() == 0 })
	next := e.Dial(address) // in its place
	e.write(next, "begun")
	e.Post(c.Notify)
	e.write(next, "\n")
	e.read(next, "begun\n")
}

func awaitDrain(e *Env) {
	var waiting loop.Conn
	began := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		waiting = c
		close(began)
		assert.NoError(e, c.Await(e.Loop.Now().After(patience)))
		return echoLines(c)
	})
	c := e.Dial(address)
	e.write(c, "x\n")
	wait(e, "request", func() { <-began })
	e.Loop.Drain()
	time.Sleep(20 * time.Millisecond)
	e.Post(func() { waiting.Notify() })
	e.read(c, "x\n")
	e.readEnd(c)
	wait(e, "worker", e.Loop.Wait)
}

func awaitStop(e *Env) {
	ended := make(chan error, 1)
	began := make(chan struct{})
	address := e.Serve(func(c loop.Conn) bool {
		close(began)
		ended <- c.Await(0)
		return true
	})
	c := e.Dial(address)
	e.write(c, "x")
	wait(e, "request", func() { <-began })
	time.Sleep(5 * time.Millisecond)
	e.Loop.Stop()
	wait(e, "worker", e.Loop.Wait)
	assert.Equal(e, loop.ErrStopped, <-ended)
}

func awaitKeepsBytesStarved(e *Env) {
	cfg := e.config
	cfg.Buffers, cfg.BufferBytes = 4, 64
	e.restart(cfg)
	awaitKeepsBytes(e)
}

// Requests behind the one that waits come in pieces, before and during waits.
func awaitKeepsBytes(e *Env) {
	var waiting loop.Conn
	began := make(chan struct{}, 1)
	address := e.Serve(func(c loop.Conn) bool {
		waiting = c
		began <- struct{}{}
		assert.NoError(e, c.Await(0))
		assert.NoError(e, c.Await(0))
		for !bytes.HasSuffix(c.Peek(), []byte("last\n")) {
			if !assert.NoError(e, c.Fill()) {
				return false
			}
		}
		return echoLines(c)
	})
	for _, size := range []int{10, 5_000, 50_000} {
		c := e.Dial(address)
		lines := strings.Repeat("y", size) + "\n"
		e.write(c, lines)
		wait(e, "request", func() { <-began })
		for range 2 {
			for range 3 {
				e.write(c, "z\n")
				time.Sleep(3 * time.Millisecond)
				lines += "z\n"
			}
			e.Post(func() { waiting.Notify() })
		}
		e.write(c, "last\n")
		e.read(c, lines+"last\n")
		require.NoError(e, c.Close())
	}
}

func awaitHoldsBack(e *Env) {
	const total = 64 << 20
	peer, c := e.peers()
	var sent atomic.Int64
	text := pattern(1 << 20)
	go func() {
		for range total / len(text) {
			n, err := peer.Write(text)
			sent.Add(int64(n))
			if err != nil {
				return // the reader sees what is missing
			}
		}
	}()
	e.Task(func() {
		assert.Equal(e, loop.ErrDeadline, c.Await(e.Loop.Now().After(200*time.Millisecond)))
		assert.Less(e, len(c.Peek()), 1<<20)
		assert.Less(e, sent.Load(), int64(total/2)) // the kernel takes some
		p := make([]byte, len(text))
		for read := 0; read < total; {
			n, err := c.Read(p[read%len(text):])
			if !assert.NoError(e, err) {
				break
			}
			if read += n; read%len(text) == 0 && !assert.True(e, bytes.Equal(text, p)) {
				break
			}
		}
		c.Close()
	})
}

// Unread bytes keep a socket readable: who waits for something else must not
// look at it again and again. That would cost all of the time in each try; what the
// rest of the process has to do, less in one of them.
func awaitIsQuiet(e *Env) {
	const tries, long = 5, 300 * time.Millisecond
	for _, unread := range []int{0, 32 << 20} { // as much as the kernel takes
		peer, c := e.peers()
		go func() { _, _ = peer.Write(make([]byte, unread)) }()
		e.Task(func() {
			assert.Equal(e, loop.ErrDeadline, c.Await(e.Loop.Now().After(100*time.Millisecond)))
			least := time.Duration(math.MaxInt64)
			for try := 0; try < tries && least >= long/2; try++ {
				before := cpuTime()
				assert.Equal(e, loop.ErrDeadline, c.Await(e.Loop.Now().After(long)))
				least = min(least, cpuTime()-before)
			}
			assert.Less(e, least, long/2)
			c.Reset()
		})
	}
}

func awaitGuards(e *Env) {
	for _, notify := range []bool{true, false} {
		peer, client := e.peers()
		_, up := e.peers()
		e.Task(func() {
			up.Guard(client)
			guarded := e.Loop.Go(func() { assert.Equal(e, loop.ErrGuard, up.Fill()) })
			waits := e.Loop.Go(func() {
				if notify {
					assert.NoError(e, client.Await(0))
				} else {
					assert.Equal(e, loop.ErrGuard, client.Await(0))
				}
			})
			e.Loop.Sleep(60 * time.Millisecond)
			if notify {
				client.Notify()
				assert.NoError(e, waits.Join())
			}
			assert.NoError(e, peer.Close())
			assert.NoError(e, guarded.Join())
			assert.NoError(e, waits.Join())
			up.Close()
			client.Close()
		})
	}
}

// slots is what Await is for: a few of something, and a queue of clients.
type slots struct {
	free  int
	queue []loop.Conn
}

func (s *slots) take(c loop.Conn) error {
	if s.free > 0 {
		s.free--
		return nil
	}
	s.queue = append(s.queue, c)
	err := c.Await(c.Loop().Now().After(patience))
	if err != nil {
		s.queue = slices.DeleteFunc(s.queue, func(queued loop.Conn) bool { return queued == c })
	}
	return err
}

func (s *slots) put() {
	if len(s.queue) == 0 {
		s.free++
		return
	}
	c := s.queue[0]
	s.queue = s.queue[1:]
	c.Notify()
}

// Clients that leave in the queue, at any moment, take no slot with them.
func awaitQueue(e *Env) {
	const slotsMax = 3
	s := &slots{free: slotsMax}
	address := e.Serve(func(c loop.Conn) bool {
		if s.take(c) != nil {
			return false
		}
		assert.Less(e, s.free, slotsMax)
		e.Loop.Sleep(100 * time.Microsecond)
		s.put()
		return echoLines(c)
	})
	var clients sync.WaitGroup
	for seed := range 24 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), stressSeed))
			for range 25 {
				c, err := e.connect(address)
				if err != nil {
					e.Errorf("dial: %v", err)
					return
				}
				_, _ = io.WriteString(c, "x\n")
				if random.IntN(2) == 0 {
					time.Sleep(time.Duration(random.IntN(1000)) * time.Microsecond)
				} else if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
					e.Errorf("no answer: %v", err)
				}
				_ = c.Close()
			}
		})
	}
	wait(e, "clients", clients.Wait)
	e.eventually("all to close", func() bool { return e.Loop.Counters().Open.Load() == 0 })
	e.Post(func() {
		assert.Equal(e, slotsMax, s.free)
		assert.Empty(e, s.queue)
	})
}
