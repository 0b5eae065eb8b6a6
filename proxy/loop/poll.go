package loop

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

const (
	// sweepInterval is how often parked connections are looked at. Unpark
	// looks as well, so nobody is handed one that is known to be dead.
	sweepInterval = time.Second
	// guardDelay is how long a guarded wait lasts before the client is
	// watched, which costs a goroutine: most exchanges are over by then.
	guardDelay = 20 * time.Millisecond
	// acceptPause is how long accepting waits after the process ran out of
	// descriptors.
	acceptPause = 100 * time.Millisecond
	// acceptYield is how long accepting leaves a shared listener to a worker that
	// has no more of it.
	acceptYield = time.Millisecond
)

// pollLoop is a worker over Go's own poller: a goroutine for each connection,
// and a baton that lets one of them run handler code at a time. Whoever waits
// gives the baton up, and nobody else's code runs without it.
type pollLoop struct {
	config   Config
	counters Counters

	baton     sync.Mutex
	conns     map[*pollConn]struct{}
	parked    map[*pollConn]struct{}
	listeners []*pollListener
	pipes     pipes
	sweeping  bool
	draining  bool
	stopping  bool

	offs  chan struct{} // holds one for each goroutine that blocks; full, others wait
	colds chan struct{} // the same for those that wait for the disk
	stop  context.Context
	cut   context.CancelFunc
	done  chan struct{}

	drained chan struct{} // closed by Drain

	mu    sync.Mutex
	holds int // what keeps the worker alive: goroutines, and not having been drained
	ended bool
}

func startPoll(cfg Config) Loop {
	if cfg.Gate == nil {
		cfg.Gate = new(Gate)
	}
	l := &pollLoop{
		config:  cfg,
		conns:   make(map[*pollConn]struct{}),
		parked:  make(map[*pollConn]struct{}),
		offs:    make(chan struct{}, offsMax),
		colds:   make(chan struct{}, coldsMax),
		done:    make(chan struct{}),
		drained: make(chan struct{}),
		holds:   1, // until Drain
	}
	l.stop, l.cut = context.WithCancel(context.Background())
	l.config.Gate.join(l, l.evictIdle)
	return l
}

// hold keeps the worker alive until release. It reports false if the worker has
// ended.
func (l *pollLoop) hold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.holds++
	}
	return !l.ended
}

func (l *pollLoop) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holds--; l.holds == 0 {
		l.ended = true
		go l.end()
	}
}

// end closes what an ended worker still has.
func (l *pollLoop) end() {
	l.baton.Lock()
	defer l.baton.Unlock()
	for c := range l.conns {
		c.Close() // parked: the tasks of others would have kept the worker
	}
	l.pipes.close()
	l.cut()
	close(l.done)
}

// Post runs f at once: on this engine every goroutine can take the baton.
func (l *pollLoop) Post(f func()) bool {
	if !l.hold() {
		return false
	}
	// In a goroutine of its own, because the caller may hold the baton.
	go func() {
		defer l.release()
		l.baton.Lock()
		defer l.baton.Unlock()
		f()
	}()
	return true
}

// serve takes an accepted connection in and starts its goroutine.
func (l *pollLoop) serve(conn *net.TCPConn, h Handler) {
	c := l.newConn(conn, h)
	l.counters.Accepted.Add(1)
	h.Open(c)
	if l.stopping {
		c.Reset()
	}
	if c.closing {
		return
	}
	if c.greets = Greets(h, c); !c.greets {
		c.idle, c.rested = true, now()
	}
	if l.draining && c.idle {
		c.drain()
	}
	l.hold()
	go func() {
		defer l.release()
		l.baton.Lock()
		defer l.baton.Unlock()
		c.serve()
	}()
}

// panicked counts and reports a panic.
func (l *pollLoop) panicked(value any) {
	l.counters.Panics.Add(1)
	if l.config.Panicked != nil {
		l.config.Panicked(value, debug.Stack())
	}
}

// Drain ends acceptors and idle connections. It is posted, because the caller may
// hold the baton.
func (l *pollLoop) Drain() { l.Post(l.drain) }

func (l *pollLoop) drain() {
	if l.draining {
		return
	}
	l.draining = true
	close(l.drained)
	for c := range l.conns {
		if c.idle {
			c.drain()
		}
	}
	for _, pl := range l.listeners {
		pl.close()
	}
	l.release() // the loop's own
}

// Stop cuts everything.
func (l *pollLoop) Stop() {
	l.Post(func() {
		l.drain()
		l.stopping = true
		l.cut()
		for c := range l.conns {
			if c.idle || c.closing {
				c.Reset()
			} else {
				c.interrupt()
			}
		}
	})
}

func (l *pollLoop) Wait() { <-l.done }

// Dial connects without the baton.
func (l *pollLoop) Dial(to Address, timeout time.Duration) (Conn, error) {
	network, address := "tcp", to.AddrPort.String()
	if to.Path != "" {
		network, address = "unix", to.Path
	}
	dialer := net.Dialer{Timeout: timeout}
	l.baton.Unlock()
	conn, err := dialer.DialContext(l.stop, network, address)
	l.baton.Lock()
	if l.stopping {
		if err == nil {
			err = conn.Close()
		}
		return nil, errors.Join(ErrStopped, err)
	}
	if err != nil {
		return nil, cause(err)
	}
	c := l.newConn(conn, nil)
	l.counters.Dialled.Add(1)
	return c, nil
}

// Go starts a goroutine that takes the baton when the caller waits.
func (l *pollLoop) Go(f func()) Task {
	t := &pollTask{loop: l, done: make(chan struct{})}
	l.hold()
	l.counters.Tasks.Add(1)
	go func() {
		defer l.release()
		l.baton.Lock()
		defer l.baton.Unlock()
		defer func() {
			if value := recover(); value != nil {
				l.panicked(value)
				t.err = ErrPanic
			}
			l.counters.Tasks.Add(-1)
			close(t.done)
		}()
		f()
	}()
	return t
}

type pollTask struct {
	loop *pollLoop
	done chan struct{}
	err  error
}

func (t *pollTask) Join() error {
	t.loop.baton.Unlock()
	<-t.done
	t.loop.baton.Lock()
	return t.err
}

// Off runs f here: this goroutine may block once it has given up the baton. At
// most offsMax do at a time, as each takes a thread, and 10,000 threads are the
// end of a process.
func (l *pollLoop) Off(f func()) { l.off(l.offs, f) }

// coldsMax is how many goroutines of a worker may read what is not in memory. Each
// takes a P while it does, which others then have to wait for.
const coldsMax = 4

func (l *pollLoop) coldly(f func()) { l.off(l.colds, f) }

func (l *pollLoop) off(free chan struct{}, f func()) {
	l.baton.Unlock()
	defer l.baton.Lock()
	free <- struct{}{}
	defer func() { <-free }()
	f()
}

func (l *pollLoop) readFile(f *File, p []byte, off int64) (n int, err error) {
	l.coldly(func() {
		f.bringIn(off, int64(len(p)))
		n, err = f.os.ReadAt(p, off)
	})
	return n, err
}

// Yield leaves the baton to who waits for it. Between Unlock and Lock alone the one
// that has just been woken would come too late: a mutex may be taken again before
// it, for up to a millisecond.
func (l *pollLoop) Yield() {
	l.baton.Unlock()
	runtime.Gosched()
	l.baton.Lock()
}

// Sleep waits for d or Stop.
func (l *pollLoop) Sleep(d time.Duration) { l.sleep(d, l.stop.Done()) }

// Doze waits for d or Drain.
func (l *pollLoop) Doze(d time.Duration) { l.sleep(d, l.drained) }

func (l *pollLoop) sleep(d time.Duration, over <-chan struct{}) {
	l.baton.Unlock()
	defer l.baton.Lock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-over:
	}
}

// Pipe lends a pipe.
func (l *pollLoop) Pipe() (*Pipe, error) { return l.pipes.take(&l.counters) }

// PutPipe takes it back.
func (l *pollLoop) PutPipe(p *Pipe) { l.pipes.put(p, &l.counters) }

func (l *pollLoop) Now() Instant        { return now() }
func (l *pollLoop) Clock() time.Time    { return time.Now() }
func (l *pollLoop) Draining() bool      { return l.draining }
func (l *pollLoop) Engine() Engine      { return Netpoll }
func (l *pollLoop) Counters() *Counters { return &l.counters }

// sweep looks at parked connections while there are any.
func (l *pollLoop) sweep() {
	for {
		select {
		case <-l.done:
			return
		case <-time.After(sweepInterval):
		}
		l.baton.Lock()
		for c := range l.parked {
			if c.readDeadline != 0 && c.readDeadline <= now() || !c.quiet() {
				c.lose()
			}
		}
		if len(l.parked) == 0 {
			l.sweeping = false
			l.baton.Unlock()
			return
		}
		l.baton.Unlock()
	}
}

// cause turns an error of package net into the one that both engines return.
func cause(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return unwrapNet(err)
}

// unwrapNet is apart from cause, because its variables escape to the heap.
func unwrapNet(err error) error {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.Is(err, net.ErrClosed):
		return ErrClosed
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrDeadline
	case errors.As(err, &timeout) && timeout.Timeout():
		return ErrDeadline // a dial's time-out has a type of its own
	}
	return err
}
