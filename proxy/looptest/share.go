package looptest

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// shareTests are about connections that one worker accepts and another one serves.
// All clients of a test come to one worker, which the kernel would not do.
var shareTests = map[string]func(*Env){
	"share: all come to one worker, all serve":      shareEvens,
	"share: few connections are shared out as well": shareFew,
	"share: the handler is the one that serves":     shareHandler,
	"share: an even load is not moved":              shareLeavesAlone,
	"share: the bound of the gate holds":            shareGate,
	"share: one part, however many listeners":       shareListeners,
	"share: not with another gate":                  shareOtherGate,
	"share: who has stopped listening gets nothing": shareLeft,
	"share: workers come and go under load":         shareComeAndGo,
	"share: a worker that stops cuts what it gets":  shareStops,
}

// crew is workers that share what comes to the listener of the first.
type crew struct {
	e         *Env
	gate      *loop.Gate
	workers   []loop.Loop
	listeners []*loop.Listener
	address   string // where the first listens
}

// crew starts n workers behind a gate, the Env's own among them, and opens a listener
// for each.
func (e *Env) crew(n, bound int) *crew {
	e.Helper()
	w := &crew{e: e, gate: e.behind(bound)}
	cfg := e.config
	cfg.Gate = w.gate
	for i := range n {
		l := e.Loop
		if i > 0 {
			var err error
			l, err = loop.Start(cfg)
			require.NoError(e, err)
		}
		w.workers = append(w.workers, l)
		ln := e.socket()
		if i > 0 {
			ln.ShareWith(w.listeners[0])
		}
		w.listeners = append(w.listeners, ln)
	}
	w.address = w.listeners[0].Addr().String()
	e.Cleanup(func() {
		for _, l := range w.workers {
			l.Stop()
			wait(e, "worker to end", l.Wait)
		}
		for _, ln := range w.listeners {
			assert.NoError(e, ln.Close())
		}
	})
	return w
}

// serve has each worker listen.
func (w *crew) serve(handler func(i int) loop.Handler) *crew {
	w.e.Helper()
	for i, l := range w.workers {
		w.e.listen(l, w.listeners[i], handler(i))
	}
	return w
}

// open is how many connections each worker has.
func (w *crew) open() (of []int64, sum int64) {
	for _, l := range w.workers {
		n := l.Counters().Open.Load()
		of, sum = append(of, n), sum+n
	}
	return of, sum
}

func (w *crew) handed() (n uint64) {
	for _, l := range w.workers {
		n += l.Counters().Handed.Load()
	}
	return n
}

// dial connects n clients, each of which has been served.
func (w *crew) dial(n int) (clients []*net.TCPConn) {
	w.e.Helper()
	for range n {
		c := w.e.Dial(w.address)
		w.e.write(c, "x\n")
		w.e.read(c, "x\n")
		clients = append(clients, c)
	}
	return clients
}

// gone wants all to be counted out, by workers and gate.
func (w *crew) gone() {
	w.e.Helper()
	w.e.eventually("all to be gone", func() bool { _, open := w.open(); return open == 0 && w.gate.Open() == 0 })
	for _, l := range w.workers {
		assert.Zero(w.e, l.Counters().Open.Load())
	}
}

func echoing(int) loop.Handler { return Funcs{OnServe: echoLines} }

func shareEvens(e *Env) {
	const clients, workers = 64, 4
	w := e.crew(workers, 0).serve(echoing)
	crowd := w.dial(clients)
	of, sum := w.open()
	assert.EqualValues(e, clients, sum)
	assert.EqualValues(e, clients, w.gate.Open())
	var accepted uint64
	for i, l := range w.workers {
		assert.InDelta(e, clients/workers, of[i], clients/workers/4, "%v", of)
		assert.EqualValues(e, of[i], l.Counters().Accepted.Load())
		accepted += l.Counters().Accepted.Load()
	}
	assert.EqualValues(e, clients, accepted)
	assert.Equal(e, accepted-w.workers[0].Counters().Accepted.Load(), w.handed())
	for _, c := range crowd {
		e.write(c, "y\n")
		e.read(c, "y\n")
		require.NoError(e, c.Close())
	}
	w.gone()
}

// Two that stay keep two workers busy.
func shareFew(e *Env) {
	w := e.crew(2, 0).serve(echoing)
	for n := int64(1); n <= 3; n++ {
		w.dial(2)
		of, _ := w.open()
		assert.Equal(e, []int64{n, n}, of)
	}
}

// A worker that accepts from two listeners has the part of one worker: it hands over
// no more than the slack says.
func shareListeners(e *Env) {
	w := e.crew(2, 0).serve(echoing)
	more := e.socket()
	more.ShareWith(w.listeners[0])
	w.listeners = append(w.listeners, more)
	e.listen(w.workers[0], more, echoing(0))
	w.dial(18)
	of, _ := w.open()
	assert.Equal(e, []int64{10, 8}, of)
}

// A connection belongs to the worker that serves it, and has the handler that this
// one listens with.
func shareHandler(e *Env) {
	names := []string{"a", "b", "c"}
	w := e.crew(len(names), 0)
	w.serve(func(i int) loop.Handler {
		h := says(names[i]).(Funcs)
		h.OnOpen = func(c loop.Conn) { assert.Same(e, w.workers[i], c.Loop()) }
		return h
	})
	heard := make(map[string]int)
	for range 9 {
		c := e.Dial(w.address)
		e.write(c, "x\n")
		line := make([]byte, 2)
		_, err := io.ReadFull(c, line)
		require.NoError(e, err)
		heard[string(line)]++
	}
	assert.Equal(e, map[string]int{"a\n": 3, "b\n": 3, "c\n": 3}, heard)
}

// Where the first has no more than its part, it serves what comes to it.
func shareLeavesAlone(e *Env) {
	w := e.crew(3, 0).serve(echoing)
	w.dial(12)
	before := w.handed()
	for range 20 { // the others have four each, the first has up to one less
		first := w.workers[0].Counters()
		c := w.dial(1)[0]
		if first.Open.Load() > 4 {
			require.NoError(e, c.Close())
			e.eventually("it to be gone", func() bool { return w.gate.Open() == 12 })
		}
	}
	of, sum := w.open()
	assert.LessOrEqual(e, of[0], sum/3+sum/3/8+1, "%v", of)
	assert.Less(e, w.handed()-before, uint64(20))
}

// A crowd that comes at once does not pass the bound, whoever serves it.
func shareGate(e *Env) {
	const bound, clients = 5, 200
	var most atomic.Int64
	w := e.crew(3, bound)
	w.serve(func(int) loop.Handler {
		return Funcs{OnServe: func(c loop.Conn) bool {
			for now := w.gate.Open(); ; {
				if old := most.Load(); now <= old || most.CompareAndSwap(old, now) {
					break
				}
			}
			return twoBytes(c)
		}}
	})
	var crowd []*net.TCPConn
	for range clients {
		c := e.Dial(w.address)
		e.write(c, "ab")
		crowd = append(crowd, c)
	}
	for _, c := range crowd {
		require.NoError(e, c.SetReadDeadline(time.Now().Add(patience)))
		e.read(c, "ab")
		require.NoError(e, c.Close())
	}
	assert.LessOrEqual(e, most.Load(), int64(bound))
	assert.Positive(e, w.handed())
	w.gone()
}

// The gate that has counted a connection in is the one that counts it out.
func shareOtherGate(e *Env) {
	w := e.crew(1, 0).serve(echoing)
	cfg := e.config
	cfg.Gate = nil
	other, err := loop.Start(cfg)
	require.NoError(e, err)
	ln := e.socket()
	ln.ShareWith(w.listeners[0])
	e.listen(other, ln, Funcs{OnServe: echoLines})
	w.dial(8)
	assert.EqualValues(e, 8, e.Loop.Counters().Open.Load())
	other.Stop()
	wait(e, "worker to end", other.Wait)
	require.NoError(e, ln.Close())
}

func shareLeft(e *Env) {
	w := e.crew(3, 0).serve(echoing)
	e.unlisten(w.workers[1], w.listeners[1])
	w.dial(8)
	of, _ := w.open()
	assert.Equal(e, []int64{4, 0, 4}, of)
	w.workers[2].Drain()
	e.eventually("the second to listen no more", func() bool { // it has connections, so it is there
		done := make(chan bool, 1)
		w.workers[2].Post(func() { done <- w.workers[2].Draining() })
		return <-done
	})
	w.dial(4)
	of, _ = w.open()
	assert.EqualValues(e, []int64{8, 0}, of[:2])
}

// No client is lost, however near to its end a worker is that is handed one.
func shareComeAndGo(e *Env) {
	w := e.crew(2, 0).serve(echoing)
	v := e.visitors(4, w.address, time.Millisecond)
	w.dial(4) // so that each worker has some
	for range 60 {
		e.unlisten(w.workers[1], w.listeners[1])
		e.listen(w.workers[1], w.listeners[1], Funcs{OnServe: echoLines})
		time.Sleep(time.Millisecond)
	}
	cfg := e.config
	cfg.Gate = w.gate
	for range 8 {
		third, err := loop.Start(cfg)
		require.NoError(e, err)
		ln := e.socket()
		ln.ShareWith(w.listeners[0])
		e.listen(third, ln, Funcs{OnServe: echoLines})
		e.eventually("a connection of its own", func() bool { return third.Counters().Accepted.Load() > 0 })
		third.Drain()
		wait(e, "worker to end", third.Wait)
		assert.Zero(e, third.Counters().Open.Load())
		require.NoError(e, ln.Close())
	}
	v.end()
	assert.Zero(e, v.turned.Load())
	assert.Positive(e, w.handed())
}

// Whoever stops cuts its own connections at once, and those of nobody else.
func shareStops(e *Env) {
	cfg := e.config
	cfg.DrainQuiet = time.Minute
	e.restart(cfg)
	e.config = cfg
	w := e.crew(2, 0).serve(echoing)
	var dialling sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		dialling.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, err := visit(w.address)
				var late net.Error
				assert.False(e, errors.As(err, &late) && late.Timeout(), "neither served nor cut")
			}
		})
	}
	e.eventually("both to serve", func() bool { return w.workers[1].Counters().Accepted.Load() > 10 })
	w.workers[1].Stop()
	wait(e, "the second to end", w.workers[1].Wait)
	close(stop)
	dialling.Wait()
	assert.Zero(e, w.workers[1].Counters().Open.Load())
	w.dial(3)
}
