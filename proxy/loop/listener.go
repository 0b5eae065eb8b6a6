package loop

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Listener is a listening socket. It belongs to the process, not to a worker
// (rule R9): a socket of a live SO_REUSEPORT group that is closed resets the
// connections in its queue, so only the process, at its end, closes it.
type Listener struct {
	addr net.Addr
	tcp  *net.TCPListener // nil once detached
	fd   int              // the duplicate that the ring accepts from
}

// keepAliveIdle is after how much silence TCP asks whether the peer is alive.
const keepAliveIdle = 15 * time.Second

// ListenTCP opens a socket with SO_REUSEPORT, so that each worker can have one
// of its own on the same address. The backlog is the system's (somaxconn).
func ListenTCP(address string) (*Listener, error) {
	lc := net.ListenConfig{
		Control:         prepareListener,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveIdle},
	}
	ln, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Listener{addr: ln.Addr(), tcp: ln.(*net.TCPListener), fd: -1}, nil
}

// prepareListener sets what accepted sockets inherit on Linux, which saves a
// system call or two for each, and SO_REUSEPORT.
func prepareListener(_, _ string, raw syscall.RawConn) error {
	var err error
	if controlErr := raw.Control(func(fd uintptr) { err = setListenerOptions(int(fd)) }); controlErr != nil {
		return controlErr
	}
	return err
}

// Addr is the address that the socket is bound to, with the port that the
// system chose where 0 was asked for.
func (ln *Listener) Addr() net.Addr { return ln.addr }

// detach takes the socket out of Go's poller for the ring and returns its
// descriptor: the poller would wake a thread for every connection that arrives.
func (ln *Listener) detach() (int, error) {
	if ln.tcp == nil {
		return ln.fd, nil
	}
	raw, err := ln.tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	if controlErr := raw.Control(func(fd uintptr) { ln.fd, err = duplicate(fd) }); controlErr != nil {
		return 0, controlErr
	}
	if err != nil {
		return 0, fmt.Errorf("listen %s: duplicate: %w", ln.addr, err)
	}
	tcp := ln.tcp
	ln.tcp = nil
	return ln.fd, tcp.Close() // the duplicate keeps the socket open
}

// Close closes the socket. No worker may be accepting from it any more.
func (ln *Listener) Close() error {
	if ln.tcp != nil {
		return ln.tcp.Close()
	}
	return closeDescriptor(ln.fd)
}
