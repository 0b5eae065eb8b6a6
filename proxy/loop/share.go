package loop

import (
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// slackPart is by which part of the mean a worker may have more than the mean: a
	// connection that is handed over costs a wake-up, and with many of them a few
	// more do not matter.
	slackPart = 8
	// looksMax is how many workers are looked at for the one with the fewest
	// connections: each look is a cache line that another core writes.
	looksMax = 8
)

// share is who accepts at one address. The kernel gives each connection to one of
// them by a hash, which is even over thousands, and not over a few that stay. So one
// that has more than its part of them hands what it accepts to another one.
type share struct {
	mu  sync.Mutex
	now atomic.Pointer[sharers] // replaced as a whole
}

// sharers are those who share at a moment.
type sharers struct {
	all     []*sharer
	workers int64 // that they are of: fewer where one accepts from several listeners
}

// sharer is one worker's accepting from one listener.
type sharer struct {
	share    *share
	worker   Loop
	counters *Counters
	gate     *Gate
	accepts  any // the *ringListener or *pollListener
	next     int // who was looked at last; the worker's own
}

func (s *share) join(one *sharer) {
	one.share = s
	s.change(func(all []*sharer) []*sharer { return append(all, one) })
}

func (s *share) leave(one *sharer) {
	s.change(func(all []*sharer) []*sharer {
		return slices.DeleteFunc(all, func(other *sharer) bool { return other == one })
	})
}

func (s *share) change(f func(all []*sharer) []*sharer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := new(sharers)
	if before := s.now.Load(); before != nil {
		next.all = slices.Clone(before.all)
	}
	next.all = f(next.all)
	workers := make(map[*Counters]bool)
	for _, one := range next.all {
		workers[one.counters] = true
	}
	next.workers = int64(len(workers))
	s.now.Store(next)
}

// lighter returns who is to have the connection that was just accepted, and counted
// by the gate: somebody with fewer connections if this worker has its part of them
// already, else nil. Whoever has no more than that looks at nobody.
func (s *sharer) lighter() (lightest *sharer) {
	now := s.share.now.Load()
	if now.workers < 2 {
		return nil
	}
	mean := s.gate.Open() / now.workers
	least := s.counters.Open.Load()
	if least < max(1, mean+mean/slackPart) {
		return nil
	}
	for range min(looksMax, len(now.all)) {
		s.next = (s.next + 1) % len(now.all)
		other := now.all[s.next]
		if other.gate != s.gate {
			continue // the gate is the one that counts the connection out
		}
		if n := other.counters.Open.Load(); n < least {
			lightest, least = other, n
		}
	}
	return lightest
}

// take has serve run by the worker. The connection counts at once, so that whoever
// looks next knows of it. It reports false if the worker has ended.
func (s *sharer) take(serve func()) bool {
	s.counters.Open.Add(1)
	if s.worker.Post(serve) {
		return true
	}
	s.counters.Open.Add(-1)
	return false
}
