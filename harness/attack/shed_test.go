package attack

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// Where refusals stand, they are counted by themselves, whatever they say, and the
// rest is goodput; elsewhere they are errors, and others are everywhere.
func TestShed(t *testing.T) {
	var asked atomic.Int64
	status := http.StatusServiceUnavailable
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); n%4 != 0 {
			w.Header().Set("Content-Length", "40")
			if n%8 == 1 { // some close the connection with it
				w.Header().Set("Connection", "close")
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, "%040d", n)
			return
		}
		right(w, r)
	})
	load := tiny(16, 400)
	load.Measured, load.Shed = 200*time.Millisecond, true
	meters := idle
	meters.Peak = func() (int64, error) { return 12345, nil }
	s, err := Measure(t.Context(), patient, target, load, meters)
	require.NoError(t, err)
	require.InDelta(t, 20, s.Requests, 1, "a fourth of 80")
	require.InDelta(t, 3, s.Values[results.Shed]/s.Values[results.Throughput], 0.5)
	require.Positive(t, s.Values[results.ShedP50])
	require.GreaterOrEqual(t, s.Values[results.ShedP99], s.Values[results.ShedP50])
	require.Equal(t, 12345.0, s.Values[results.PeakResident])
	require.NotContains(t, s.Values, results.CPU, "of both together, so of neither")
	require.EqualValues(t, s.Requests, s.Histograms[results.Corrected].TotalCount(), "the latency is of what was not shed")

	status = http.StatusBadGateway
	_, err = Measure(t.Context(), patient, target, load, meters)
	require.ErrorContains(t, err, `answer "HTTP/1.1 502 Bad Gateway"`)
	status, load.Shed = http.StatusServiceUnavailable, false
	_, err = Measure(t.Context(), patient, target, load, meters)
	require.ErrorContains(t, err, `answer "HTTP/1.1 503 Service Unavailable"`)
}

// Of a load that sheds, the last answer may be late, the last request not.
func TestJudgeShed(t *testing.T) {
	g := Generator{LateMax: 50 * time.Millisecond}
	load := Load{Rate: 1000, Measured: time.Second, Shed: true}
	p := phase{requests: 500, shed: 500, wall: 1500 * time.Millisecond}
	_, err := g.judge(p, Target{}, load, reading{}, reading{})
	require.NoError(t, err)
	p.late = 60 * time.Millisecond
	_, err = g.judge(p, Target{}, load, reading{}, reading{})
	require.ErrorContains(t, err, "rate missed: ")
	load.Shed, p.late = false, 0
	_, err = g.judge(p, Target{}, load, reading{}, reading{})
	require.ErrorContains(t, err, "rate missed: ")
}

// Goodput is of the answers that came while there was load. What waited until it was
// over is no goodput, and the time that took is none in which there was any.
func TestGoodputOfAQueue(t *testing.T) {
	const rate, conns, measured = 400, 40, 200 * time.Millisecond
	over := make(chan struct{})
	var asked atomic.Int64
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		switch {
		case n == 4+rate/5: // the last, after those of the warm-up
			time.AfterFunc(5*measured, func() { close(over) })
			<-over
		case n > 4 && n%4 == 0:
			<-over // it is queued
		}
		right(w, r)
	})
	load := Load{Conns: conns, Rate: rate, Shed: true, Warmup: 10 * time.Millisecond, Measured: measured}
	s, err := Measure(t.Context(), patient, target, load, idle)
	require.NoError(t, err)
	require.Equal(t, rate/5, s.Requests, "all were answered")
	// Three of four, however long the rest took, which is five times as long; less
	// where the machine is late.
	require.LessOrEqual(t, s.Values[results.Throughput], 0.75*rate)
	require.Greater(t, s.Values[results.Throughput], 0.75*rate/5)
	require.Greater(t, s.Values[results.P99], float64(5*measured))
}
