package upstream

import (
	"time"

	"atlas/proxy/loop"
)

const (
	budgetWindow = 10 // seconds
	budgetMin    = 3  // further tries a second, whatever the share
)

// budget bounds further tries to a share of the requests of the last ten
// seconds, so that they do not multiply the load on upstreams that have too much
// of it. It goes by a window and not by what is in flight, as Finagle's does: an
// upstream that stops fails for all at once, and the requests before have paid for
// these tries.
type budget struct {
	percent           int
	second            int64 // of the newest slot
	slots             [budgetWindow]spending
	requests, retries int // sums of the slots
}

type spending struct{ requests, retries int }

// advance forgets the seconds that are out of the window.
func (b *budget) advance(now loop.Instant) *spending {
	second := int64(now) / int64(time.Second)
	if second != b.second {
		for range min(second-b.second, budgetWindow) {
			b.second++
			old := &b.slots[b.second%budgetWindow]
			b.requests -= old.requests
			b.retries -= old.retries
			*old = spending{}
		}
		b.second = second
	}
	return &b.slots[second%budgetWindow]
}

// request counts a first try.
func (b *budget) request(now loop.Instant) {
	b.advance(now).requests++
	b.requests++
}

// retry counts a further try, if there may be one.
func (b *budget) retry(now loop.Instant) bool {
	slot := b.advance(now)
	if b.left() <= 0 {
		return false
	}
	slot.retries++
	b.retries++
	return true
}

// left is how many further tries there may be.
func (b *budget) left() int {
	return max(budgetMin*budgetWindow, b.requests*b.percent/100) - b.retries
}
