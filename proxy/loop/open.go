package loop

import (
	"cmp"
	"fmt"
	"time"
)

// drainQuietDefault is a pause in which a client whose pages ask for more has asked.
const drainQuietDefault = 2 * time.Second

// sweepMax bounds how many connections are taken from a queue when listening ends:
// more than a queue holds, unless it is one that others fill and empty as well.
const sweepMax = 65536

// closeTimeout bounds how long a closed connection may take to send the rest,
// where its owner set no write deadline.
const closeTimeout = 10 * time.Second

// Engine is what moves the bytes under a loop.
type Engine string

const (
	Auto    Engine = "auto"     // the ring where the kernel has it, else netpoll
	IOUring Engine = "io_uring" // coroutines on an io_uring; Linux 6.1 and newer
	Netpoll Engine = "netpoll"  // goroutines on Go's poller; everywhere
)

// Choose settles the engine of the process: workers never mix (rule R8). Where
// auto falls back to netpoll, fallback says why in one line; else it is "".
// Asking for io_uring by name where it is missing is an error.
func Choose(want Engine) (got Engine, fallback string, err error) {
	switch want {
	case Netpoll:
		return Netpoll, "", nil
	case Auto, "":
		if err := probeRing(); err != nil {
			return Netpoll, err.Error(), nil
		}
		return IOUring, "", nil
	case IOUring:
		if err := probeRing(); err != nil {
			return "", "", fmt.Errorf("engine %q: %w", want, err)
		}
		return IOUring, "", nil
	}
	return "", "", fmt.Errorf("engine %q: want %q, %q or %q", want, Auto, IOUring, Netpoll)
}

// Ring reports that an engine that is asked for may be the ring, and that it may be
// nothing else.
func (e Engine) Ring() (may, must bool) { return e != Netpoll, e == IOUring }

// Reason says why Choose has chosen, from what it was asked for and returned.
func Reason(want Engine, fallback string) string {
	switch {
	case fallback != "":
		return fallback
	case want == Auto || want == "":
		return "the kernel has what it needs"
	}
	return "the configuration asks for it"
}

// Instead is the engine for the whole process where want was asked for, e was
// chosen, and a worker of e could not be opened (rule R8): a probe is smaller
// than a worker, so memory may allow one and not the other.
func (e Engine) Instead(want Engine) (Engine, bool) {
	return Netpoll, e == IOUring && (want == Auto || want == "")
}

// Listeners is how many listeners a number of workers needs: one each where the
// kernel shares connections out, else one that feeds them all.
func (e Engine) Listeners(workers int) int {
	if e == IOUring {
		return workers
	}
	return 1
}

// Pins reports that a worker is a thread that can be kept on a core.
func (e Engine) Pins() bool { return e == IOUring }

// Procs is the least GOMAXPROCS for a number of workers. A worker's thread keeps
// its P while it is in the kernel for a short while; with none to spare the
// runtime's monitor takes it back at every wait, which was 5 % of the process.
func (e Engine) Procs(workers int) int {
	if e == IOUring {
		return workers + 2
	}
	return workers
}

// Config is what a worker needs to start.
type Config struct {
	Engine Engine // IOUring or Netpoll, from Choose
	CPU    int    // core to pin the worker's thread to; negative: none. Ring only
	// Panicked is told of a panic in a task, on the worker: it must not
	// block. nil drops it; it is counted either way.
	Panicked func(value any, stack []byte)
	// Buffers and BufferBytes size the receive memory (ring only). Zero is
	// buffersDefault and bufferBytesDefault; tests make it scarce.
	Buffers     int
	BufferBytes int
	// RateMin is how many bytes a second the client of an accepted connection
	// has to take for a send to go on behind its write deadline. Zero cuts every
	// send at its deadline, as do Unix sockets and systems other than Linux.
	RateMin int64
	// DrainQuiet is for how long a draining worker waits for a request: from the
	// drain on for the first one of a connection, for others since the last
	// exchange. One that comes is answered, and told that it was the last. A client
	// that asks again at once never finds its connection closed under a request; of
	// those that rest, a close meets few at the moment in which they ask. Zero is
	// two seconds.
	DrainQuiet time.Duration
	// Gate bounds the accepted connections of all workers that have the same one.
	// nil is one without a bound.
	Gate *Gate
	// Held is told, on the worker or beside it, that accepting has to wait and
	// why: ErrFull, or an error that is Scarce. It must not block. nil: nobody is.
	Held func(why error)
}

func (c *Config) held(why error) {
	if c.Held != nil {
		c.Held(why)
	}
}

// Start starts a worker. It fails where the engine cannot be opened.
func Start(cfg Config) (Loop, error) {
	cfg.DrainQuiet = cmp.Or(cfg.DrainQuiet, drainQuietDefault)
	switch cfg.Engine {
	case IOUring:
		return startRing(cfg)
	case Netpoll:
		return startPoll(cfg), nil
	}
	return nil, fmt.Errorf("loop: start with engine %q: want one from Choose", cfg.Engine)
}
