package accesslog

import (
	"bytes"
	"math"
	"math/bits"
	"sync/atomic"

	"atlas/proxy/stats"
)

// ringBytes is what may wait to be written, for each worker: some 16,000 lines, or
// 150 ms of all that one core can serve. It is a power of two, and more than the
// longest line.
const ringBytes = 4 << 20

// callAt of a ring, in bytes: the writer's goroutine is woken when more is there.
const (
	callAny  = 0
	callMany = ringBytes / 2
	callNot  = math.MaxInt64
)

// restartAt is where a ring without lines starts anew, in bytes: most of its memory
// is for bad times, and what was written lately is in the caches of the processor.
const restartAt = callMany

// Ring holds the lines of one worker until they are written. One worker pushes and
// one goroutine takes; neither waits for the other.
//
// A line is in one piece: where the end of the memory is too near, or would just be
// reached, it is at the start, and skipped says where the one before ends.
type Ring struct {
	format  atomic.Pointer[Format] // nil: no lines are wanted
	sample  atomic.Uint32
	dropped *stats.Counter
	wake    chan<- struct{}
	drops   chan<- struct{}

	// Of the worker.
	memory []byte // made for the first line
	size   uint64
	seen   uint64 // what taken was when it was last looked at
	random uint64
	line   []byte // the one that is made
	clock  clock
	_      [128]byte

	skipped atomic.Uint64 // where the lines of the last lap end; written by the worker before pushed is
	pushed  atomic.Uint64 // bytes, those at the end of laps included; written by the worker
	_       [128]byte
	taken   atomic.Uint64 // bytes; written by the one who takes
	callAt  atomic.Int64
	_       [128]byte
}

func newRing(size int, dropped *stats.Counter, wake, drops chan<- struct{}) *Ring {
	r := &Ring{size: uint64(size), dropped: dropped, wake: wake, drops: drops, random: 0x9e3779b97f4a7c15}
	r.callAt.Store(callNot)
	return r
}

// On reports that records are wanted.
func (r *Ring) On() bool { return r != nil && r.format.Load() != nil }

// Draw says whether an exchange that went well is one of the sample.
func (r *Ring) Draw() bool {
	n := r.sample.Load()
	if n <= 1 {
		return true
	}
	// xorshift: what comes in turns must not meet the same one of n each time.
	r.random ^= r.random << 13
	r.random ^= r.random >> 7
	r.random ^= r.random << 17
	high, _ := bits.Mul64(r.random, uint64(n))
	return high == 0
}

// Push makes a line of a record and keeps it, or drops it.
func (r *Ring) Push(record *Record) {
	format := r.format.Load()
	if format == nil {
		return // of an exchange that began before
	}
	r.line = format.append(r.line[:0], record, &r.clock)
	n := uint64(len(r.line))
	if r.memory == nil {
		r.memory = make([]byte, r.size)
	}
	pushed := r.pushed.Load()
	at, need := pushed&(r.size-1), n
	end := r.size - at
	if end <= n || at >= restartAt && r.taken.Load() == pushed {
		need += end
	}
	if pushed+need-r.seen > r.size {
		if r.seen = r.taken.Load(); pushed+need-r.seen > r.size {
			r.dropped.Add(1)
			signal(r.drops)
			return
		}
	}
	if need > n {
		r.skipped.Store(pushed)
		at = 0
	}
	copy(r.memory[at:], r.line)
	r.pushed.Store(pushed + need)
	if call := r.callAt.Load(); int64(pushed+need-r.seen) > call {
		r.seen = r.taken.Load()
		if int64(pushed+need-r.seen) > call && r.callAt.CompareAndSwap(call, callNot) {
			signal(r.wake)
		}
	}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// empty is for the one who takes.
func (r *Ring) empty() bool { return r.taken.Load() == r.pushed.Load() }

// peek is the next lines, at most so many bytes of them or one: they are valid until
// they are taken. Nothing is there if there are none. It is for the one who takes.
func (r *Ring) peek(most int) []byte {
	taken, pushed := r.taken.Load(), r.pushed.Load()
	if taken == pushed {
		return nil // before the first line there is no memory either
	}
	until, lap := pushed, taken&^(r.size-1)
	if next := lap + r.size; pushed >= next { // the worker is a lap ahead
		if until = r.skipped.Load(); until == taken {
			r.taken.Store(next)
			taken, until, lap = next, pushed, next
		}
	}
	lines := r.memory[taken-lap : until-lap]
	if len(lines) <= most {
		return lines
	}
	end := bytes.LastIndexByte(lines[:most], '\n')
	if end < 0 {
		end = bytes.IndexByte(lines, '\n')
	}
	return lines[:end+1]
}

// take lets go of so many bytes that peek has shown.
func (r *Ring) take(n int) { r.taken.Store(r.taken.Load() + uint64(n)) }
