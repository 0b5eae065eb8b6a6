package loop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestProgress(t *testing.T) {
	const rate = 100
	begin := Past.After(time.Hour)
	for _, row := range []struct {
		name  string
		after []time.Duration // when it is asked
		acked []uint64
		want  []bool
	}{
		{"the first time it is given an interval", []time.Duration{0}, []uint64{0}, []bool{true}},
		{"nothing since", []time.Duration{0, 10 * time.Second}, []uint64{5000, 5000}, []bool{true, false}},
		{"just enough", []time.Duration{0, 10 * time.Second}, []uint64{5000, 6000}, []bool{true, true}},
		{"a byte too few", []time.Duration{0, 10 * time.Second}, []uint64{5000, 5999}, []bool{true, false}},
		{"what it took before does not count", []time.Duration{0, 10 * time.Second, 20 * time.Second},
			[]uint64{0, 1 << 40, 1<<40 + 999}, []bool{true, true, false}},
		{"asked too late, it had more time", []time.Duration{0, 20 * time.Second}, []uint64{0, 1999}, []bool{true, false}},
		{"asked again at once", []time.Duration{0, 10 * time.Second, 10 * time.Second},
			[]uint64{0, 10, 20}, []bool{true, false, false}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var p progress
			p.restart(begin, begin)
			for i, want := range row.want {
				assert.Equal(t, want, p.deserves(rate, row.acked[i], begin.After(row.after[i])), "time %d", i)
			}
			p.restart(begin, begin)
			assert.True(t, p.deserves(rate, 0, begin.After(time.Hour)), "a new deadline is a new chance")
		})
	}
	for length, interval := range map[time.Duration]time.Duration{
		time.Second: time.Second, time.Minute: progressMax, -time.Second: -time.Second,
	} {
		var p progress
		p.restart(begin.After(length), begin)
		assert.Equal(t, interval, p.interval)
	}
	var p progress
	p.restart(Past, begin)
	assert.Negative(t, p.interval)
	p.restart(0, begin)
	assert.Negative(t, p.interval)
}
