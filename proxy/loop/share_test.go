package loop

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// posted is a worker that keeps what is posted to it, until it has ended.
type posted struct {
	Loop
	ended bool
	run   []func()
}

func (p *posted) Post(f func()) bool {
	if !p.ended {
		p.run = append(p.run, f)
	}
	return !p.ended
}

// A connection on its way counts, and one that nobody took does not.
func TestTake(t *testing.T) {
	worker, counters := new(posted), new(Counters)
	s := &sharer{worker: worker, counters: counters}
	served := 0
	assert.True(t, s.take(func() { served++ }))
	assert.EqualValues(t, 1, counters.Open.Load())
	assert.Zero(t, served)
	worker.run[0]()
	assert.Equal(t, 1, served)
	worker.ended = true
	assert.False(t, s.take(func() { served++ }))
	assert.EqualValues(t, 1, counters.Open.Load())
	assert.Equal(t, 1, served)
}

// The first is who has accepted; the new connection is counted by the gate only.
func TestLighter(t *testing.T) {
	for _, test := range []struct {
		name string
		open []int64
		want int // 0: the first serves it
	}{
		{"alone", []int64{100}, 0},
		{"the first of all", []int64{0, 0}, 0},
		{"the second", []int64{1, 0}, 1},
		{"even", []int64{1, 1}, 0},
		{"the fewest", []int64{9, 5, 3, 4}, 2},
		{"less than its part", []int64{4, 9, 1}, 0},
		{"an eighth more than the mean", []int64{72, 64, 56}, 2},
		{"less than that", []int64{71, 64, 56}, 0},
	} {
		gate, all, sharers := new(Gate), new(share), []*sharer(nil)
		gate.force()
		for _, open := range test.open {
			one := &sharer{gate: gate, counters: new(Counters)}
			one.counters.Open.Store(open)
			for range open {
				gate.force()
			}
			all.join(one)
			sharers = append(sharers, one)
		}
		got := sharers[0].lighter()
		if test.want == 0 {
			assert.Nil(t, got, test.name)
			continue
		}
		assert.Same(t, sharers[test.want], got, test.name)
		all.leave(got)
		assert.NotSame(t, got, sharers[0].lighter(), test.name)
	}
}

// Who accepts from several listeners is one worker: its part is no smaller.
func TestLighterOfFewerWorkers(t *testing.T) {
	gate, all := new(Gate), new(share)
	gate.force()
	join := func(counters *Counters, open int64) *sharer {
		one := &sharer{gate: gate, counters: counters}
		for range open {
			gate.force()
		}
		counters.Open.Add(open)
		all.join(one)
		return one
	}
	first := join(new(Counters), 8)
	again := join(first.counters, 0)
	second := join(new(Counters), 7)
	assert.Nil(t, first.lighter())
	assert.Nil(t, again.lighter())
	all.leave(again)
	assert.Nil(t, first.lighter())
	first.counters.Open.Add(1)
	assert.Same(t, second, first.lighter())
}

// Of many workers some are looked at, others the next time.
func TestLighterInTurn(t *testing.T) {
	gate, all, found := new(Gate), new(share), make(map[*sharer]bool)
	first := &sharer{gate: gate, counters: new(Counters)}
	first.counters.Open.Store(1)
	all.join(first)
	for range 4 * looksMax {
		all.join(&sharer{gate: gate, counters: new(Counters)})
	}
	const looks = 4
	for range looks {
		found[first.lighter()] = true
	}
	assert.Len(t, found, looks)
	assert.NotContains(t, found, (*sharer)(nil))
}
