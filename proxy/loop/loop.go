// Package loop is the I/O seam between handlers and the kernel: workers, the
// connections they own, and straight-line code that may wait on them.
//
// It refuses to know any protocol: no heads, no bodies, no pools, no policy on
// which upstream. Handlers see a Conn and a Loop and cannot tell the engine.
//
// # Threads
//
// A Loop is one worker. Its methods marked "any goroutine" may be called from
// anywhere; all others, and all methods of a Conn, belong to the worker: they
// are called from Handler methods, from functions given to Go, Post and Off's
// caller, and never two at once for one worker, on either engine. Code that
// "waits" may do so only in a task (Serve, or a function given to Go), where
// other tasks of the worker run meanwhile. A task holds no lock across a wait,
// waits on no channel or mutex, and ends by returning.
//
// # Memory
//
// Slices from Peek alias the worker's receive memory until the task's next call
// that may wait, on any Conn, or the next Consume. Slices given to Write may be
// reused when it returns; slices given to Queue belong to the connection until
// it is closed, and must never change.
//
// # Engines
//
// The ring engine (Linux) runs tasks as coroutines of one locked thread over an
// io_uring. The netpoll engine (everywhere) runs a goroutine a connection over
// Go's poller, and passes a baton, so that handler code of one worker still
// never runs twice at once. The API is shaped by completions; netpoll imitates
// them.
package loop

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
)

// Instant is a moment in nanoseconds of the process's monotonic clock. Zero
// means never.
type Instant int64

// Past is a deadline that has passed: setting it interrupts the task that waits.
const Past Instant = 1

var started = time.Now()

// now is the monotonic clock; it is never zero.
func now() Instant { return Instant(time.Since(started)) + 2 }

// Now is the clock of all workers, for code that runs on none.
func Now() Instant { return now() }

// After is the instant d later.
func (i Instant) After(d time.Duration) Instant { return i + Instant(d) }

// Errors that callers branch on. Others are io.EOF for a peer that ended in
// order, or the kernel's syscall.Errno.
var (
	ErrDeadline = errors.New("deadline passed")
	ErrGuard    = errors.New("the guarded client is gone") // Await's own peer, too
	ErrClosed   = errors.New("connection closed on our side")
	ErrStopped  = errors.New("worker stopped")
	ErrPanic    = errors.New("task panicked")
)

// Handler serves the connections of a listener.
type Handler interface {
	// Open is told of an accepted connection before its first byte. It sets
	// the first deadline and must not wait.
	Open(c Conn)

	// Serve runs in a task when an idle connection has received bytes, and
	// returns when it has nothing more to read: true leaves the connection
	// idle (until bytes, its end, or its read deadline), false closes it.
	// The loop itself closes idle connections that end or expire. A panic
	// resets the connection and is counted and logged.
	Serve(c Conn) (keep bool)
}

// Leaver is a Handler with a last word for connections that the loop closes
// although their clients are there: idle ones that expire, or that a drain ends.
type Leaver interface {
	// Leave is called before the close. It may write as much as there is Room
	// for, and must not wait.
	Leave(c Conn)
	// Fresh reports that Serve has carried no exchange yet, only what comes
	// before the first: then a drain gives c as much time as a connection that
	// was just accepted.
	Fresh(c Conn) bool
}

// Layer is a Conn that speaks a protocol of its own over another one of the same
// worker.
type Layer interface {
	// Under is the connection below.
	Under() Conn
}

// Greeter is a Handler of a protocol in which the server may speak first.
type Greeter interface {
	// Greets is asked once for an accepted connection, behind Open: true has
	// Serve called at once, whether something has been received or not.
	Greets(c Conn) bool
}

// Greets asks h, if it is a Greeter. It is for the loop, and for handlers that
// stand in front of another one.
func Greets(h Handler, c Conn) bool {
	greeter, may := h.(Greeter)
	return may && greeter.Greets(c)
}

// Loop is one worker.
type Loop interface {
	// Post runs f on the worker soon, outside any task: f must not wait. Any
	// goroutine. It reports false if the worker has ended.
	Post(f func()) bool
	// Drain ends listening, as Unlisten does, and connections that have been idle
	// for a while, and ends the worker when the last accepted connection is gone.
	// Any goroutine.
	Drain()
	// Stop is Drain that does not wait: every wait fails with ErrStopped and
	// every connection is closed. Any goroutine.
	Stop()
	// Wait returns when the worker has ended. Any goroutine, not a task.
	Wait()
	// Counters may be read from any goroutine.
	Counters() *Counters

	// Listen accepts connections of ln and has them served by h, or by a worker that
	// has fewer, with what that one listens with (ShareWith). Of one that is
	// listened on already it only replaces the handler, for connections that
	// are accepted from now on.
	Listen(ln *Listener, h Handler) error
	// Unlisten accepts no more of ln. Connections that it has accepted stay.
	// ended is called on the worker when none can come any more: what had been
	// connected by then, the queue included, is being served, and as far as this
	// worker is concerned ln may be closed, or listened to again.
	Unlisten(ln *Listener, ended func())
	// SetRateMin is Config.RateMin from now on.
	SetRateMin(bytes int64)
	// Dial connects to an upstream. It waits.
	Dial(to Address, timeout time.Duration) (Conn, error)
	// Go starts f as a task of its own. It does not wait; Join does.
	Go(f func()) Task
	// Off runs f, which may block (files, names), on a helper goroutine, and
	// waits for it. f must not touch the worker's state.
	Off(f func())
	// Sleep waits.
	Sleep(d time.Duration)
	// Doze is Sleep that Drain ends as well: for what no client waits for, which
	// would keep a worker from ending.
	Doze(d time.Duration)
	// Yield waits until everything else that has something to do has had its turn,
	// and whoever else is in Yield. It is for tasks that would go on without a wait
	// for as long as a peer likes.
	Yield()
	// Pipe lends an empty pipe, for a Splicer. It fails where the worker or the
	// process has too many: then bytes are copied instead.
	Pipe() (*Pipe, error)
	// PutPipe gives it back, whatever is in it.
	PutPipe(p *Pipe)

	// Now is the worker's clock, as of this turn of the loop.
	Now() Instant
	// Clock is the wall clock, as of this turn of the loop.
	Clock() time.Time
	// Draining reports that connections should end after their exchange.
	Draining() bool
	// Engine is the engine under the loop, for reports only.
	Engine() Engine
}

// Task is a task started by Go.
type Task interface {
	// Join waits until the task has ended. ErrPanic says that it panicked: then
	// the caller resets the connections that the task worked on.
	Join() error
}

// Conn is a stream that a worker owns. One task may receive while another
// sends; two may not do the same at once.
type Conn interface {
	// Peek is what was received and not yet consumed.
	Peek() []byte
	// Fill waits until Peek is longer than now. At the peer's end it returns
	// io.EOF; what Peek holds stays readable.
	Fill() error
	// Consume drops the first n bytes of Peek.
	Consume(n int)
	// Read waits for bytes of a body and puts them into p, directly from the
	// socket where possible; it takes no more than p holds.
	Read(p []byte) (int, error)

	// Write sends all of p: a small one is copied and sent at Flush, a large
	// one is waited for.
	Write(p []byte) (int, error)
	// Room is how many bytes Write takes now without a wait.
	Room() int
	// Queue sends p at Flush without copying it: p must never change.
	Queue(p []byte) error
	// Flush starts sending what was written and queued. It waits only if
	// the previous flush has not left yet and there is too much behind it. A
	// failed send shows at the next call that sends.
	Flush() error
	// SendFile waits until n bytes of f from off are sent, after what was
	// written. It returns how many were; fewer with a nil error means that
	// the file has become shorter.
	SendFile(f *File, off, n int64) (int64, error)
	// CloseWrite waits until everything is sent, then ends our direction.
	CloseWrite() error

	// SetReadDeadline bounds waits for bytes, and how long the connection may
	// be idle or parked. Zero is none. An earlier one interrupts a wait.
	SetReadDeadline(Instant)
	// SetWriteDeadline bounds how long sent bytes may take to leave, waited
	// for or not. With Config.RateMin the client of an accepted connection
	// that keeps taking bytes gets more time: when the deadline passes during a
	// send it moves on once, by its own length but at most half a minute, and
	// again each time that the client has acknowledged RateMin bytes a second
	// since. This goes for what Close sends, too. A deadline that has passed
	// when it is set interrupts all the same.
	SetWriteDeadline(Instant)

	// Guard makes waits on this connection fail with ErrGuard when client
	// ends or is reset meanwhile. nil removes the guard. What a client that is a
	// Layer stands on is watched.
	Guard(client Conn)
	// Await waits for Notify: for what is neither bytes nor room, and is not
	// worth having once this connection's peer is gone. It returns
	//
	//	nil          Notify was called, whatever else has happened
	//	ErrGuard     the peer has ended its direction, or reset
	//	ErrDeadline  at has passed; 0 is never
	//	ErrClosed    the connection was closed on our side
	//	ErrStopped   the worker stops; draining does not end the wait
	//
	// It is a wait of the receiving side, yet takes nothing from it. What
	// arrives meanwhile does not end the wait and is there for Peek, Fill and
	// Read later: some of it in our memory, the rest held back by TCP, and an
	// end behind what is held back shows only there. The read deadline does not
	// count meanwhile and stands as it was, so it may have passed by then.
	Await(at Instant) error
	// Notify ends the Await that waits on this connection, or the next one at
	// once. It is remembered once, until an Await returns: as that returns nil
	// then, one who gets an error knows that no Notify was lost. Who is told
	// looks again at what it waits for. On a closed connection nobody is told.
	Notify()
	// Park leaves a dialled connection idle. If the peer ends it, sends
	// something or the read deadline passes, lost is told, once, and closes
	// it, or parks it anew: what the peer has sent is in Peek, or part of it.
	Park(lost Parked)
	// Unpark takes it back; false says that it is no longer usable: close it. If
	// that is for bytes in Peek, which are the peer's and not of this layer, it
	// may be asked again without them.
	Unpark() bool

	// Close sends what was flushed, then closes. It does not wait.
	Close()
	// Reset closes at once; what was not sent is dropped and the peer sees a
	// reset, which no client takes for the end of a body.
	Reset()

	// Local and Remote are the socket's addresses; invalid for Unix sockets.
	Local() netip.AddrPort
	Remote() netip.AddrPort
	// SetAddrs has Local and Remote say something else from now on: between whom
	// a proxy in front of us has been asked to connect.
	SetAddrs(local, remote netip.AddrPort)
	// Attachment is whatever the owner attached.
	Attachment() any
	Attach(v any)
	// Loop is the worker that owns the connection.
	Loop() Loop
}

// Parked is told of a parked connection that was lost.
type Parked interface {
	// Lost runs on the worker outside any task; it must not wait.
	Lost(c Conn)
}

// Address is where to dial: an IP and port, or the path of a Unix socket.
type Address struct {
	AddrPort netip.AddrPort
	Path     string
}

func (a Address) String() string {
	if a.Path != "" {
		return "unix:" + a.Path
	}
	return a.AddrPort.String()
}

// under is the connection at the bottom of all layers.
func under(c Conn) Conn {
	for {
		layer, ok := c.(Layer)
		if !ok {
			return c
		}
		c = layer.Under()
	}
}

// names are the ends of a connection as somebody else knows them.
type names struct{ local, remote netip.AddrPort }

// Counters are written by the worker, Open also by others that hand connections to
// it, and read by anyone.
type Counters struct {
	Accepted atomic.Uint64 // connections accepted, by whatever worker, and served by this one
	Handed   atomic.Uint64 // connections accepted that another worker serves, which had fewer
	Open     atomic.Int64  // connections served that are open now, or on their way from another worker
	Dialled  atomic.Int64  // upstream connections open now
	Panics   atomic.Uint64 // tasks that panicked
	Starved  atomic.Uint64 // times that a receive found no buffer (ring)
	Enters   atomic.Uint64 // system calls that entered the ring (ring)
	Overflow atomic.Uint64 // of these, how many found more completions than the queue holds (ring)
	Tasks    atomic.Int64  // tasks that exist, idle ones included
	Refused  atomic.Uint64 // accepts that failed for want of descriptors
	Full     atomic.Uint64 // connections that had to wait at the bound of the gate
	Evicted  atomic.Uint64 // idle connections that were ended to make room
	Pipes    atomic.Int64  // pipes in use
	Spliced  atomic.Uint64 // bytes moved into pipes
	Cold     atomic.Uint64 // pieces of files that were brought into memory before they were sent
}
