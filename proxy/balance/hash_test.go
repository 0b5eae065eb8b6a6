package balance

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// The vectors are those of github.com/cespare/xxhash.
func TestXXH64(t *testing.T) {
	for _, row := range []struct {
		text string
		want uint64
	}{
		{"", 0xef46db3751d8e999},
		{"a", 0xd24ec4f1a98c6e5b},
		{"as", 0x1c330fb2d66be179},
		{"asd", 0x631c37ce72a97393},
		{"asdf", 0x415872f599cea71e},
		{"0123456789abcdef", 0x5c5b90c34e376d0b},
		{"0123456789abcdef0123456789abcdef", 0x642a94958e71e6c5},
		{"Call me Ishmael. Some years ago--never mind how long precisely-", 0x02a2e85470d6fd96},
		{"The quick brown fox jumps over the lazy dog http://i.imgur.com/VHQXScB.gif", 0x93267f9820452ead},
	} {
		t.Run(row.text, func(t *testing.T) {
			assert.Equal(t, row.want, xxh64([]byte(row.text)))
		})
	}
}

// Each bit of what goes in changes half of what comes out.
func TestMix(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const rounds = 2000
	for bit := range 64 {
		changed := 0
		for range rounds {
			h := rng.Uint64()
			changed += bits.OnesCount64(mix(h) ^ mix(h^1<<bit))
		}
		assert.InEpsilon(t, 32, float64(changed)/rounds, 0.05, "bit %d", bit)
	}
}

func TestKey(t *testing.T) {
	assert.Zero(t, Key(nil))
	assert.Zero(t, Key([]byte("")))
	assert.Equal(t, uint64(0xd24ec4f1a98c6e5b), Key([]byte("a")))
}

func TestClientKey(t *testing.T) {
	for _, row := range []struct {
		name, a, b string
		same       bool
	}{
		{"one client", "192.0.2.1", "192.0.2.1", true},
		{"two in one /24", "192.0.2.1", "192.0.2.2", false},
		{"written as IPv6", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"two of those", "::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
		{"two of one /64", "2001:db8:1:2::1", "2001:db8:1:2:aaaa:bbbb:cccc:dddd", true},
		{"of two /64", "2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"the zone does not count", "fe80::1%eth0", "fe80::1", true},
		{"the loopback addresses", "127.0.0.1", "::1", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, b := ClientKey(netip.MustParseAddr(row.a)), ClientKey(netip.MustParseAddr(row.b))
			assert.Equal(t, row.same, a == b)
			assert.NotZero(t, a)
		})
	}
	assert.Zero(t, ClientKey(netip.Addr{}))
}

// Addresses that differ little are spread as well as any.
func TestClientKeySpreads(t *testing.T) {
	const buckets = 16
	for name, address := range map[string]func(i uint32) netip.Addr{
		"one network": func(i uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		},
		"one byte, high": func(i uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), 0, 1})
		},
		"networks of one provider": func(i uint32) netip.Addr {
			b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
			binary.BigEndian.PutUint32(b[4:], i)
			return netip.AddrFrom16(b)
		},
	} {
		counts := make([]int, buckets)
		for i := range uint32(1 << 16) {
			counts[ClientKey(address(i))>>60]++
		}
		for bucket, n := range counts {
			assert.InEpsilon(t, 1<<16/buckets, n, 0.06, "%s, bucket %d", name, bucket)
		}
	}
}

func TestAllocsKey(t *testing.T) {
	value := []byte(strings.Repeat("session", 9))
	client := netip.MustParseAddr("2001:db8::1")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		Key(value)
		ClientKey(client)
	}))
}

func BenchmarkKey(b *testing.B) {
	for _, n := range []int{4, 8, 16, 36, 64, 256} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			value := make([]byte, n)
			b.ReportAllocs()
			for b.Loop() {
				Key(value)
			}
		})
	}
}
