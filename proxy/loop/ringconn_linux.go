package loop

import (
	"errors"
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
	"atlas/proxy/uring"
)

// ringConn is a connection of a ringLoop.
//
// Idle, it is only this struct and an armed receive in the kernel. It is as small
// as it can be, 384 bytes, and what an exchange touches is together: with many
// connections it is in no cache when its bytes arrive.
type ringConn struct {
	loop    *ringLoop
	handler Handler // nil for a dialled connection
	fd      int
	slot    uint32
	gen     uint32

	view uint16 // ring buffer that in aliases, plus one; 0: none

	armed     bool  // a multishot receive is in the kernel
	wantRecv  bool  // and should be: re-arm when it ends for no reason of ours
	starving  bool  // waits in loop.starved for a buffer
	idle      bool  // no task; bytes start one
	closing   bool  // Close was called
	freed     bool  // descriptor closed
	served    bool  // has had an exchange
	guarded   bool  // the guard's client is gone
	leave     bool  // flush out when flight is done
	broken    bool  // it was us who gave up sending: the end must not look like one in order
	awaiting  bool  // reader is in Await
	notified  bool  // Notify was called, and no Await has returned since
	polling   bool  // a poll for room is in the kernel
	pollingIn bool  // a poll for bytes is in the kernel
	readable  bool  // it has found some, which ReadPipe has not taken
	filing    bool  // a task sends a file, or from a pipe
	single    bool  // receives into ring buffers are armed one at a time
	large     bool  // a large body was read since it was parked
	more      bool  // the socket holds more than the last receive took
	bounded   bool  // unsentBytes is in force
	pieces    uint8 // of the turn that were sent by splice
	ops       int8  // operations that the kernel still has; the slot is free at 0

	in     []byte // received, not consumed: a ring buffer, or the tail of stash
	reader *task  // waits for bytes
	out    *batch // being gathered
	flight *batch // being sent
	writer *task  // waits for flight, a poll or connect

	readDeadline, writeDeadline Instant
	readTimer, writeTimer       timer
	rested                      Instant  // since when it is idle
	progress                    progress // of the peer, behind the write deadline

	attachment any
	client     *ringConn // whose end interrupts waits on this connection
	guards     *ringConn // the reverse: the first of those that it interrupts
	guardNext  *ringConn // the next of those that have the same client
	lost       Parked    // not nil while parked
	follower   Follower  // of an accepted connection

	inErr  error  // how receiving ended, told when in is consumed
	outErr error  // why sending failed; sticky
	stash  []byte // memory of our own for what cannot stay in a ring buffer

	once    *receipt // of the single receive that is in the kernel
	dialled *dialled // of the connect that is in the kernel
	named   *names   // what SetAddrs said
}

// dialled is a connect and what became of it.
type dialled struct {
	address uring.Address // the kernel reads it: on the heap, never on a task's stack (rule R4)
	done    bool
	err     error
}

func (l *ringLoop) newConn(fd int) *ringConn {
	l.gen++
	c := &ringConn{loop: l, fd: fd, gen: l.gen & genMask}
	c.readTimer = timer{kind: timerRead, conn: c}
	c.writeTimer = timer{kind: timerWrite, conn: c}
	if n := len(l.slotsFree); n > 0 {
		c.slot = l.slotsFree[n-1]
		l.slotsFree = l.slotsFree[:n-1]
		l.slots[c.slot] = c
	} else {
		c.slot = uint32(len(l.slots))
		l.slots = append(l.slots, c)
	}
	l.conns++
	return c
}

func (c *ringConn) userData(kind uint8) uint64 { return userData(kind, c.gen, c.slot) }

// Dial connects, with the address in memory that outlives the wait.
func (l *ringLoop) Dial(to Address, timeout time.Duration) (Conn, error) {
	if l.stopping {
		return nil, ErrStopped
	}
	d := new(dialled)
	family := unix.AF_INET6
	switch {
	case to.Path != "":
		family = unix.AF_UNIX
		if err := d.address.SetUnix(to.Path); err != nil {
			return nil, err
		}
	case to.AddrPort.Addr().Is4() || to.AddrPort.Addr().Is4In6():
		family = unix.AF_INET
		d.address.Set(to.AddrPort)
	default:
		d.address.Set(to.AddrPort)
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if family != unix.AF_UNIX {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return nil, errors.Join(err, unix.Close(fd))
		}
	}
	c := l.newConn(fd)
	l.counters.Dialled.Add(1)
	c.dialled = d
	err = c.connect(timeout)
	c.dialled = nil
	if err != nil {
		c.Close()
		return nil, err
	}
	c.armRecv()
	return c, nil
}

func (c *ringConn) connect(timeout time.Duration) error {
	d := c.dialled
	c.SetWriteDeadline(now().After(timeout))
	c.ops++
	c.loop.ring.Connect(c.fd, &d.address, c.userData(opConnect))
	var cut error
	for !d.done {
		if cut == nil {
			if cut = c.cut(c.writeDeadline); cut != nil {
				c.cancel(opConnect)
			}
		}
		if !d.done {
			c.waitWriter()
		}
	}
	c.SetWriteDeadline(0)
	if d.err != nil && cut != nil {
		return cut
	}
	return d.err
}

func (c *ringConn) connected(result int32) {
	c.dialled.done = true
	if result < 0 {
		c.dialled.err = unix.Errno(-result)
	}
	c.loop.wake(c.writer)
}

// cut says why a wait on this connection may not go on.
func (c *ringConn) cut(deadline Instant) error {
	switch {
	case c.loop.stopping:
		return ErrStopped
	case c.closing:
		return ErrClosed
	case c.guarded:
		return ErrGuard
	case deadline != 0 && deadline <= c.loop.now:
		return ErrDeadline
	}
	return nil
}

// cancel asks the kernel to end one operation; its completion still comes.
func (c *ringConn) cancel(kind uint8) {
	invariant.That(c.ops < math.MaxInt8, "more operations of a connection than there are kinds")
	c.ops++
	c.loop.ring.Cancel(c.userData(kind), c.userData(opCancel))
}

// rest leaves the connection without a task until bytes arrive.
func (c *ringConn) rest() {
	c.idle, c.rested = true, c.loop.now
	if c.out != nil {
		c.flush()
	}
	if c.outErr != nil || c.inErr != nil || c.loop.stopping {
		c.Close()
		return
	}
	c.armRecv()
}

// drain ends an idle connection, now or soon: see Config.DrainQuiet.
func (c *ringConn) drain() {
	quiet := c.rested
	if leaver, leaves := c.handler.(Leaver); !c.served || leaves && leaver.Fresh(c) {
		quiet = c.loop.now
	}
	soon := quiet.After(c.loop.config.DrainQuiet)
	if c.readDeadline == 0 || c.readDeadline > soon {
		c.SetReadDeadline(soon)
	}
}

// dismiss closes an idle connection whose client is there.
func (c *ringConn) dismiss() {
	if leaver, leaves := c.handler.(Leaver); leaves {
		leaver.Leave(c)
	}
	c.Close()
}

// interrupt makes waits on the connection look again at why they wait.
func (c *ringConn) interrupt() {
	c.loop.wake(c.reader)
	c.loop.wake(c.writer)
}

// ended notes how receiving ended and tells who has to know.
func (c *ringConn) ended(err error) {
	c.inErr = err
	for up := c.guards; up != nil; up = up.guardNext {
		up.guarded = true
		up.interrupt()
	}
	switch {
	case c.lost != nil:
		c.lose()
	case c.idle:
		c.Close()
	default:
		c.loop.wake(c.reader)
	}
}

func (c *ringConn) SetReadDeadline(at Instant) {
	c.readDeadline = at
	if at == 0 {
		return
	}
	c.loop.timers.ensure(&c.readTimer, at)
	if at <= c.loop.now {
		c.loop.wake(c.reader)
	}
}

func (c *ringConn) SetWriteDeadline(at Instant) {
	c.writeDeadline = at
	c.progress.restart(at, c.loop.now)
	if at == 0 {
		return
	}
	c.loop.timers.ensure(&c.writeTimer, at)
	if at <= c.loop.now {
		c.loop.wake(c.writer)
	}
}

// readTimerFired looks whether the deadline has really passed: it may have
// moved on since the timer was set.
func (c *ringConn) readTimerFired() {
	switch {
	case c.awaiting:
		c.loop.wake(c.reader) // Await has a deadline of its own, and looks after this one
	case c.readDeadline == 0 || c.closing:
	case c.readDeadline > c.loop.now:
		c.loop.timers.ensure(&c.readTimer, c.readDeadline)
	case c.lost != nil:
		c.lose()
	case c.idle:
		c.dismiss()
	default:
		c.loop.wake(c.reader) // nobody: the next wait will see it
	}
}

func (c *ringConn) writeTimerFired() {
	switch {
	case c.writeDeadline == 0:
	case c.writeDeadline > c.loop.now:
		c.loop.timers.ensure(&c.writeTimer, c.writeDeadline)
	case c.writer != nil:
		c.loop.wake(c.writer)
	case c.flight != nil && !c.moreTime():
		c.failSend(ErrDeadline)
	}
}

// Guard ties waits on c to the client's presence. While a client's requests are
// waited for its receive is armed anyway, so the guard costs nothing.
func (c *ringConn) Guard(client Conn) {
	c.unguard()
	if client == nil {
		return
	}
	from, ok := client.(*ringConn)
	if !ok {
		from = under(client).(*ringConn)
	}
	c.client, c.guardNext, from.guards = from, from.guards, c
	if from.inErr != nil || from.closing {
		c.guarded = true
		return
	}
	if len(from.in) < stashMax {
		from.armRecv()
	}
}

func (c *ringConn) unguard() {
	c.guarded = false
	if c.client == nil {
		return
	}
	place := &c.client.guards
	for *place != c {
		place = &(*place).guardNext
	}
	*place = c.guardNext
	c.client, c.guardNext = nil, nil
}

func (c *ringConn) Park(lost Parked) {
	c.Guard(nil)
	c.lost = lost
	if c.inErr != nil || c.outErr != nil || len(c.in) > 0 || c.closing {
		// Already lost, but the caller is not done with parking it: tell it
		// from the loop.
		c.loop.Post(c.lose)
		return
	}
	c.single, c.large = c.large, false
	c.armRecv()
}

// lose tells the owner of a parked connection, once.
func (c *ringConn) lose() {
	if lost := c.lost; lost != nil {
		c.lost = nil
		lost.Lost(c)
	}
}

func (c *ringConn) Unpark() bool {
	c.lost = nil
	return c.inErr == nil && c.outErr == nil && len(c.in) == 0 && !c.closing
}

// Close sends what was flushed, ends what is armed, and frees the descriptor
// when the last completion has come (settle).
func (c *ringConn) Close() {
	if c.closing {
		return
	}
	c.closing = true
	c.broken = c.broken || c.filing
	c.idle, c.lost = false, nil
	c.wantRecv = false
	c.unguard()
	for c.guards != nil {
		up := c.guards
		up.unguard()
		up.guarded = true
		up.interrupt()
	}
	if c.writeDeadline == 0 && (c.out != nil || c.flight != nil) {
		c.SetWriteDeadline(c.loop.now.After(closeTimeout))
	}
	if c.out != nil && c.outErr == nil {
		c.flush()
	}
	c.endRecv()
	c.interrupt()
	c.settle()
}

// Reset closes without sending the rest.
func (c *ringConn) Reset() {
	if c.freed {
		return
	}
	c.failSend(ErrClosed)
	c.broken = true
	c.Close()
}

// settle frees a closed connection once the kernel has nothing of it (rule R1):
// closing an armed descriptor would be no close, and a freed slot would get
// completions meant for its predecessor. What broke off ends with RST, which the
// kernel sends for a linger time of zero.
func (c *ringConn) settle() {
	if c.ops > 0 || c.freed {
		return
	}
	l := c.loop
	c.freed = true
	if c.out != nil {
		l.putBatch(c.out)
		c.out = nil
	}
	c.in = nil
	c.dropView()
	if l.lent == 0 {
		c.dropStash()
	}
	c.stash = nil // the kernel may be reading it, for a task that writes what it had in Peek
	l.timers.remove(&c.readTimer)
	l.timers.remove(&c.writeTimer)
	if c.broken {
		linger := unix.Linger{Onoff: 1, Linger: 0}
		// A socket that cannot linger (Unix) closes in order instead; its reader
		// sees a short body either way.
		_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &linger)
	}
	err := unix.Close(c.fd)
	invariant.That(!errors.Is(err, unix.EBADF), "descriptor closed twice")
	l.slots[c.slot] = nil
	l.slotsFree = append(l.slotsFree, c.slot)
	l.conns--
	if c.handler != nil {
		l.counters.Open.Add(-1)
		if c.follower != nil {
			c.follower.Gone() // before another worker has the place, for the same client perhaps
		}
		l.config.Gate.leave()
	} else {
		l.counters.Dialled.Add(-1)
	}
	l.freed()
}

func (c *ringConn) follow(f Follower) bool {
	c.follower = f
	return !c.freed
}

func (c *ringConn) Local() netip.AddrPort {
	if c.named != nil {
		return c.named.local
	}
	return c.name((*uring.Address).SetLocal)
}

func (c *ringConn) Remote() netip.AddrPort {
	if c.named != nil {
		return c.named.remote
	}
	return c.name((*uring.Address).SetPeer)
}

// name asks the kernel. It is invalid for a Unix socket, and for one that is gone.
func (c *ringConn) name(ask func(*uring.Address, int) error) netip.AddrPort {
	if c.freed {
		return netip.AddrPort{}
	}
	if err := ask(&c.loop.address, c.fd); err != nil {
		return netip.AddrPort{}
	}
	return c.loop.address.AddrPort()
}

func (c *ringConn) SetAddrs(local, remote netip.AddrPort) { c.named = &names{local, remote} }

func (c *ringConn) Attachment() any { return c.attachment }
func (c *ringConn) Attach(v any)    { c.attachment = v }
func (c *ringConn) Loop() Loop      { return c.loop }
