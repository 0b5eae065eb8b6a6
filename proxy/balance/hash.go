package balance

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Key is the key of a request by a value of it, such as a header field's; 0 if
// the value is empty, and only then.
//
// It is XXH64 with seed 0, as the xxHash repository specifies it and Envoy uses
// it: fast on short values, well mixed, and the same in every process, version
// and machine, so that several Atlas before the same upstreams agree. Whoever
// knows it can find values that all go to one upstream; but who may choose the
// value can as well send the same one always.
func Key(value []byte) uint64 {
	if len(value) == 0 {
		return 0
	}
	return max(xxh64(value), 1)
}

// ClientKey is the key of a request by its client's address without the port,
// or 0 if there is none, as with a Unix socket.
//
// Of IPv6 only the first 64 bits count: a client changes the others at least
// daily (RFC 8981 section 3.8) and may use several at once, while a network is no
// smaller than a /64 (RFC 7421). IPv4 counts as a whole, also where it is written
// as IPv6; nginx's ip_hash leaves the last byte out, which puts all of an office,
// or of a lab, on one upstream.
func ClientKey(client netip.Addr) uint64 {
	client = client.Unmap()
	if client.Is4() {
		address := client.As4()
		return Key(address[:])
	}
	if !client.IsValid() {
		return 0
	}
	address := client.As16()
	return Key(address[:8])
}

// The primes of XXH64.
const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5
)

func xxh64(b []byte) uint64 {
	h := prime5
	length := uint64(len(b))
	if len(b) >= 32 {
		h, b = xxh64Lanes(b)
	}
	h += length
	for len(b) >= 8 {
		h ^= xxh64Round(0, binary.LittleEndian.Uint64(b))
		h = bits.RotateLeft64(h, 27)*prime1 + prime4
		b = b[8:]
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * prime1
		h = bits.RotateLeft64(h, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h ^= uint64(c) * prime5
		h = bits.RotateLeft64(h, 11) * prime1
	}
	return mix(h)
}

// xxh64Lanes takes in b by stripes of 32 bytes, in four lanes, and returns what
// is left of it.
func xxh64Lanes(b []byte) (h uint64, rest []byte) {
	one := prime1
	lanes := [4]uint64{one + prime2, prime2, 0, -one}
	for ; len(b) >= 32; b = b[32:] {
		for i := range lanes {
			lanes[i] = xxh64Round(lanes[i], binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	for i, turn := range [4]int{1, 7, 12, 18} {
		h += bits.RotateLeft64(lanes[i], turn)
	}
	for _, lane := range lanes {
		h = (h^xxh64Round(0, lane))*prime1 + prime4
	}
	return h, b
}

func xxh64Round(lane, input uint64) uint64 {
	return bits.RotateLeft64(lane+input*prime2, 31) * prime1
}

// mix is the end of XXH64: every bit of h changes about half of the bits of the
// result, and no two h have the same.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= prime2
	h ^= h >> 29
	h *= prime3
	return h ^ h>>32
}
