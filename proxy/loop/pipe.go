package loop

import "errors"

const (
	// pipeBytes is how large a pipe is made, where the system allows it: a pipe
	// has a slot for each page, and what the network brings fills but a third of
	// one, so that the default of 16 slots held 23 KB.
	pipeBytes = 1 << 20
	// pipeBytesMin is what a pipe has to hold to be better than a buffer. A user
	// who has too many gets tiny ones (fs.pipe-user-pages-soft).
	pipeBytesMin = 64 << 10
	// spliceBytes is the most that one call moves. It takes some 200 us, and a
	// gigabyte of loopback 190 ms; in pieces of 256 KiB that is 310, of 64 KiB 340,
	// and copied 390 (6.18, one worker's thread).
	spliceBytes = pipeBytes

	// pipesMax is how many pipes a worker has in use, at two descriptors each. It
	// bounds the kernel's memory that peers who do not read may hold.
	pipesMax = 128
	// pipesKept is how many it keeps that nobody uses.
	pipesKept = 16
)

// ErrNoSplice says that the system cannot splice a connection.
var ErrNoSplice = errors.New("the system does not splice this connection")

// errPipes says that the worker has as many pipes as it may.
var errPipes = errors.New("too many pipes")

// Splicer is a Conn whose bytes can go to another one through a Pipe, so that
// they never come to our memory. One with a protocol of its own, such as TLS, is
// none, nor is any where the system has no splice.
type Splicer interface {
	Conn
	// AwaitBytes waits, within the read deadline, until there is something, in
	// Peek or with the socket. Its error is one of Fill's. A guard does not count.
	AwaitBytes() error
	// ReadPipe moves what is with the socket into p, which is empty. It does not
	// wait.
	//
	//	n, nil             p holds n bytes
	//	0, nil             nothing is there, or bytes are in Peek, or on their way
	//	                   to it, and come first: AwaitBytes tells
	//	0, io.EOF          as of Read
	//	0, ErrNoSplice     nothing is lost: use Read
	ReadPipe(p *Pipe) (int, error)
	// WritePipe waits, within the write deadline, until some of what p holds is
	// with the socket, behind what was written, and returns how much. Once it
	// has failed, sending fails for good.
	WritePipe(p *Pipe) (int, error)
}

// Pipe is memory of the kernel that holds bytes between two connections of a
// worker.
type Pipe struct {
	r, w int
	held int // moved in, and not yet out

	// What drain found (netpoll). It runs without the baton.
	drain func(fd uintptr) bool // drainTo, bound once
	n     int
	err   error
}

// Held is how many bytes are in the pipe.
func (p *Pipe) Held() int { return p.held }

// pipes are those of one worker.
type pipes struct{ free []*Pipe }

// take lends an empty pipe.
func (ps *pipes) take(counters *Counters) (*Pipe, error) {
	if counters.Pipes.Load() == pipesMax {
		return nil, errPipes
	}
	var p *Pipe
	if n := len(ps.free); n > 0 {
		p = ps.free[n-1]
		ps.free = ps.free[:n-1]
	} else {
		var err error
		if p, err = openPipe(); err != nil {
			return nil, err
		}
	}
	counters.Pipes.Add(1)
	return p, nil
}

// put takes a pipe back. One that may hold a byte is closed: the next connection
// that uses it would send what is another client's.
func (ps *pipes) put(p *Pipe, counters *Counters) {
	counters.Pipes.Add(-1)
	if p.held != 0 || len(ps.free) == pipesKept || !p.empty() {
		p.close()
		return
	}
	ps.free = append(ps.free, p)
}

// close closes those that nobody uses.
func (ps *pipes) close() {
	for _, p := range ps.free {
		p.close()
	}
	ps.free = nil
}
