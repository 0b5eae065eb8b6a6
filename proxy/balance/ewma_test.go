package balance

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const (
	msNs  = int64(time.Millisecond)
	secNs = int64(time.Second)
)

// answer is one step of a latency's life: an answer that took so long, or, with
// 0, just that the time has come.
type answer struct{ at, took int64 }

func TestLatency(t *testing.T) {
	e := func(seconds float64) float64 { return math.Exp(-seconds / 10) }
	for _, row := range []struct {
		name    string
		answers []answer
		want    float64 // milliseconds
	}{
		{"nothing is known", []answer{{5 * secNs, 0}}, 0},
		{"the first", []answer{{secNs, 20 * msNs}}, 20},
		{"a peak counts at once", []answer{{secNs, 20 * msNs}, {secNs + 1, 500 * msNs}}, 500},
		{"a dip at the same time does not", []answer{{secNs, 20 * msNs}, {secNs, 1 * msNs}}, 20},
		{"a dip after the decay counts mostly", []answer{{0, 20 * msNs}, {10 * secNs, 1 * msNs}}, 20*e(10) + 1 - e(10)},
		{"dips add up", []answer{{0, 20 * msNs}, {5 * secNs, 1 * msNs}, {10 * secNs, 1 * msNs}}, 20*e(10) + 1 - e(10)},
		{"silence makes it small", []answer{{0, 20 * msNs}, {10 * secNs, 0}}, 20 * e(10)},
		{"looking changes nothing", []answer{{0, 20 * msNs}, {5 * secNs, 0}, {10 * secNs, 0}}, 20 * e(10)},
		{"a clock behind", []answer{{10 * secNs, 20 * msNs}, {5 * secNs, 0}}, 20},
		{"an answer in no time", []answer{{secNs, -3}}, 1e-6},
	} {
		t.Run(row.name, func(t *testing.T) {
			var l latency
			var got float64
			for _, a := range row.answers {
				if a.took != 0 {
					l.observe(a.took, a.at)
				}
				got = l.expected(a.at)
			}
			assert.InDelta(t, row.want*float64(msNs), got, 0.01)
		})
	}
}

func TestPeakEWMA(t *testing.T) {
	for _, row := range []struct {
		name      string
		ups       []Upstream
		latencies []int64 // milliseconds
		tried     []int
		want      string
	}{
		{"the faster of two", equal(2), []int64{20, 10}, nil, "bbbb"},
		{"until it is busier", busy([2]int32{0, 1}, [2]int32{2, 1}), []int64{20, 10}, nil, "aaaa"},
		{"by how much it is", busy([2]int32{1, 1}, [2]int32{2, 1}), []int64{20, 10}, nil, "bbbb"},
		{"a heavier one may be busier", busy([2]int32{1, 1}, [2]int32{2, 4}), []int64{10, 10}, nil, "bbbb"},
		{"but not by more than its weight", busy([2]int32{1, 1}, [2]int32{5, 4}), []int64{10, 10}, nil, "aaaa"},
		{"the faster that is left", equal(3), []int64{20, 30, 10}, []int{2}, "aaaa"},
		{"the slowest if it is the last", equal(3), []int64{20, 30, 10}, []int{0, 2}, "bbbb"},
		{"tried gets nothing", equal(2), []int64{20, 10}, []int{1}, "aaaa"},
		{"weight 0 gets nothing", up(1, 0), []int64{20, 10}, nil, "aaaa"},
		{"all tried", equal(2), []int64{20, 10}, []int{0, 1}, "----"},
		{"no upstreams", nil, nil, nil, "----"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := NewPicker(PeakEWMA, row.ups, 0, 5)
			for i, ms := range row.latencies {
				p.Observe(i, ms*msNs, 1)
			}
			assert.Equal(t, row.want, letters(p, row.ups, row.tried, len(row.want)))
		})
	}
}

// One of which nothing is known gets one request, and the next one when it has
// answered or could have.
func TestPeakEWMAAsks(t *testing.T) {
	ups := equal(2)
	p := NewPicker(PeakEWMA, ups, 0, 5)
	p.Observe(0, 10*msNs, 1)
	now := int64(1)
	pick := func() int { return p.PickFor(Request{Now: now}, ups, nil) }
	assert.Equal(t, 1, pick(), "to know more")
	for range 20 {
		now += secNs / 10
		assert.Equal(t, 0, pick(), "before there is an answer")
	}
	now += decayNs
	assert.Equal(t, 1, pick(), "the answer got lost")
	assert.Equal(t, 0, pick())
	p.Observe(0, 10*msNs, now)
	p.Observe(1, 5*msNs, now)
	assert.Equal(t, 1, pick(), "it is faster")
}

// A peak drives the requests away, and time brings them back.
func TestPeakEWMAForgives(t *testing.T) {
	ups := equal(2)
	p := NewPicker(PeakEWMA, ups, 0, 5)
	now := int64(1)
	p.Observe(0, 10*msNs, now)
	p.Observe(1, 10*msNs, now)
	assert.Greater(t, count(p, Request{Now: now}, ups, 100)[1], 20)
	p.Observe(1, 200*msNs, now)
	left := now
	for p.PickFor(Request{Now: now}, ups, nil) != 1 {
		now += 10 * msNs
		p.Observe(0, 10*msNs, now)
	}
	assert.InEpsilon(t, math.Log(20)*decayNs, now-left, 0.01, "a peak of twenty times the latency")
}

// Only PeakEWMA listens.
func TestObserveElsewhere(t *testing.T) {
	for _, strategy := range Strategies() {
		p := NewPicker(strategy, equal(2), 0, 1)
		p.Observe(1, 5, 7)
		assert.Equal(t, strategy == PeakEWMA, p.latencies != nil, strategy)
	}
}

// The faster of two is in every pair. In its slow start it still gets a part of
// the requests only.
func TestPeakEWMASlowStart(t *testing.T) {
	ups := equal(2)
	ups[1].Since = 1
	p := New(Config{Strategy: PeakEWMA, SlowStart: 1000}, ups)
	p.Observe(0, 10*msNs, 1)
	p.Observe(1, 1*msNs, 1)
	for age, want := range map[int64]float64{
		// It is drawn first by its weight, or second and let in.
		0:    0.1/1.1 + 1/1.1*0.1,
		500:  0.5/1.5 + 1/1.5*0.5,
		1000: 1,
	} {
		counts := count(p, Request{Now: 1 + age}, ups, 50_000)
		assert.InEpsilon(t, want*50_000, counts[1], 0.05, "at %d: %v", age, counts)
	}
}

func BenchmarkObserve(b *testing.B) {
	p := NewPicker(PeakEWMA, equal(8), 0, 1)
	now := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		now += 10_000
		p.Observe(3, msNs+now%1000, now)
	}
}
