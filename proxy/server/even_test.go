package server

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// even opens connections that stay, each of which has been served, and wants them to
// be shared out: the busiest worker has an eighth more than the mean at most, and
// what a division leaves.
func (r *running) even(n int) {
	r.t.Helper()
	var crowd []*client
	for range n {
		c := r.dial()
		assert.Equal(r.t, "hello", c.get("/a"))
		crowd = append(crowd, c)
	}
	open := func() (most, sum int64) {
		for _, w := range r.workers {
			n := w.Counters().Open.Load()
			most, sum = max(most, n), sum+n
		}
		return most, sum
	}
	most, sum := open()
	mean := int64(n / len(r.workers))
	assert.EqualValues(r.t, n, sum)
	assert.EqualValues(r.t, n, r.limits.gate.Open())
	assert.LessOrEqual(r.t, most, mean+mean/8+1)
	for _, c := range crowd {
		assert.Equal(r.t, "hello", c.get("/a"))
		require.NoError(r.t, c.Close())
	}
	eventually(r.t, "all to be gone", func() bool {
		_, sum := open()
		return sum == 0 && r.limits.gate.Open() == 0
	})
}

func TestWorkersAreEven(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		text := looptest.StaticConfig(t, engine)
		s := launch(t, workersOf(text, 4), nil)
		s.even(4)
		s.even(64)
		var accepted uint64
		for _, w := range s.workers {
			accepted += w.Counters().Accepted.Load()
		}
		assert.EqualValues(t, 68, accepted)

		// Also where an heir has fewer workers than sockets, or more and opens some.
		for _, workers := range []int{3, 5} {
			next := heirOf(t, s, workersOf(text, workers), nil)
			s.Yield(next.Doors())
			next.even(8 * workers)
			next.Alone()
			next.even(8 * workers)
			assert.True(t, s.shutdown(patience))
			s = next
		}
	})
}
