package main

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"atlas/proxy/uring"
)

// Sizes of the ring: those of a worker of Atlas.
const (
	entries     = 512
	completions = 4096
	bufferCount = 512
	bufferBytes = 4 << 10
)

// op is what a completion is of; it is in the lower bits of its userData, and
// the number of the socket above them.
type op uint64

const (
	opAccept op = iota
	opConnect
	opReceive
	opSend
	opBits = 2
)

// floor is the one loop.
type floor struct {
	ring     *uring.Ring
	buffers  *uring.Buffers
	listener int
	upstream *uring.Address // nil: everything is answered
	family   int            // of upstream
	answer   []byte
	sockets  []*socket // by number; nil where it is free
	free     []int
	starved  []*socket // that could not receive for want of buffers
}

// serve accepts from listener and answers, or relays to an address that is valid.
func serve(listener *net.TCPListener, upstream netip.AddrPort, answer []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	file, err := listener.File() // a descriptor of our own; it stays open with the process
	if err != nil {
		return err
	}
	f := &floor{listener: int(file.Fd()), answer: answer}
	// What is accepted inherits it; no message waits for another.
	if err := unix.SetsockoptInt(f.listener, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("TCP_NODELAY: %w", err)
	}
	if upstream.IsValid() {
		f.upstream = new(uring.Address)
		f.upstream.Set(upstream)
		f.family = unix.AF_INET
		if upstream.Addr().Is6() && !upstream.Addr().Is4In6() {
			f.family = unix.AF_INET6
		}
	}
	if f.ring, err = uring.Open(uring.Config{Entries: entries, Completions: completions}); err != nil {
		return err
	}
	if f.buffers, err = f.ring.ProvideBuffers(bufferCount, bufferBytes); err != nil {
		return err
	}
	f.ring.AcceptMultishot(f.listener, uint64(opAccept))
	for {
		if err := f.ring.Wait(-1); err != nil {
			return err
		}
		for c, ok := f.ring.Next(); ok; c, ok = f.ring.Next() {
			if err := f.complete(c); err != nil {
				return err
			}
		}
		f.feed()
	}
}

// complete takes one completion. Only what concerns every connection is an error.
func (f *floor) complete(c uring.Completion) error {
	which := op(c.UserData) & (1<<opBits - 1)
	if which == opAccept {
		return f.accepted(c)
	}
	s := f.sockets[c.UserData>>opBits]
	switch which {
	case opConnect:
		s.busy = false
		if c.Result < 0 {
			s.fail()
			break
		}
		f.receive(s)
		f.receive(s.to)
	case opReceive:
		s.receiving = c.More()
		f.received(s, c)
	case opSend:
		s.busy = false
		f.sent(s, int(c.Result))
	}
	f.settle(s)
	return nil
}

func (f *floor) accepted(c uring.Completion) error {
	if !c.More() {
		f.ring.AcceptMultishot(f.listener, uint64(opAccept))
	}
	if c.Result < 0 {
		return fmt.Errorf("accept: %w", unix.Errno(-c.Result))
	}
	client := f.add(int(c.Result))
	if f.upstream == nil {
		f.receive(client)
		return nil
	}
	fd, err := unix.Socket(f.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("TCP_NODELAY: %w", err)
	}
	other := f.add(fd)
	client.to, other.to = other, client
	other.busy = true
	f.ring.Connect(fd, f.upstream, other.userData(opConnect))
	return nil
}

// add gives a descriptor a number.
func (f *floor) add(fd int) *socket {
	s := &socket{fd: fd, number: len(f.sockets)}
	if n := len(f.free); n > 0 {
		s.number = f.free[n-1]
		f.free = f.free[:n-1]
		f.sockets[s.number] = s
		return s
	}
	f.sockets = append(f.sockets, s)
	return s
}

func (f *floor) receive(s *socket) {
	s.receiving = true
	f.ring.RecvMultishot(s.fd, s.userData(opReceive))
}

// feed lets those receive again that had no buffer, once there are some.
func (f *floor) feed() {
	for len(f.starved) > 0 && f.buffers.Free() > len(f.starved) {
		s := f.starved[len(f.starved)-1]
		f.starved = f.starved[:len(f.starved)-1]
		if !s.closed && !s.receiving {
			f.receive(s)
		}
	}
}

// settle closes a socket, or a pair, with which nothing is to be done any more:
// first the kernel's operations end, then the descriptors.
func (f *floor) settle(s *socket) {
	all := []*socket{s, s.to}[:1]
	if s.to != nil {
		all = all[:2]
	}
	for _, one := range all {
		if !s.done() {
			return
		}
		if !one.shut {
			one.shut = true
			_ = unix.Shutdown(one.fd, unix.SHUT_RDWR) // it may have ended by itself
		}
	}
	for _, one := range all {
		if one.receiving || one.busy {
			return
		}
	}
	for _, one := range all {
		for _, c := range one.queue {
			f.buffers.Put(c.id)
		}
		one.queue, one.closed = nil, true
		_ = unix.Close(one.fd) // nothing is buffered: there is nothing to lose
		f.sockets[one.number] = nil
		f.free = append(f.free, one.number)
	}
}
