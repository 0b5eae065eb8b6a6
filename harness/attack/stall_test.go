package attack

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// freezer is a server that freezes once, on its at-th request: for as long nobody is
// answered. held is how many requests it has not answered then.
type freezer struct {
	at         int64
	seen, held atomic.Int64
	frozen     atomic.Bool
	gate       sync.RWMutex
}

const freeze = 200 * time.Millisecond

func (f *freezer) serve(w http.ResponseWriter, r *http.Request) {
	if f.seen.Add(1) == f.at {
		f.gate.Lock()
		f.frozen.Store(true)
		f.held.Add(1)
		time.Sleep(freeze)
		f.frozen.Store(false)
		f.gate.Unlock()
	} else if f.frozen.Load() {
		f.held.Add(1)
	}
	f.gate.RLock()
	defer f.gate.RUnlock()
	right(w, r)
}

// A server that freezes for 200 ms in the middle of an open loop answers few of its
// requests late, for no more were sent meanwhile than there are connections. All that
// were due meanwhile had to wait, and their share is in the corrected latency.
func TestCorrectedLatencyShowsAStall(t *testing.T) {
	const conns, rate = 8, 1000
	load := Load{Conns: conns, Rate: rate, Warmup: 10 * time.Millisecond, Measured: time.Second}
	f := &freezer{at: rate / 2}
	s, err := Measure(t.Context(), Generator{LateMax: time.Hour, StallMax: time.Minute}, serve(t, f.serve), load, idle)
	require.NoError(t, err)
	require.Equal(t, rate, s.Requests)
	require.Positive(t, f.held.Load())
	require.LessOrEqual(t, f.held.Load(), int64(conns), "less than 1 % of the requests were sent while it was frozen")

	// However late the machine is: what was due in the first half of the freeze, or
	// before it and not yet sent, waited for the other half.
	require.Greater(t, s.Values[results.P99], float64(freeze/2))
	require.Less(t, s.Values[results.RawP99], s.Values[results.P99])
	t.Logf("p99 %v, as sent %v; %d requests were with the server while it was frozen",
		time.Duration(s.Values[results.P99]), time.Duration(s.Values[results.RawP99]), f.held.Load())
}
