package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
// of its own on the same address. backlog bounds the connections that wait to be
// accepted; 0 leaves it to the system (somaxconn).
func ListenTCP(address string, backlog int) (*Listener, error) {
	lc := net.ListenConfig{
		Control:         func(_, _ string, raw syscall.RawConn) error { return control(raw, setListenerOptions) },
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveIdle},
	}
	ln, err := lc.Listen(context.Background(), Network(address), address)
	if err != nil {
		return nil, err
	}
	tcp := ln.(*net.TCPListener)
	if backlog > 0 {
		if err := setBacklog(tcp, backlog); err != nil {
			return nil, errors.Join(fmt.Errorf("listen %s: backlog %d: %w", address, backlog, err), tcp.Close())
		}
	}
	return &Listener{addr: ln.Addr(), tcp: tcp, fd: -1}, nil
}

// Network is what to listen on for an address: an IPv4 one means IPv4 only, also
// "0.0.0.0", which package net would take for every address of both families.
func Network(address string) string {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// setBacklog listens once more, which only changes the length of the queue:
// package net knows no other than the system's.
func setBacklog(tcp *net.TCPListener, backlog int) error {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd int) error { return syscall.Listen(fd, backlog) })
}

// control runs f on the descriptor.
func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if controlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); controlErr != nil {
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
	err = control(raw, func(fd int) (err error) {
		ln.fd, err = duplicate(fd)
		return err
	})
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
