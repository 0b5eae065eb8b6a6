package loop

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
)

// openPipe makes a pipe of the best size that is allowed.
func openPipe() (*Pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	p := &Pipe{r: fds[0], w: fds[1]}
	p.drain = p.drainTo
	if _, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeBytes); err != nil {
		size, sizeErr := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
		if sizeErr != nil || size < pipeBytesMin {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func (p *Pipe) close() {
	err := errors.Join(unix.Close(p.r), unix.Close(p.w))
	invariant.That(err == nil, "a pipe was closed twice")
}

// empty asks the kernel, which is the last word on what a count says already.
func (p *Pipe) empty() bool {
	n, err := unix.IoctlGetInt(p.r, unix.TIOCINQ) // FIONREAD
	invariant.That(n == p.held, "a pipe holds what was not counted")
	return err == nil && n == 0
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// moveIn moves what the socket has into the pipe. Like every call of ours it
// blocks on neither.
func (p *Pipe) moveIn(fd int) (int, error) {
	n, err := splice(fd, p.w, spliceBytes)
	switch err {
	case nil:
		if n == 0 {
			return 0, io.EOF
		}
		p.held += n
	case unix.EINVAL, unix.ENOSYS, unix.EPERM: // no such socket, system call, or permission
		err = ErrNoSplice
	}
	return n, err
}

// moveOut moves what the pipe holds to the socket.
func (p *Pipe) moveOut(fd int) (int, error) {
	invariant.That(p.held > 0, "nothing to move out of a pipe")
	n, err := splice(p.r, fd, p.held)
	if err == nil && n == 0 {
		err = unix.EPIPE // it has bytes, and a socket that takes none takes none any more
	}
	p.held -= n
	return n, err
}

// splice does not tell Go's scheduler that it may take a while, which is less than
// a millisecond: its monitor would take the processor away each time, and give it
// back, for a fifth of the cost of the whole (proxy/design/0004).
func splice(from, to, size int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size), spliceFlags)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// drainTo is moveOut for Go's poller: false asks to be called again.
func (p *Pipe) drainTo(fd uintptr) bool {
	p.n, p.err = p.moveOut(int(fd))
	return p.err != unix.EAGAIN
}
