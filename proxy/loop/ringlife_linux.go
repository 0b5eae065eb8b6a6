package loop

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
	"atlas/proxy/uring"
)

// How a worker over io_uring begins and ends.

func probeRing() error { return uring.Probe() }

// startRing starts the worker's thread and waits until its ring is open.
func startRing(cfg Config) (Loop, error) {
	if cfg.Buffers == 0 {
		cfg.Buffers = buffersDefault
	}
	if cfg.BufferBytes == 0 {
		cfg.BufferBytes = bufferBytesDefault
	}
	if cfg.Gate == nil {
		cfg.Gate = new(Gate)
	}
	l := &ringLoop{config: cfg, wakeFd: -1, wakeBytes: make([]byte, 8), done: make(chan struct{})}
	l.trim = timer{kind: timerWake, wake: l.trimTasks}
	opened := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so no other
		// code runs on a pinned thread.
		runtime.LockOSThread()
		err := l.open()
		opened <- err
		if err != nil {
			return
		}
		defer close(l.done)
		l.run()
	}()
	if err := <-opened; err != nil {
		return nil, err
	}
	l.config.Gate.join(l, l.evictIdle)
	return l, nil
}

func (l *ringLoop) open() (err error) {
	others, err := l.pin()
	if err != nil {
		return err
	}
	l.ring, err = uring.Open(uring.Config{Entries: ringEntries, Completions: ringCompletions})
	if err != nil {
		return err
	}
	if others.Count() > 0 {
		// Threads that read cold files take the core for milliseconds at a time (design
		// 0007). Where the kernel does not let us say so they go where they please.
		_ = l.ring.SetThreadCPUs(&others)
	}
	l.buffers, err = l.ring.ProvideBuffers(l.config.Buffers, l.config.BufferBytes)
	if err != nil {
		return errors.Join(err, l.ring.Close())
	}
	l.wakeFd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return errors.Join(fmt.Errorf("eventfd: %w", err), l.ring.Close())
	}
	l.armWake()
	l.tick()
	return nil
}

// pin keeps the worker's thread on its core, and returns the others that the process
// may run on; none without a core of its own.
func (l *ringLoop) pin() (others unix.CPUSet, err error) {
	if l.config.CPU < 0 {
		return others, nil
	}
	if err := unix.SchedGetaffinity(0, &others); err != nil {
		return others, fmt.Errorf("allowed cores: %w", err)
	}
	others.Clear(l.config.CPU)
	var own unix.CPUSet
	own.Set(l.config.CPU)
	if err := unix.SchedSetaffinity(0, &own); err != nil {
		return others, fmt.Errorf("pin worker to core %d: %w", l.config.CPU, err)
	}
	return others, nil
}

// Drain ends listeners and idle connections; the rest end after their exchange.
func (l *ringLoop) Drain() {
	l.Post(func() {
		if l.draining {
			return
		}
		l.draining = true
		for _, ln := range l.listeners {
			if ln != nil {
				ln.close()
				ln.settle()
			}
		}
		for _, c := range l.slots {
			if c != nil && c.idle {
				c.drain()
			}
		}
		for _, t := range l.timers.queue {
			if t.kind == timerDoze {
				t.wake()
			}
		}
	})
}

// Stop cuts everything.
func (l *ringLoop) Stop() {
	l.Drain()
	l.Post(func() {
		l.stopping = true
		for _, c := range l.slots {
			if c == nil {
				continue
			}
			l.wake(c.reader)
			l.wake(c.writer)
			if c.reader == nil && c.writer == nil || c.closing {
				c.failSend(ErrStopped) // its task may be in Yield, and is to know why
				c.Reset()
			}
		}
		for _, t := range l.timers.queue {
			if t.kind == timerWake && t != &l.trim {
				t.wake()
			}
		}
	})
}

// finished reports that a drained worker has no work left.
func (l *ringLoop) finished() bool {
	if !l.draining || l.counters.Open.Load() > 0 || l.busy > 0 || l.offs > 0 || len(l.forks) > 0 {
		return false
	}
	for _, ln := range l.listeners {
		if ln != nil {
			return false // its accept is in the kernel
		}
	}
	return true
}

// end refuses posts for good, when a finished worker has also lost its parked
// upstream connections. A post that was taken is run, and may start work.
func (l *ringLoop) end() bool {
	if !l.finished() {
		return false
	}
	for _, c := range l.slots {
		if c != nil {
			c.Close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = l.conns == 0 && len(l.posts) == 0
	return l.ended
}

// close ends what an ended worker still has: idle tasks, the ring.
func (l *ringLoop) close() {
	l.signal()
	for l.wakeArmed {
		l.turn()
	}
	for _, t := range l.free {
		t.end = true
		t.next()
	}
	l.counters.Tasks.Store(0)
	l.pipes.close()
	err := errors.Join(l.ring.Close(), unix.Close(l.wakeFd))
	invariant.That(err == nil, "worker did not close cleanly")
}
