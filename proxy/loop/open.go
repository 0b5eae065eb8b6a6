package loop

import (
	"fmt"
	"time"
)

// drainFirst is how long a draining worker waits for the first request of a
// connection that was accepted but has not spoken yet.
const drainFirst = 2 * time.Second

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

// Choose settles the engine of the process: workers never mix (rule R8). The
// reason says in one line why auto fell back, or "" where it did not. Asking for
// io_uring by name where it is missing is an error.
func Choose(want Engine) (got Engine, reason string, err error) {
	switch want {
	case Netpoll:
		return Netpoll, "configured", nil
	case Auto, "":
		if err := probeRing(); err != nil {
			return Netpoll, err.Error(), nil
		}
		return IOUring, "", nil
	case IOUring:
		if err := probeRing(); err != nil {
			return "", "", fmt.Errorf("engine %q: %w", want, err)
		}
		return IOUring, "configured", nil
	}
	return "", "", fmt.Errorf("engine %q: want %q, %q or %q", want, Auto, IOUring, Netpoll)
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
}

// Start starts a worker. It fails where the engine cannot be opened.
func Start(cfg Config) (Loop, error) {
	switch cfg.Engine {
	case IOUring:
		return startRing(cfg)
	case Netpoll:
		return startPoll(cfg), nil
	}
	return nil, fmt.Errorf("loop: start with engine %q: want one from Choose", cfg.Engine)
}
