package limit

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// waysMax is how many clients one set holds: their keys fill a cache line, and
	// their times another.
	waysMax = 8
	// setsMax makes room for 131,072 clients in 2 MiB, which the kernel gives out
	// as they are used.
	setsMax = 1 << 14
	// locksMax is how many clients may be taken in at once.
	locksMax = 256
	// clockSkew is how far the clocks of two workers may be apart, as each looks at
	// the time once a turn: within it a time is never taken for one of another policy.
	clockSkew = int64(time.Second)
)

// Rate is a bucket of tokens for each client: it fills with so many a second, up
// to the burst, and a request takes one.
//
// The bucket is kept as one time, at which it will be full again (the generic cell
// rate algorithm): a client that has not been heard of is one whose time has
// passed, so forgetting such a one changes nothing. Where a set has none to
// forget, the one goes that would be forgotten first. Its client then has a full
// bucket; but whoever makes us forget has to bring requests of eight other
// clients of the same set, which nobody can choose, as the seed is secret.
type Rate struct {
	seed   maphash.Seed
	policy atomic.Pointer[policy]
	sets   []set
	locks  [locksMax]sync.Mutex // over taking clients in; finding them needs none
}

// set is where a client may stand.
type set struct {
	keys [waysMax]atomic.Uint64 // 0 is none
	full [waysMax]atomic.Int64  // when the bucket is full
}

// policy never changes.
type policy struct {
	each  int64 // nanoseconds that a token takes
	burst int64 // nanoseconds that a bucket takes
}

// Key is a client of a Rate.
type Key uint64

// NewRate makes an account in which nobody has been heard of.
func NewRate(perSecond, burst int) *Rate {
	r := &Rate{seed: maphash.MakeSeed(), sets: make([]set, setsMax)}
	r.Set(perSecond, burst)
	return r
}

// Set says how many requests a client may make, from now on. Both are at least 1.
func (r *Rate) Set(perSecond, burst int) {
	each := int64(time.Second) / int64(perSecond)
	r.policy.Store(&policy{each: each, burst: each * int64(burst)})
}

// Address is the key of an address.
func (r *Rate) Address(address netip.Addr) Key {
	bytes := Client(address).As16()
	return r.key(bytes[:])
}

// Text is the key of something else that tells clients apart.
func (r *Rate) Text(text []byte) Key { return ^r.key(text) | 1 }

func (r *Rate) key(bytes []byte) Key { return Key(maphash.Bytes(r.seed, bytes)) | 1 }

// Take takes a token at now, in nanoseconds of any clock that goes on. It returns
// 0, or how long it will be until there is one.
func (r *Rate) Take(key Key, now int64) (wait time.Duration) {
	// The lowest bit of a key is always set, so as to be none of 0.
	hash := uint64(key) >> 1
	index := hash % setsMax
	s, p := &r.sets[index], r.policy.Load()
	for {
		way := s.find(key)
		if way < 0 {
			if r.admit(s, index, key, now, p) {
				return 0
			}
			continue // another worker was faster
		}
		full := s.full[way].Load()
		if Key(s.keys[way].Load()) != key {
			continue // the time may be that of who came in its place
		}
		if full > now+p.burst+clockSkew {
			// What was taken under a policy of more is not owed for ever.
			s.full[way].CompareAndSwap(full, now+p.burst)
			continue
		}
		next := max(full, now) + p.each
		if next > now+p.burst {
			return time.Duration(next - now - p.burst)
		}
		if s.full[way].CompareAndSwap(full, next) {
			return 0
		}
	}
}

// find returns where a client stands, or -1.
func (s *set) find(key Key) int {
	for way := range s.keys {
		if s.keys[way].Load() == uint64(key) {
			return way
		}
	}
	return -1
}

// admit takes in a client with one token taken, in the place of the one whose
// bucket is full first. It reports false if the client is there already.
func (r *Rate) admit(s *set, index uint64, key Key, now int64, p *policy) bool {
	lock := &r.locks[index%locksMax]
	lock.Lock()
	defer lock.Unlock()
	if s.find(key) >= 0 {
		return false
	}
	oldest, at := 0, int64(math.MaxInt64)
	for way := range s.keys {
		if s.keys[way].Load() == 0 {
			oldest = way
			break
		}
		if full := s.full[way].Load(); full < at {
			oldest, at = way, full
		}
	}
	// In this order: who finds the old key and then the new time looks at the key
	// again, and its swap of an old time fails.
	s.keys[oldest].Store(0)
	s.full[oldest].Store(now + p.each)
	s.keys[oldest].Store(uint64(key))
	return true
}
