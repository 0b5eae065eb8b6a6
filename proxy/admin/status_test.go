package admin

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"atlas/proxy/stats"
)

// A quantile lies in the bucket that has it.
func TestQuantile(t *testing.T) {
	worker := stats.NewSet(1, nil)
	for range 90 {
		worker.Worker(0).Observe(stats.Connect, 3*time.Millisecond)
	}
	for range 9 {
		worker.Worker(0).Observe(stats.Connect, 30*time.Millisecond)
	}
	worker.Worker(0).Observe(stats.Connect, time.Hour)
	for _, d := range worker.Distributions(nil) {
		if d.Of != stats.Connect.String() {
			continue
		}
		got := latency(&d)
		assert.Equal(t, "connect", got.Of)
		assert.EqualValues(t, 100, got.Count)
		assert.InDelta(t, 0.002+0.003*50/90, got.P50, 1e-9)
		assert.InDelta(t, 0.005, got.P90, 1e-9)
		assert.InDelta(t, 0.05, got.P99, 1e-9)
		bounds := stats.Bounds()
		assert.Equal(t, bounds[len(bounds)-1].Seconds(), got.P999)
		return
	}
	assert.Fail(t, "there is none")
}
