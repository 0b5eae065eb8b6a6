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

// Address is the memory of one Connect: a socket address. It must live on the
// heap.
type Address struct {
	raw  unix.RawSockaddrAny
	size uint32
}

// Set makes a the address of an IP and port.
func (a *Address) Set(to netip.AddrPort) {
	// sin_port and sin6_port are in network byte order.
	port := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, to.Port()))
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
