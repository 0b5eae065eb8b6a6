package loop

import "container/heap"

// timers holds the deadlines of one worker, earliest first.
//
// Deadlines move with every request, so they are followed lazily: a timer in
// the heap may be earlier than the deadline it stands for, and is put back when
// it fires too soon. Moving a deadline later, the hot path, touches no heap.
type timers struct{ queue timerQueue }

// timer fires once at or after its instant.
type timer struct {
	at    Instant
	index int32 // place in the queue plus one; 0 when it is not in it
	kind  timerKind
	conn  *ringConn
	wake  func()
}

type timerKind uint8

const (
	timerRead  timerKind = iota // conn's read deadline
	timerWrite                  // conn's write deadline
	timerWake                   // wake is called
	timerDoze                   // it is by a drain, too
)

// ensure makes t fire no later than at.
func (ts *timers) ensure(t *timer, at Instant) {
	switch {
	case t.index == 0:
		t.at = at
		heap.Push(&ts.queue, t)
	case at < t.at:
		t.at = at
		heap.Fix(&ts.queue, int(t.index-1))
	}
}

// remove takes t out, if it is in.
func (ts *timers) remove(t *timer) {
	if t.index != 0 {
		heap.Remove(&ts.queue, int(t.index-1))
	}
}

// next is when the first timer fires, or 0.
func (ts *timers) next() Instant {
	if len(ts.queue) == 0 {
		return 0
	}
	return ts.queue[0].at
}

// pop takes out the first timer that is due, or nil.
func (ts *timers) pop(now Instant) *timer {
	if len(ts.queue) == 0 || ts.queue[0].at > now {
		return nil
	}
	return heap.Pop(&ts.queue).(*timer)
}

// timerQueue is the heap.Interface under timers.
type timerQueue []*timer

func (q timerQueue) Len() int           { return len(q) }
func (q timerQueue) Less(i, j int) bool { return q[i].at < q[j].at }
func (q timerQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = int32(i+1), int32(j+1)
}
func (q *timerQueue) Push(x any) {
	t := x.(*timer)
	*q = append(*q, t)
	t.index = int32(len(*q))
}
func (q *timerQueue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	t.index = 0
	return t
}
