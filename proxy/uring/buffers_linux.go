package uring

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	abi "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
)

// bufferGroup is the id of the ring's one group of provided buffers.
const bufferGroup = 0

// Buffers is the ring's pool of receive buffers: the kernel takes the oldest
// for each receive, Put gives it back. All live in one mapping outside the Go
// heap, so the garbage collector neither scans nor moves them.
type Buffers struct {
	ringMap []byte
	entries []bufEntry
	arena   []byte
	size    int
	mask    uint16
	tail    uint16
	dirty   bool
	free    int // buffers the kernel can take
}

// ProvideBuffers registers count buffers (a power of two, at most 32,768) of
// size bytes each. A ring has one such pool.
func (r *Ring) ProvideBuffers(count, size int) (*Buffers, error) {
	if count <= 0 || count > 1<<15 || count&(count-1) != 0 || size <= 0 || r.buffers != nil {
		return nil, fmt.Errorf("uring: provide %d buffers of %d bytes: want one pool, a power of two up to %d",
			count, size, 1<<15)
	}
	b := &Buffers{size: size, mask: uint16(count - 1)}
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	var err error
	if b.ringMap, err = unix.Mmap(-1, 0, count*int(unsafe.Sizeof(bufEntry{})), prot, flags); err != nil {
		return nil, fmt.Errorf("uring: map buffer ring: %w", err)
	}
	if b.arena, err = unix.Mmap(-1, 0, count*size, prot, flags); err != nil {
		_ = unix.Munmap(b.ringMap) // the first error is the one to tell
		return nil, fmt.Errorf("uring: map buffers: %w", err)
	}
	// The mapping is page-aligned and count entries long.
	b.entries = unsafe.Slice((*bufEntry)(unsafe.Pointer(&b.ringMap[0])), count)
	reg := bufReg{ringAddr: address(b.ringMap), entries: uint32(count), group: bufferGroup}
	if err := abi.IOURingRegister(r.fd, registerPbufRing, unsafe.Pointer(&reg), 1); err != nil {
		_ = b.unmap()
		return nil, fmt.Errorf("uring: register buffer ring: %w", err)
	}
	r.buffers = b
	for id := range count {
		b.put(uint16(id))
	}
	return b, nil
}

// Take is the n bytes that a receive left in buffer id. They are the caller's
// until Put.
func (b *Buffers) Take(id uint16, n int) []byte {
	invariant.That(n <= b.size, "receive longer than its buffer")
	b.free--
	off := int(id) * b.size
	return b.arena[off : off+n : off+b.size]
}

// Put gives buffer id back; the kernel sees it at the next enter. Under
// invariants its bytes are overwritten, so that a slice used too long shows.
func (b *Buffers) Put(id uint16) {
	if invariant.Enabled {
		off := int(id) * b.size
		for i := range b.arena[off : off+b.size] {
			b.arena[off+i] = 0xdd
		}
	}
	b.put(id)
}

func (b *Buffers) put(id uint16) {
	e := &b.entries[b.tail&b.mask]
	e.addr = address(b.arena) + uint64(id)*uint64(b.size)
	e.len = uint32(b.size)
	e.bid = id
	b.tail++
	b.free++
	b.dirty = true
}

// Free is the number of buffers that the kernel can take.
func (b *Buffers) Free() int { return b.free }

// Size is the size of one buffer in bytes.
func (b *Buffers) Size() int { return b.size }

// publish shows the kernel the new tail. The tail is the 16-bit resv field of
// entry 0, behind its 16-bit bid. Go has no 16-bit atomics, so both are stored
// as one aligned 32-bit word (offset 12 of 16): the bid is written back as it
// stands, which only we ever write. The store releases the entries before it.
func (b *Buffers) publish() {
	if !b.dirty {
		return
	}
	b.dirty = false
	pair := (*uint32)(unsafe.Pointer(&b.entries[0].bid))
	var word [4]byte
	binary.NativeEndian.PutUint16(word[0:], b.entries[0].bid)
	binary.NativeEndian.PutUint16(word[2:], b.tail)
	atomic.StoreUint32(pair, binary.NativeEndian.Uint32(word[:]))
}

func (b *Buffers) unmap() error {
	err := unix.Munmap(b.ringMap)
	if e := unix.Munmap(b.arena); err == nil {
		err = e
	}
	b.entries, b.ringMap, b.arena = nil, nil, nil
	return err
}
