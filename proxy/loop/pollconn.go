package loop

import (
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	pollBufferBytes = 4096     // receive memory of a connection that is not idle
	pollOutMax      = 64 << 10 // what may be written before a flush is forced
)

// pollBuffers is shared by the workers: a buffer is taken by a goroutine that
// was just told that its socket is readable, before it has the baton.
var pollBuffers = sync.Pool{New: func() any { return new([pollBufferBytes]byte) }}

// pollConn is a connection of a pollLoop.
type pollConn struct {
	loop    *pollLoop
	conn    net.Conn
	raw     syscall.RawConn
	handler Handler // nil for a dialled connection

	idle    bool
	greets  bool // the first Serve waits for no bytes
	served  bool
	closing bool
	freed   bool // the socket is closed
	broken  bool // we gave sending up: the end must not look like one in order
	guarded bool

	awaiting bool // a task is in Await
	notified bool // Notify was called, and no Await has returned since

	in     []byte                 // received, not consumed: part of buffer, or memory of its own
	buffer *[pollBufferBytes]byte // nil while idle
	inErr  error

	// What tryFirst found. It runs without the baton, so it touches only these.
	look        func(fd uintptr)      // lookOnce, bound once
	isQuiet     bool                  // what it saw
	first       func(fd uintptr) bool // tryFirst, bound once: a closure per wait would allocate
	firstBuffer *[pollBufferBytes]byte
	firstN      int
	firstErr    error

	out    net.Buffers // gathered: own memory and queued slices, in order
	own    []byte      // memory that small writes are copied to
	ownEnd int         // how much of own is in out
	outN   int         // bytes gathered
	outErr error
	// sending is true while a goroutine sends, without the baton: out is its own
	// then.
	sending bool

	// The deadline wanted, and the one that the socket was last given: that
	// one may be earlier, and is then found to have fired too soon.
	readDeadline, readArmed   Instant
	writeDeadline, writeArmed Instant
	progress                  progress // of the peer, behind the write deadline
	rested                    Instant  // since when it is idle

	client  *pollConn     // whose end interrupts waits on this connection
	guards  []*pollConn   // the reverse
	watcher chan struct{} // closed when the goroutine that watches this connection has ended
	lost    Parked

	attachment any
	named      *names   // what SetAddrs said
	follower   Follower // of an accepted connection
}

func (l *pollLoop) newConn(conn net.Conn, h Handler) *pollConn {
	c := &pollConn{loop: l, conn: conn, handler: h}
	// Only connections of an unusual type have none, and net.Conns that we
	// accept or dial are of two usual ones.
	c.raw, _ = conn.(syscall.Conn).SyscallConn()
	c.first, c.look = c.tryFirst, c.lookOnce
	l.conns[c] = struct{}{}
	return c
}

// serve carries the connection from its first byte to its close, with the
// baton held except in waits.
func (c *pollConn) serve() {
	c.loop.counters.Tasks.Add(1)
	defer c.loop.counters.Tasks.Add(-1)
	for c.greets || c.awaitFirst() {
		c.greets = false
		keep := c.exchange()
		c.served = true
		if !keep || len(c.in) > 0 || c.Flush() != nil {
			c.end()
			return
		}
		if c.loop.draining {
			c.rested = now()
			c.drain()
		}
	}
	if leaver, leaves := c.handler.(Leaver); leaves && c.inErr == nil && c.outErr == nil && !c.loop.stopping {
		leaver.Leave(c)
	}
	c.end()
}

// end closes a connection that nobody serves any more.
func (c *pollConn) end() {
	c.Close()
	c.in = nil
	c.dropBuffer()
}

// exchange asks the handler, and survives its panics.
func (c *pollConn) exchange() (keep bool) {
	defer func() {
		if value := recover(); value != nil {
			c.loop.panicked(value)
			c.Reset()
			keep = false
		}
	}()
	return c.handler.Serve(c)
}

// awaitFirst waits for bytes without holding memory for them, and reports
// whether there are any.
func (c *pollConn) awaitFirst() bool {
	c.idle, c.rested = true, now()
	c.dropBuffer()
	for c.inErr == nil && !c.closing {
		c.unwatch()
		if err := c.stopped(c.readDeadline); err != nil {
			break
		}
		c.armRead()
		c.loop.baton.Unlock()
		err := c.raw.Read(c.first)
		c.loop.baton.Lock()
		if err == nil {
			c.buffer, c.in = c.firstBuffer, c.firstBuffer[:c.firstN]
			c.inErr = cause(c.firstErr)
			break
		}
		if err = cause(err); err != ErrDeadline {
			c.inErr = err
		}
	}
	c.idle = false
	return len(c.in) > 0 && !c.closing
}

// tryFirst is called when the socket may be readable.
func (c *pollConn) tryFirst(fd uintptr) bool {
	buffer := pollBuffers.Get().(*[pollBufferBytes]byte)
	for {
		n, err := syscall.Read(int(fd), buffer[:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			pollBuffers.Put(buffer)
			return false
		case n == 0 && err == nil:
			err = io.EOF
		}
		c.firstBuffer, c.firstN, c.firstErr = buffer, max(n, 0), err
		return true
	}
}

// dropBuffer gives the memory back that nothing is in. Only the goroutine that
// reads may call it: another may not know that a read is going on.
func (c *pollConn) dropBuffer() {
	if c.buffer != nil && len(c.in) == 0 {
		pollBuffers.Put(c.buffer)
		c.buffer, c.in = nil, nil
	}
}

func (c *pollConn) Peek() []byte { return c.in }

func (c *pollConn) Consume(n int) {
	c.in = c.in[n:]
	if len(c.in) == 0 {
		c.in = nil
		if c.buffer != nil {
			c.in = c.buffer[:0]
		}
	}
}

// Fill reads behind what is there.
func (c *pollConn) Fill() error {
	if c.inErr != nil {
		return c.inErr
	}
	c.makeRoom()
	n, err := c.read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// makeRoom sees to it that at least half a buffer can be read.
func (c *pollConn) makeRoom() {
	if c.buffer == nil {
		c.buffer = pollBuffers.Get().(*[pollBufferBytes]byte)
		c.in = append(c.buffer[:0], c.in...)
	}
	if cap(c.in)-len(c.in) >= pollBufferBytes/2 {
		return
	}
	if len(c.in) <= pollBufferBytes/2 {
		c.in = append(c.buffer[:0], c.in...)
		return
	}
	c.in = append(make([]byte, 0, 2*len(c.in)), c.in...)
}

// Read takes what is there, else reads into p.
func (c *pollConn) Read(p []byte) (int, error) {
	if len(c.in) > 0 {
		n := copy(p, c.in)
		c.Consume(n)
		return n, nil
	}
	if c.inErr != nil {
		return 0, c.inErr
	}
	n, err := c.read(p)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// read waits for bytes until the deadline, the guard or Stop.
func (c *pollConn) read(p []byte) (int, error) {
	guardUntil := Instant(0)
	if c.client != nil && !c.client.watched() {
		guardUntil = now().After(guardDelay)
	}
	for {
		c.unwatch()
		if err := c.stopped(c.readDeadline); err != nil {
			return 0, err
		}
		if guardUntil != 0 && guardUntil <= now() {
			guardUntil = 0
			if c.client != nil && !c.client.watched() {
				c.client.watch()
				continue
			}
		}
		if guardUntil != 0 && (c.readDeadline == 0 || guardUntil < c.readDeadline) {
			c.setRead(guardUntil)
		} else {
			c.armRead()
		}
		c.loop.baton.Unlock()
		n, err := c.conn.Read(p)
		c.loop.baton.Lock()
		err = cause(err)
		if n == 0 && err == ErrDeadline {
			continue
		}
		if err != nil && err != ErrDeadline {
			c.inErr = err
		}
		return n, err
	}
}

// stopped says why a wait on this connection may not go on.
func (c *pollConn) stopped(deadline Instant) error {
	switch {
	case c.closing:
		return ErrClosed
	case c.loop.stopping:
		return ErrStopped
	case c.guarded:
		return ErrGuard
	case deadline != 0 && deadline <= now():
		return ErrDeadline
	}
	return nil
}

// armRead gives the socket a deadline that is not later than the wanted one.
func (c *pollConn) armRead() {
	if c.readArmed == c.readDeadline || c.readArmed != 0 && c.readArmed < c.readDeadline && c.readArmed > now() {
		return
	}
	c.setRead(c.readDeadline)
}

func (c *pollConn) setRead(at Instant) {
	c.readArmed = at
	// It fails on a closed socket only, and then so does the wait.
	_ = c.conn.SetReadDeadline(wall(at))
}

func (c *pollConn) armWrite() {
	if c.writeArmed == c.writeDeadline || c.writeArmed != 0 && c.writeArmed < c.writeDeadline && c.writeArmed > now() {
		return
	}
	c.setWrite(c.writeDeadline)
}

func (c *pollConn) setWrite(at Instant) {
	c.writeArmed = at
	_ = c.conn.SetWriteDeadline(wall(at))
}

func wall(at Instant) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return started.Add(time.Duration(at))
}

func (c *pollConn) SetReadDeadline(at Instant) {
	c.readDeadline = at
	if at != 0 && (c.readArmed == 0 || at < c.readArmed) {
		c.setRead(at) // someone may be waiting with the later one
	}
}

func (c *pollConn) SetWriteDeadline(at Instant) {
	c.writeDeadline = at
	if c.loop.config.RateMin > 0 {
		c.progress.restart(at, now())
	}
	if at != 0 && (c.writeArmed == 0 || at < c.writeArmed) {
		c.setWrite(at)
	}
}

// interrupt ends waits, which then look again at why they wait.
func (c *pollConn) interrupt() {
	c.setRead(Past)
	c.setWrite(Past)
}

// drain ends an idle connection, now or soon: see Config.DrainQuiet.
func (c *pollConn) drain() {
	quiet := c.rested
	if leaver, leaves := c.handler.(Leaver); !c.served || leaves && leaver.Fresh(c) {
		quiet = now()
	}
	soon := quiet.After(c.loop.config.DrainQuiet)
	if c.readDeadline == 0 || c.readDeadline > soon {
		c.SetReadDeadline(soon)
	}
}

// Guard notes the client; read has it watched when the wait gets long.
func (c *pollConn) Guard(client Conn) {
	if from := c.client; from != nil {
		c.client = nil
		from.guards = slices.DeleteFunc(from.guards, func(up *pollConn) bool { return up == c })
		if len(from.guards) == 0 && from.watcher != nil {
			from.setRead(Past) // its next wait waits for the watcher's end
		}
	}
	c.guarded = false
	if client == nil {
		return
	}
	from, ok := client.(*pollConn)
	if !ok {
		from = under(client).(*pollConn)
	}
	c.client = from
	c.client.guards = append(c.client.guards, c)
	c.guarded = c.client.inErr != nil || c.client.closing
}

// watch has a goroutine wait until the socket says that the peer has gone, and
// interrupts those who have this connection as their guard then.
func (c *pollConn) watch() {
	if c.awaiting {
		return // it watches as well, and would lose its deadline
	}
	c.unwatch()
	if c.closing || len(c.guards) == 0 {
		return // meanwhile
	}
	done := make(chan struct{})
	c.watcher = done
	c.setRead(0)
	go func() {
		defer close(done)
		gone, why := c.awaitGone()
		if !gone {
			return
		}
		c.loop.baton.Lock()
		defer c.loop.baton.Unlock()
		if c.inErr == nil && why != nil {
			c.inErr = why // the socket has told it, and will call it an end the next time
		}
		c.goneFor(c.guards)
	}()
}

// watched reports that there is a watcher that nobody has told to end.
func (c *pollConn) watched() bool { return c.watcher != nil && c.readArmed == 0 }

// awaitGone waits for bytes or an end without taking anything. why is an end that
// is not in order.
func (c *pollConn) awaitGone() (gone bool, why error) {
	err := c.raw.Read(func(fd uintptr) bool {
		var p [1]byte
		n, _, err := syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK)
		if err == syscall.EAGAIN || err == syscall.EINTR {
			return false
		}
		// Bytes are a next request, or the farewell of a layer, and an end may
		// follow. Where it cannot be seen behind them, watching goes on in vain.
		gone, why = err != nil || n == 0 || hungUp(int(fd)), err
		return gone
	})
	return err == nil && gone, why
}

func (c *pollConn) goneFor(guards []*pollConn) {
	for _, up := range guards {
		up.guarded = true
		up.interrupt()
	}
}

// unwatch ends the watcher and waits for it: it shares the socket with the wait
// that follows.
func (c *pollConn) unwatch() {
	for c.watcher != nil {
		done := c.watcher
		c.setRead(Past)
		c.loop.baton.Unlock()
		<-done
		c.loop.baton.Lock()
		if c.watcher == done {
			c.watcher = nil
		}
	}
}

func (c *pollConn) Attachment() any { return c.attachment }
func (c *pollConn) Attach(v any)    { c.attachment = v }
func (c *pollConn) Loop() Loop      { return c.loop }

func (c *pollConn) follow(f Follower) bool {
	c.follower = f
	return !c.freed
}
