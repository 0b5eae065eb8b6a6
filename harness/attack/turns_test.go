package attack

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/origin"
	"atlas/results"
)

// Servers in turns each get the whole load, one at a time, and their samples are of
// all slices but what leads them.
func TestTurns(t *testing.T) {
	const rate, rounds, slice = 400, 3, 80 * time.Millisecond
	const counted = rounds * int(slice*rate/time.Second)
	var holder atomic.Pointer[string] // whose request is with a server
	both := 0
	hold := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if now := holder.Swap(&name); now != nil && *now != name {
				both++ // of one that was not answered yet
			}
			serveDocument(w, r)
			holder.Store(nil)
		}
	}
	a, answeredA := served(t, hold("a"))
	b, answeredB := served(t, hold("b"))
	servers := []Turn{
		{"a", a, Meters{Server: ticking(time.Millisecond), Origin: ticking(time.Millisecond)}},
		{"b", b, Meters{Server: ticking(time.Millisecond), Origin: ticking(time.Millisecond)}},
	}
	load := Load{Conns: 1, Rate: rate, Warmup: 10 * time.Millisecond, Measured: rounds * slice}
	samples, err := patient.Turns(t.Context(), servers, load, slice)
	require.NoError(t, err)
	require.Zero(t, both)
	require.Len(t, samples, 2)
	for i, answered := range []*atomic.Int64{answeredA, answeredB} {
		s := samples[i]
		require.Equal(t, counted, s.Requests)
		require.EqualValues(t, counted, s.Histograms[results.Corrected].TotalCount())
		require.EqualValues(t, counted+counted/leadOf+4, answered.Load(), "the leads and the warm-up are not in it")
		require.Positive(t, s.Values[results.P99])
		// A clock that goes on with every reading: two or more for each slice, and
		// the leads' part of that is not counted.
		require.Positive(t, s.Values[results.CPU])
		require.InDelta(t, float64(leadOf)/(leadOf+1)*rounds*1e6/float64(counted), s.Values[results.OriginCPU], 1)
	}
}

// A server that answers wrongly, or not at all, spoils it by name.
func TestTurnsRefuses(t *testing.T) {
	good, _ := served(t, serveDocument)
	var asked atomic.Int64
	later, _ := served(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(origin.Document(1024 - int(min(1, asked.Add(1)/20))))
	})
	wrong, _ := served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(origin.Document(1023)) })
	load := Load{Conns: 2, Rate: 400, Warmup: 10 * time.Millisecond, Measured: 100 * time.Millisecond}
	for _, row := range []struct {
		bad  Target
		want string
	}{
		{wrong, "bad: warm-up: 4 errors; "},
		{later, "bad: "},
	} {
		_, err := patient.Turns(t.Context(), []Turn{{"good", good, idle}, {"bad", row.bad, idle}}, load, 50*time.Millisecond)
		require.ErrorContains(t, err, row.want)
		require.ErrorContains(t, err, "Content-Length 1023, want 1024")
		require.IsType(t, &Unsound{}, err)
	}
	late := Generator{LateMax: -time.Hour} // any is too late
	_, err := late.Turns(t.Context(), []Turn{{"good", good, idle}}, load, 50*time.Millisecond)
	require.ErrorContains(t, err, "good: rate missed: ")

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	load.Measured = time.Hour
	_, err = patient.Turns(ctx, []Turn{{"good", good, idle}}, load, time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}
