package loop

import (
	"errors"
	"net"
	"os"
	"slices"
	"time"
)

// pollListener accepts for one worker, in a goroutine of its own. Several workers
// may accept from one listener.
type pollListener struct {
	loop     *pollLoop
	listener *Listener
	tcp      *net.TCPListener
	sharer   sharer
	handler  Handler
	closing  bool
	closes   chan struct{} // closed by close
	ended    []func()      // who asked for that
	done     chan struct{} // closed when the goroutine has ended
}

// Listen accepts in a goroutine.
func (l *pollLoop) Listen(ln *Listener, h Handler) error {
	if l.draining {
		return ErrStopped
	}
	if pl := l.listening(ln); pl != nil && !pl.closing {
		pl.handler = h
		return nil
	}
	if ln.tcp == nil {
		return errors.New("loop: listener was given to a ring")
	}
	pl := &pollListener{loop: l, listener: ln, tcp: ln.tcp, handler: h, done: make(chan struct{})}
	pl.closes = make(chan struct{})
	pl.sharer = sharer{worker: l, counters: &l.counters, gate: l.config.Gate, accepts: pl}
	ln.share.join(&pl.sharer)
	l.listeners = append(l.listeners, pl)
	l.hold()
	go func() {
		defer l.release()
		defer close(pl.done)
		pl.accept()
	}()
	return nil
}

// Unlisten ends the goroutine.
func (l *pollLoop) Unlisten(ln *Listener, ended func()) {
	pl := l.listening(ln)
	if pl == nil {
		ended()
		return
	}
	pl.ended = append(pl.ended, ended)
	pl.close()
}

// listening finds what accepts of ln.
func (l *pollLoop) listening(ln *Listener) *pollListener {
	for _, pl := range l.listeners {
		if pl.listener == ln {
			return pl
		}
	}
	return nil
}

// SetRateMin replaces the rate of Config.
func (l *pollLoop) SetRateMin(bytes int64) { l.config.RateMin = bytes }

func (pl *pollListener) accept() {
	l := pl.loop
	for {
		conn, err := pl.tcp.AcceptTCP()
		if err == nil && !l.config.Gate.enter() {
			pl.awaitRoom()
		}
		l.baton.Lock()
		if pl.closing && err != nil {
			pl.settle()
			l.baton.Unlock()
			return
		}
		switch {
		case err == nil:
			pl.place(conn)
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Another worker has no more of the listener and woke all who share
			// it. It goes on waking until its own goroutine has ended, which needs
			// the lock of net's accept: whoever comes back at once has it again.
			l.baton.Unlock()
			time.Sleep(acceptYield)
			_ = pl.tcp.SetDeadline(time.Time{}) // the next accept says what is wrong
			continue
		case Scarce(err):
			l.counters.Refused.Add(1)
			l.evictIdle()
			l.config.held(cause(err))
		}
		l.baton.Unlock()
		if err != nil {
			time.Sleep(acceptPause)
		}
	}
}

// place admits a connection, or has a worker admit it that has fewer.
func (pl *pollListener) place(conn *net.TCPConn) {
	if !pl.closing {
		other := pl.sharer.lighter()
		if other != nil && other.take(func() { other.accepts.(*pollListener).begin(conn) }) {
			pl.loop.counters.Handed.Add(1)
			return
		}
	}
	pl.admit(conn)
}

func (pl *pollListener) admit(conn *net.TCPConn) {
	pl.loop.counters.Open.Add(1)
	pl.begin(conn)
}

// begin serves a connection that counts as open. It may be one that another worker
// has handed over before this one stopped accepting.
func (pl *pollListener) begin(conn *net.TCPConn) { pl.loop.serve(conn, pl.handler) }

// settle takes what waits in the queue, which would be reset with the socket, and
// forgets the listener.
func (pl *pollListener) settle() {
	l := pl.loop
	l.listeners = slices.DeleteFunc(l.listeners, func(other *pollListener) bool { return other == pl })
	for range sweepMax {
		conn, err := acceptWaitingTCP(pl.tcp)
		if err != nil {
			break
		}
		l.config.Gate.force()
		pl.admit(conn)
	}
	for _, ended := range pl.ended {
		ended()
	}
}

// acceptWaitingTCP takes a connection that waits, although the deadline of the
// listener has passed.
func acceptWaitingTCP(ln *net.TCPListener) (*net.TCPConn, error) {
	raw, err := ln.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	err = control(raw, func(listening int) (err error) {
		fd, err = acceptWaiting(listening)
		return err
	})
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "")
	conn, err := net.FileConn(file)
	err = errors.Join(err, file.Close()) // conn has a duplicate
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// close has the goroutine end.
func (pl *pollListener) close() {
	if !pl.closing {
		pl.closing = true
		pl.listener.share.leave(&pl.sharer)
		close(pl.closes)
		go pl.wake()
	}
}

// wake wakes the goroutine until it has ended: others that share the listener take
// the deadline back.
func (pl *pollListener) wake() {
	for {
		// A listener that is closed has nobody left to wake.
		_ = pl.tcp.SetDeadline(time.Unix(1, 0))
		select {
		case <-pl.done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
