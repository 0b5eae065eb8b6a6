package uring

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SegmentsMax is the most segments one Message carries: a few responses of
// head and body. More would only help deep pipelines, which flush in turns.
const SegmentsMax = 16

// Message is the memory of one SendMessage: the header and its segments. It
// keeps the segments' memory reachable. It must live on the heap.
type Message struct {
	header   unix.Msghdr
	segments [SegmentsMax]unix.Iovec
	first    int
	count    int
}

// Reset drops all segments.
func (m *Message) Reset() {
	clear(m.segments[:m.count])
	m.first, m.count = 0, 0
}

// Segments is the number of segments left to send.
func (m *Message) Segments() int { return m.count - m.first }

// Full reports whether Append has no room.
func (m *Message) Full() bool { return m.count == SegmentsMax }

// Append adds p as the last segment. The caller checked Full.
func (m *Message) Append(p []byte) {
	seg := &m.segments[m.count]
	seg.Base = unsafe.SliceData(p) // a pointer the garbage collector follows
	seg.SetLen(len(p))
	m.count++
}

// Extend makes the last segment n bytes longer: the caller wrote behind the
// bytes that Append named, in the same allocation.
func (m *Message) Extend(n int) {
	seg := &m.segments[m.count-1]
	seg.SetLen(int(seg.Len) + n)
}

// First is the first segment left to send.
func (m *Message) First() []byte {
	seg := &m.segments[m.first]
	// Base and Len came from one slice (Append, Extend) and only ever shrank
	// together (Advance).
	return unsafe.Slice(seg.Base, int(seg.Len))
}

// Advance drops the first n bytes, which were sent.
func (m *Message) Advance(n int) {
	for n > 0 && m.first < m.count {
		seg := &m.segments[m.first]
		if n < int(seg.Len) {
			rest := unsafe.Slice(seg.Base, int(seg.Len))[n:]
			seg.Base = unsafe.SliceData(rest)
			seg.SetLen(len(rest))
			return
		}
		n -= int(seg.Len)
		m.first++
	}
}

// Address is the memory of one Connect, or of one answer to who a socket's ends
// are: a socket address. For Connect it must live on the heap.
type Address struct {
	raw  unix.RawSockaddrAny
	size uint32
}

// Set makes a the address of an IP and port.
func (a *Address) Set(to netip.AddrPort) {
	port := hostOrder(to.Port()) // to network byte order
	if ip := to.Addr(); ip.Is4() || ip.Is4In6() {
		// RawSockaddrAny is at least as large and as aligned as every
		// RawSockaddr type: it exists to be viewed as one of them.
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		*in = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: ip.As4()}
		a.size = uint32(unsafe.Sizeof(*in))
		return
	}
	in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
	*in = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: to.Addr().As16()}
	a.size = uint32(unsafe.Sizeof(*in))
}

// SetUnix makes a the address of a Unix socket.
func (a *Address) SetUnix(path string) error {
	un := (*unix.RawSockaddrUnix)(unsafe.Pointer(&a.raw))
	*un = unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	if len(path) == 0 || len(path) >= len(un.Path) {
		return fmt.Errorf("unix socket path of %d bytes: want 1 to %d", len(path), len(un.Path)-1)
	}
	for i := range len(path) {
		un.Path[i] = int8(path[i])
	}
	a.size = uint32(unsafe.Offsetof(un.Path)) + uint32(len(path)) + 1
	return nil
}

// SetLocal makes a the address of a socket's own end.
func (a *Address) SetLocal(fd int) error { return a.ask(unix.SYS_GETSOCKNAME, fd) }

// SetPeer makes a the address of a socket's other end.
func (a *Address) SetPeer(fd int) error { return a.ask(unix.SYS_GETPEERNAME, fd) }

// ask is what unix.Getpeername does, which allocates 172 bytes for each answer.
func (a *Address) ask(call uintptr, fd int) error {
	a.size = uint32(unsafe.Sizeof(a.raw))
	// The kernel writes into a, and is done with it when the call returns.
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.size)))
	if errno != 0 {
		return errno
	}
	return nil
}

// AddrPort is the IP and port; it is invalid for the address of another family.
func (a *Address) AddrPort() netip.AddrPort {
	switch a.raw.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw)) // see Set
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), hostOrder(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom16(in.Addr).Unmap(), hostOrder(in.Port))
	}
	return netip.AddrPort{}
}

// hostOrder is a port that is in network byte order. The other way is the same.
func hostOrder(port uint16) uint16 {
	return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, port))
}
