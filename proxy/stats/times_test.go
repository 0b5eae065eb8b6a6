package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A duration is in the first bucket whose bound it does not exceed.
func TestObserve(t *testing.T) {
	want := func(d time.Duration) int {
		for i, bound := range Bounds() {
			if d <= bound {
				return i
			}
		}
		return Buckets - 1
	}
	durations := []time.Duration{-time.Second, 0, 1, time.Hour, math.MaxInt64}
	for _, bound := range Bounds() {
		durations = append(durations, bound-1, bound, bound+1)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		durations = append(durations, time.Duration(rng.Int64()>>rng.IntN(63)))
	}
	for _, d := range durations {
		var h Histogram
		h.Observe(d)
		assert.EqualValues(t, 1, h.counts[want(d)].Load(), d)
		assert.EqualValues(t, max(d, 0), h.sum.Load(), d)
	}
}

func TestDistributions(t *testing.T) {
	set := NewSet(2, nil)
	for i := range 2 {
		w := set.Worker(i)
		w.Observe(Connect, 3*time.Millisecond)
		w.Observe(Total, time.Millisecond) // has no upstream
		w.Upstream("b").FirstByte.Observe(time.Second)
		w.Upstream("b").Total.Observe(2 * time.Second)
	}
	set.Worker(1).Upstream("a").Total.Observe(time.Minute)

	type one struct {
		of    string
		count int64
		sum   time.Duration
	}
	var got []one
	for _, d := range set.Distributions(nil) {
		got = append(got, one{d.Name + " " + d.Label + " " + d.Of, d.Count(), d.Sum})
		assert.NotEmpty(t, d.Help)
	}
	assert.Equal(t, []one{
		{"phase_seconds phase handshake", 0, 0},
		{"phase_seconds phase queue", 0, 0},
		{"phase_seconds phase connect", 2, 6 * time.Millisecond},
		{"phase_seconds phase first_byte", 2, 2 * time.Second},
		{"phase_seconds phase total", 5, time.Minute + 4*time.Second + 2*time.Millisecond},
		{"upstream_first_byte_seconds upstream a", 0, 0},
		{"upstream_first_byte_seconds upstream b", 2, 2 * time.Second},
		{"upstream_total_seconds upstream a", 1, time.Minute},
		{"upstream_total_seconds upstream b", 2, 4 * time.Second},
	}, got)
	assert.Equal(t, "unknown", phases.String())
}

// However often the configuration changes, there is a bound.
func TestUpstreamsBounded(t *testing.T) {
	s := new(Stats)
	first := s.Upstream("0")
	for i := range 2 * upstreamsMax {
		s.Upstream(fmt.Sprint(i))
	}
	assert.Len(t, s.upstreams, upstreamsMax+1)
	assert.Same(t, first, s.Upstream("0"))
	assert.Same(t, s.Upstream(Others), s.Upstream("one more"))
}

// The race detector judges this one.
func TestReadWhileObserving(t *testing.T) {
	const rounds = 1000
	set := NewSet(2, nil)
	var wg sync.WaitGroup
	for i := range set.Len() {
		wg.Go(func() {
			w := set.Worker(i)
			for n := range rounds {
				w.Upstream(fmt.Sprint(n % 10)).Total.Observe(time.Duration(n))
				w.Observe(Queue, time.Second)
			}
		})
	}
	var all []Distribution
	for range 100 {
		all = set.Distributions(all[:0])
	}
	wg.Wait()
	all = set.Distributions(all[:0])
	assert.EqualValues(t, 2*rounds, all[Total].Count())
	assert.EqualValues(t, 2*rounds, all[Queue].Count())
}

func TestAllocsObserve(t *testing.T) {
	s := new(Stats)
	times := s.Upstream("a")
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		s.Observe(Queue, time.Second)
		times.Total.Observe(time.Millisecond)
	}))
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for b.Loop() {
		h.Observe(140 * time.Microsecond)
	}
}
