package loop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Listener is a listening socket. It belongs to the process, not to a worker
// (rule R9): a socket of a live SO_REUSEPORT group that is closed resets the
// connections in its queue. So a group is closed as a whole, either at the end of
// the process or some time after all of it was told to Refuse.
type Listener struct {
	addr  net.Addr
	tcp   *net.TCPListener // nil once detached
	fd    int              // the duplicate that the ring accepts from
	share *share           // who accepts from it, and from those of its group
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
	// Go would open a socket of MPTCP: every SYN goes a longer way there, and the
	// kernel refuses it some options, as the filter of SO_ATTACH_FILTER.
	lc.SetMultipathTCP(false)
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
	return &Listener{addr: ln.Addr(), tcp: tcp, fd: -1, share: new(share)}, nil
}

// Network is what to listen on for an address: an IPv4 one means IPv4 only, also
// "0.0.0.0", which package net would take for every address of both families.
func Network(address string) string {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// Ready prepares the socket for an engine, which may fail: Listen does not, after
// that.
func (ln *Listener) Ready(e Engine) error {
	if e != IOUring {
		return nil
	}
	_, err := ln.detach()
	return err
}

// backlogDefault is what SetBacklog takes for 0; the kernel cuts it down to
// somaxconn, which mostly is the same.
const backlogDefault = 4096

// SetBacklog changes the bound of the connections that wait to be accepted.
func (ln *Listener) SetBacklog(backlog int) error {
	if backlog == 0 {
		backlog = backlogDefault
	}
	return ln.control(func(fd int) error { return syscall.Listen(fd, backlog) })
}

// Refuse has no connection begin any more. Those that have begun complete, and
// are there to be accepted. Where the system cannot do that, nothing happens.
func (ln *Listener) Refuse() error { return ln.control(refuseNew) }

// control runs f on the descriptor.
func (ln *Listener) control(f func(fd int) error) error {
	if ln.tcp == nil {
		return f(ln.fd)
	}
	raw, err := ln.tcp.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, f)
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

// Adopt makes a Listener of a socket that somebody else opened: the process before
// this one, or the one that started it. f stays the caller's. backlog as in
// ListenTCP; 0 leaves the socket's.
func Adopt(f *os.File, backlog int) (*Listener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	// What does not listen would look like one that nobody connects to.
	if err := control(raw, checkListens); err != nil {
		return nil, err
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no TCP socket", ln.Addr()), ln.Close())
	}
	adopted := &Listener{addr: ln.Addr(), tcp: tcp, fd: -1, share: new(share)}
	err = adopted.control(setInherited)
	if err == nil && backlog > 0 {
		err = setBacklog(tcp, backlog)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("adopt %s: %w", ln.Addr(), err), tcp.Close())
	}
	return adopted, nil
}

// File duplicates the socket, to be handed to another process. The caller closes
// it.
func (ln *Listener) File() (f *os.File, err error) {
	err = ln.control(func(fd int) error {
		duplicated, err := duplicate(fd)
		if err == nil {
			f = os.NewFile(uintptr(duplicated), ln.addr.String())
		}
		return err
	})
	return f, err
}

// Joins reports that sockets of ListenTCP may be opened beside this one, on its
// address: one that was adopted need not be of that kind.
func (ln *Listener) Joins() (joins bool) {
	err := ln.control(func(fd int) (err error) {
		joins, err = reusesPort(fd)
		return err
	})
	return err == nil && joins
}

// ShareWith has those who accept from ln, and from other, even out how many
// connections they have, as far as they have the same Gate: who has more than its
// part hands what it accepts to the one that has fewest, which serves it with the
// handler that it listens with itself. Those who accept from one listener do so
// anyway. It is called before anybody accepts from ln.
func (ln *Listener) ShareWith(other *Listener) { ln.share = other.share }

// Close closes the socket. No worker may be accepting from it any more: see
// Unlisten.
func (ln *Listener) Close() error {
	if ln.tcp != nil {
		return ln.tcp.Close()
	}
	return closeDescriptor(ln.fd)
}
