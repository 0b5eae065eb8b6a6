package limit_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"golang.org/x/time/rate"

	"atlas/proxy/limit"
)

func TestClient(t *testing.T) {
	for _, row := range []struct{ name, address, client string }{
		{"IPv4", "192.0.2.7", "192.0.2.7"},
		{"IPv4 in IPv6", "::ffff:192.0.2.7", "192.0.2.7"},
		{"IPv6: its network", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"another network", "2001:db8:1:3:3:4:5:6", "2001:db8:1:3::"},
		{"a zone", "fe80::1%eth0", "fe80::"},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, netip.MustParseAddr(row.client), limit.Client(netip.MustParseAddr(row.address)))
		})
	}
	assert.Equal(t, netip.Addr{}, limit.Client(netip.Addr{}))
}

// compare asks a bucket and the one of golang.org/x/time/rate the same, at times
// that are steps apart. They keep their accounts in different ways, so within a
// millionth of a token they may differ.
func compare(t *testing.T, perSecond, burst int, steps []time.Duration) {
	t.Helper()
	const nearly = 1e-6
	ours := limit.NewRate(perSecond, burst)
	key := ours.Address(netip.MustParseAddr("192.0.2.7"))
	oracle := rate.NewLimiter(rate.Limit(perSecond), burst)
	begin := time.Unix(1e9, 0)
	var since time.Duration
	for i, step := range steps {
		since += step
		now := begin.Add(since)
		tokens := oracle.TokensAt(now)
		if exact := perSecond <= 1000; !exact || tokens > 1-nearly && tokens < 1+nearly {
			return // from here on they may have different accounts
		}
		wait := ours.Take(key, int64(since)+1)
		if tokens >= 1 {
			oracle.AllowN(now, 1)
			assert.Zero(t, wait, "request %d at %v: there are %v tokens", i, since, tokens)
			continue
		}
		want := time.Duration((1 - tokens) / float64(perSecond) * float64(time.Second))
		assert.InDelta(t, want, wait, float64(time.Microsecond), "request %d at %v: there are %v tokens", i, since, tokens)
	}
}

func TestRateIsATokenBucket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		perSecond, burst := 1+random.IntN(1000), 1+random.IntN(100)
		mean := float64(time.Second) / float64(perSecond)
		var steps []time.Duration
		for range 300 {
			steps = append(steps, time.Duration(random.ExpFloat64()*mean*random.ExpFloat64()))
		}
		compare(t, perSecond, burst, steps)
	}
}

func FuzzRate(f *testing.F) {
	f.Add(uint16(10), uint8(3), []byte("\x00\x00\x00\x00\x00\xff\x00\x10"))
	f.Fuzz(func(t *testing.T, perSecond uint16, burst uint8, text []byte) {
		var steps []time.Duration
		for ; len(text) >= 4; text = text[4:] {
			steps = append(steps, time.Duration(binary.LittleEndian.Uint32(text)))
		}
		compare(t, 1+int(perSecond)%1000, 1+int(burst), steps)
	})
}

// An answer of how long to wait is true: a little sooner there is nothing yet, and
// then there is.
func TestWaitIsTrue(t *testing.T) {
	r := limit.NewRate(3, 2)
	key := r.Address(netip.MustParseAddr("192.0.2.7"))
	now := int64(time.Hour)
	for range 100 {
		wait := r.Take(key, now)
		if wait == 0 {
			continue
		}
		assert.NotZero(t, r.Take(key, now+int64(wait)-1))
		now += int64(wait)
		assert.Zero(t, r.Take(key, now))
	}
}

func TestRateIsChanged(t *testing.T) {
	r := limit.NewRate(1, 100)
	key := r.Address(netip.MustParseAddr("192.0.2.7"))
	for range 100 {
		assert.Zero(t, r.Take(key, 1))
	}
	assert.NotZero(t, r.Take(key, 1))
	r.Set(10, 5) // the debt is that of an empty bucket of the new kind
	assert.Equal(t, 100*time.Millisecond, r.Take(key, 1))
	assert.Zero(t, r.Take(key, int64(100*time.Millisecond)+1))
	r.Set(1000, 1000)
	now := int64(10 * time.Second)
	for range 1000 {
		assert.Zero(t, r.Take(key, now))
	}
	assert.NotZero(t, r.Take(key, now))
}

func TestKeysDiffer(t *testing.T) {
	r := limit.NewRate(1, 1)
	a := r.Address(netip.MustParseAddr("2001:db8::1"))
	assert.Equal(t, a, r.Address(netip.MustParseAddr("2001:db8::2")), "the same /64")
	assert.NotEqual(t, a, r.Address(netip.MustParseAddr("2001:db8:0:1::1")))
	bytes := netip.MustParseAddr("2001:db8::").As16()
	assert.NotEqual(t, a, r.Text(bytes[:]), "a field's value is no address")
	assert.NotEqual(t, a, limit.NewRate(1, 1).Address(netip.MustParseAddr("2001:db8::1")), "the seed is secret")
}

// All workers together let nobody have more than there is, while others push
// clients out and in.
func TestWorkersShareBuckets(t *testing.T) {
	const workers, each, burst = 8, 2000, 50
	r := limit.NewRate(1, burst)
	var admitted atomic.Int64
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			key := r.Address(netip.MustParseAddr("192.0.2.7"))
			for range each {
				if r.Take(key, 1) == 0 {
					admitted.Add(1)
				}
			}
		})
	}
	all.Wait()
	assert.EqualValues(t, burst, admitted.Load())
}

// A worker whose clock is behind takes nothing back of what one that is ahead has
// taken.
func TestClocksDiffer(t *testing.T) {
	r := limit.NewRate(1000, 10)
	key := r.Address(netip.MustParseAddr("192.0.2.7"))
	const ahead, behind = int64(time.Hour), int64(time.Hour - 5*time.Millisecond)
	admitted := 0
	for range 1000 {
		for _, now := range []int64{ahead, behind} {
			if r.Take(key, now) == 0 {
				admitted++
			}
		}
	}
	assert.Equal(t, 10, admitted)
}

// A million addresses leave the memory as it is. Those whose buckets are full are
// forgotten first: a client that asks for more than it may is not, as long as
// others ask for less.
func TestAMillionClients(t *testing.T) {
	clients, each := uint32(500_000), 20*time.Microsecond
	if testing.Short() {
		clients = 50_000
	}
	r := limit.NewRate(1, 10)
	greedy := r.Address(netip.MustParseAddr("192.0.2.7"))
	now, admitted := int64(1), 0
	address := func(n uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 10<<24+n)
		return netip.AddrFrom4(b)
	}
	allocs := testing.AllocsPerRun(1, func() {
		for n := range clients {
			if r.Take(r.Address(address(n)), now) != 0 { // an assertion here would take ten times as long
				t.Fatalf("client %d is refused", n)
			}
			if r.Take(greedy, now) == 0 {
				admitted++
			}
			now += int64(each) // 50,000 new clients a second
		}
	})
	assert.Less(t, allocs, 100.0, "not one for each of half a million; the runtime has a few of its own in the meantime")
	seconds := int(2 * time.Duration(clients) * each / time.Second) // AllocsPerRun has run it once before
	assert.LessOrEqual(t, admitted, 2*10+2*seconds+2, "ten at once and one a second")
}

func TestPeers(t *testing.T) {
	p := limit.NewPeers(2)
	a, b := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::1")
	first, second := p.Enter(a), p.Enter(netip.AddrFrom16(a.As16()))
	assert.True(t, first != nil && second != nil)
	assert.Nil(t, p.Enter(a))
	other := p.Enter(b)
	assert.NotNil(t, other)
	assert.Equal(t, 2, p.Len())
	first.Gone()
	first = p.Enter(a)
	assert.NotNil(t, first)
	p.Set(1)
	assert.Nil(t, p.Enter(netip.MustParseAddr("2001:db8::2")), "the same /64")
	p.Set(0)
	third := p.Enter(a)
	assert.NotNil(t, third, "no bound")
	for _, peer := range []*limit.Peer{first, second, third, other} {
		peer.Gone()
	}
	assert.Zero(t, p.Len(), "who has no connection takes no memory")
}

func TestPeersOfManyWorkers(t *testing.T) {
	const bound = 3
	p := limit.NewPeers(bound)
	var open, most atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 2000 {
				peer := p.Enter(netip.MustParseAddr("192.0.2.7"))
				if peer == nil {
					continue
				}
				for now := open.Add(1); ; {
					if old := most.Load(); now <= old || most.CompareAndSwap(old, now) {
						break
					}
				}
				open.Add(-1)
				peer.Gone()
			}
		})
	}
	all.Wait()
	assert.LessOrEqual(t, most.Load(), int64(bound))
	assert.Zero(t, p.Len())
}

func BenchmarkTake(b *testing.B) {
	r := limit.NewRate(1_000_000, 1_000_000)
	address := netip.MustParseAddr("192.0.2.7")
	b.ReportAllocs()
	for i := range b.N {
		r.Take(r.Address(address), int64(i)*10_000)
	}
}
