package attack

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/results"
	"atlas/scenarios"
)

// serveTLS runs a server with the lab's certificate in this process.
func serveTLS(t *testing.T, handler http.HandlerFunc, change func(*httptest.Server)) Target {
	identity, err := cert.Make(t.TempDir(), scenarios.ECDSA)
	require.NoError(t, err)
	pair, err := tls.LoadX509KeyPair(identity.Chain, identity.Key)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if change != nil {
		change(server)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return Target{
		Address: server.Listener.Addr().String(), TLS: identity.Client(), Path: "/1k.html", Length: length,
	}
}

func TestMeasureOverTLS(t *testing.T) {
	target := serveTLS(t, right, nil)
	for _, load := range []Load{tiny(4, 0), tiny(16, 200)} {
		s, err := Measure(t.Context(), patient, target, load, idle)
		require.NoError(t, err)
		require.Positive(t, s.Requests)
		require.Contains(t, s.Values, results.P99)
	}
}

// wrk offers what cert says, and what its handshakes cost is taken off.
func TestMeasureOverTLSByWrk(t *testing.T) {
	wrk := requireInstalled(t)
	var suites atomic.Int64
	target := serveTLS(t, right, func(s *httptest.Server) {
		s.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			suites.Store(int64(len(hello.CipherSuites)))
			return nil, nil
		}
	})
	// The server's clock goes 40 ms from one reading to the next: that much the
	// connections cost in the warm-up, and that much all of the measured phase.
	var reads atomic.Int64
	meters := Meters{Server: func() (time.Duration, error) {
		return 40 * time.Millisecond * time.Duration(reads.Add(1)), nil
	}}
	g := Generator{Wrk: wrk, Scratch: t.TempDir(), Cores: host.Allowed()[:1]}
	s, err := Measure(t.Context(), g, target, tiny(4, 0), meters)
	require.NoError(t, err)
	require.Positive(t, s.Requests)
	require.Zero(t, s.Values[results.CPU])
	require.EqualValues(t, 2, suites.Load(), "the one, and the mark of a client that renegotiates safely")
}

// wrk is alone in the measured phase: the connections of the warm-up are gone.
func TestWarmUpLeavesNothingToWrk(t *testing.T) {
	for _, wrk := range []string{"", "wrk"} {
		r := newRequests(Generator{Wrk: wrk, StallMax: time.Minute}, serve(t, right), tiny(2, 0), idle)
		_, err := r.warmUp(t.Context())
		require.NoError(t, err)
		require.Equal(t, wrk != "", r.transport.closed)
		require.Equal(t, wrk != "", len(r.transport.all) == 0)
		r.close()
	}
}

func TestMeasureHandshakes(t *testing.T) {
	for _, work := range []scenarios.Work{scenarios.Handshakes, scenarios.Resumptions} {
		var full, resumed atomic.Int64
		target := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
			if r.TLS.DidResume {
				resumed.Add(1)
			} else {
				full.Add(1)
			}
			right(w, r)
		}, nil)
		load := tiny(4, 0)
		load.Of = work
		s, err := Measure(t.Context(), patient, target, load, idle)
		require.NoError(t, err)
		require.GreaterOrEqual(t, s.Requests, 4, "each worker makes one at least")
		for _, unit := range []string{results.HandshakeCPU, results.ClientHandshakeCPU, results.Mean, results.P99} {
			require.Contains(t, s.Values, unit)
		}
		require.NotContains(t, s.Values, results.CPU)
		if work == scenarios.Handshakes {
			require.Zero(t, resumed.Load())
			continue
		}
		require.EqualValues(t, 4, full.Load(), "the first of each worker, in the warm-up")
		require.GreaterOrEqual(t, resumed.Load(), int64(s.Requests))
	}
}

func TestMeasureHandshakesRefuses(t *testing.T) {
	for _, row := range []struct {
		name, want string
		work       scenarios.Work
		handler    http.HandlerFunc
		change     func(*httptest.Server)
	}{
		{"no tickets", "handshake resumed: false, want true", scenarios.Resumptions, right,
			func(s *httptest.Server) { s.TLS.SessionTicketsDisabled = true }},
		{"old TLS", "protocol version", scenarios.Handshakes, right,
			func(s *httptest.Server) { s.TLS.MaxVersion = tls.VersionTLS12 }},
		{"an error", "answer \"HTTP/1.1 500", scenarios.Handshakes,
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			load := tiny(2, 0)
			load.Of = row.work
			load.Measured = 200 * time.Millisecond
			_, err := Measure(t.Context(), patient, serveTLS(t, row.handler, row.change), load, idle)
			require.ErrorContains(t, err, row.want)
			require.IsType(t, &Unsound{}, err)
		})
	}
}

// Another certificate than the lab's is an error, whoever asks.
func TestMeasureRefusesOtherCertificate(t *testing.T) {
	target := serveTLS(t, right, nil)
	target.TLS = serveTLS(t, right, nil).TLS
	for _, work := range []scenarios.Work{scenarios.Requests, scenarios.Handshakes, scenarios.Idle} {
		load := tiny(2, 0)
		load.Of = work
		_, err := Measure(t.Context(), patient, target, load, resting(0, 1<<20))
		require.ErrorContains(t, err, "a certificate other than the lab's", "%s", work)
	}
}

// Handshakes beside an open loop happen at their rate, and their errors count.
func TestMeasureCrowded(t *testing.T) {
	var closed atomic.Int64
	count := func(w http.ResponseWriter, r *http.Request) {
		if r.Close {
			closed.Add(1)
		}
		right(w, r)
	}
	load := Load{Conns: 8, Rate: 100, Crowd: 100, Warmup: 10 * time.Millisecond, Measured: 300 * time.Millisecond}
	s, err := Measure(t.Context(), patient, serveTLS(t, count, nil), load, idle)
	require.NoError(t, err)
	require.Equal(t, 30, s.Requests)
	require.Positive(t, closed.Load())
	require.Contains(t, s.Values, results.P99)
	require.NotContains(t, s.Values, results.CPU, "it would be that of requests and handshakes together")

	refusing := func(w http.ResponseWriter, r *http.Request) {
		if r.Close {
			w.WriteHeader(503)
			return
		}
		right(w, r)
	}
	g := patient
	g.CrowdMin = 0.9
	_, err = Measure(t.Context(), g, serveTLS(t, refusing, nil), load, idle)
	require.ErrorContains(t, err, "measured phase: ")
	require.ErrorContains(t, err, "HTTP/1.1 503")
	require.ErrorContains(t, err, "handshakes beside the requests")
}

func TestMeasureHandshakesInterrupted(t *testing.T) {
	hang := make(chan struct{})
	target := serveTLS(t, func(http.ResponseWriter, *http.Request) { <-hang }, nil)
	t.Cleanup(func() { close(hang) }) // before the server waits for its handlers
	load := Load{Of: scenarios.Handshakes, Conns: 2, Warmup: time.Millisecond, Measured: time.Millisecond}
	_, err := Measure(t.Context(), Generator{StallMax: 50 * time.Millisecond}, target, load, idle)
	require.ErrorContains(t, err, "warm-up: 2 errors")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Measure(ctx, patient, target, load, idle)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// resting are meters of a server whose memory is first this and then that.
func resting(before, after int64) Meters {
	reads := 0
	return Meters{Server: idle.Server, Resident: func() (int64, error) {
		if reads++; reads == 1 {
			return before, nil
		}
		return after, nil
	}}
}

func TestMeasureIdle(t *testing.T) {
	var conns, open atomic.Int64
	count := func(s *httptest.Server) {
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}
	}
	var requests atomic.Int64
	target := serveTLS(t, func(w http.ResponseWriter, r *http.Request) { requests.Add(1); right(w, r) }, count)
	load := tiny(40, 0)
	load.Of = scenarios.Idle
	meters, atRest := resting(5<<20, 5<<20+40_000), int64(0)
	read := meters.Resident
	meters.Resident = func() (int64, error) {
		atRest = open.Load()
		return read()
	}
	s, err := Measure(t.Context(), patient, target, load, meters)
	require.NoError(t, err)
	require.Equal(t, 40, s.Requests)
	require.Equal(t, map[string]float64{results.Resident: 1000, results.ResidentBefore: 5 << 20, results.Errors: 0}, s.Values)
	require.EqualValues(t, 41, conns.Load(), "with that of the warm-up")
	require.EqualValues(t, 41, atRest, "all at once")
	require.GreaterOrEqual(t, requests.Load(), int64(2*40))
}

func TestMeasureIdleRefuses(t *testing.T) {
	load := tiny(4, 0)
	load.Of = scenarios.Idle
	_, err := Measure(t.Context(), patient, serve(t, right), load, resting(5<<20, 5<<20))
	require.ErrorContains(t, err, "resident memory went from 5242880 to 5242880 bytes with 4 connections")
	require.IsType(t, &Unsound{}, err)

	_, err = Measure(t.Context(), patient, serve(t, right), load, idle)
	require.ErrorIs(t, err, host.ErrUnsupported)

	closing := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		right(w, r)
	})
	_, err = Measure(t.Context(), patient, closing, load, resting(0, 1<<20))
	require.ErrorContains(t, err, "the server ends a connection that is to rest")

	hang := make(chan struct{})
	var served atomic.Int64
	silent := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) > 2 { // the warm-up has had one
			<-hang
		}
		right(w, r)
	})
	t.Cleanup(func() { close(hang) })                // before the server waits for its handlers
	g := Generator{StallMax: 500 * time.Millisecond} // the warm-up is to end in it, on a busy machine, too
	load.Warmup = 0
	_, err = Measure(t.Context(), g, silent, load, resting(0, 1<<20))
	require.ErrorContains(t, err, "stalled for 3s")
}
