package attack

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/results"
	"atlas/scenarios"
)

// generators are ours and, where it is installed, wrk.
func generators(t *testing.T, each func(*testing.T, Generator)) {
	t.Run("vegeta", func(t *testing.T) { each(t, patient) })
	t.Run("wrk", func(t *testing.T) {
		each(t, Generator{Wrk: requireInstalled(t), Scratch: t.TempDir(), Cores: host.Allowed()[:1]})
	})
}

// Both generators send the fields of a target with every request.
func TestFields(t *testing.T) {
	generators(t, func(t *testing.T, g Generator) {
		var bare atomic.Int64
		target := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Lab-Field-00") != "a" || r.Header.Get("X-Lab-Field-01") != "b: c" || len(r.Header) != 2 {
				bare.Add(1)
			}
			right(w, r)
		})
		target.Fields = []string{"X-Lab-Field-00: a", "X-Lab-Field-01: b: c"}
		s, err := Measure(t.Context(), g, target, tiny(2, 0), idle)
		require.NoError(t, err)
		require.Positive(t, s.Requests)
		require.Zero(t, bare.Load())
	})
}

// Each request of this work has a connection of its own, by both generators, and
// a server that keeps it is refused.
func TestConnections(t *testing.T) {
	load := tiny(4, 0)
	load.Of = scenarios.Connections
	generators(t, func(t *testing.T, g Generator) {
		var served, shared atomic.Int64
		target := serve(t, func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			if !r.Close {
				shared.Add(1)
			}
			right(w, r)
		})
		target.Fields = []string{"Connection: close"}
		s, err := Measure(t.Context(), g, target, load, idle)
		require.NoError(t, err)
		require.Positive(t, s.Requests)
		require.Contains(t, s.Values, results.Throughput)
		require.GreaterOrEqual(t, served.Load(), int64(s.Requests))
		require.Zero(t, shared.Load())
	})
	_, err := Measure(t.Context(), patient, serve(t, right), load, idle) // which is not asked to
	require.ErrorContains(t, err, "an answer to Connection: close that does not say so itself")
}

// An answer may have no body at all, and that is checked.
func TestEmptyAnswers(t *testing.T) {
	generators(t, func(t *testing.T, g Generator) {
		target := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "0") })
		target.Length = 0
		s, err := Measure(t.Context(), g, target, tiny(2, 0), idle)
		require.NoError(t, err)
		require.Positive(t, s.Requests)
		full := serve(t, right)
		full.Length = 0
		_, err = Measure(t.Context(), g, full, tiny(2, 0), idle)
		require.ErrorContains(t, err, "Content-Length 1024, want 0")
	})
}

// Many connections are there before anything is sent on them. What that cost the
// server is not part of what wrk measures, which opens its own.
func TestManyConnections(t *testing.T) {
	var reads atomic.Int64
	clock := func() (time.Duration, error) { return time.Duration(reads.Add(1)) * time.Second, nil }
	for _, byWrk := range []bool{true, false} {
		target := serve(t, right)
		r := newRequests(patient, target, Load{Conns: connsMany}, Meters{Server: clock})
		defer r.close()
		r.byWrk = byWrk
		require.NoError(t, r.meterOpening())
		require.Len(t, r.transport.idle, connsMany)
		cpu, wall := r.opening()
		require.Equal(t, byWrk, cpu > 0)
		require.Zero(t, wall, "wrk sends on the first before it has the last")
	}
}
