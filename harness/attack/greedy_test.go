package attack

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/results"
	"atlas/scenarios"
)

// TestMain lets the test binary be the greedy client, as the harness is.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != VerbGreedy {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client, err := ParseGreedy(os.Stderr, os.Args[2:])
	if err == nil {
		err = client.Run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// wanting is a generator with a greedy client, and its load.
func wanting(t *testing.T, greed scenarios.Greed) (Generator, Load) {
	self, err := os.Executable()
	require.NoError(t, err)
	g := patient
	g.Harness = self
	return g, Load{Conns: 8, Rate: 100, Greedy: greed, Warmup: 10 * time.Millisecond, Measured: 500 * time.Millisecond}
}

// measureAwake measures until the greedy client came to do something, unless that is what is
// wanted: it gives way to everybody, on a busy machine for as long as it is measured. asked
// counts the requests of one try.
func measureAwake(t *testing.T, g Generator, target Target, load Load, want string, asked *atomic.Int64) (Sample, error) {
	for try := 0; ; try++ {
		asked.Store(0)
		s, err := Measure(t.Context(), g, target, load, idle)
		if err == nil || try == 20 {
			return s, err
		}
		idled := strings.Contains(err.Error(), "it got no work done") && !strings.Contains(want, "it got no work done")
		if !idled && !strings.Contains(err.Error(), "signal: killed") { // as it did not end in time, either
			return s, err
		}
	}
}

// generous serves everybody what a greedy client wants.
func generous(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		_, _ = io.Copy(io.Discard, r.Body)
	case r.URL.Path == scenarios.GreedyPath:
		w.Header().Set("Content-Length", fmt.Sprint(scenarios.GreedyLength))
		piece := []byte(strings.Repeat("x", 1<<20))
		for range scenarios.GreedyLength / len(piece) {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	default:
		right(w, r)
	}
}

// The load is measured twice, without the greedy client and beside it, and what
// that got is a figure of its own.
func TestMeasureGreedy(t *testing.T) {
	for greed, unit := range map[scenarios.Greed]string{
		scenarios.Upload: results.GreedyBytes, scenarios.Download: results.GreedyBytes, scenarios.Pipeline: results.GreedyThroughput,
	} {
		t.Run(string(greed), func(t *testing.T) {
			var asked, posted atomic.Int64
			target := serve(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.Method == http.MethodPost {
					posted.Add(1)
				}
				generous(w, r)
			})
			g, load := wanting(t, greed)
			s, err := measureAwake(t, g, target, load, "", &asked)
			require.NoError(t, err)
			require.Equal(t, 50, s.Requests, "beside the greedy client")
			require.Greater(t, asked.Load(), int64(2*50), "and as many without it")
			require.Equal(t, greed == scenarios.Upload, posted.Load() > 0)
			require.Positive(t, s.Values[unit])
			require.Positive(t, s.Values[results.AloneP99])
			require.InDelta(t, s.Values[results.P99], s.Values[results.P99Rise]*s.Values[results.AloneP99], 1)
			require.NotContains(t, s.Values, results.CPU, "it would be that of the greedy client, too")
			if greed == scenarios.Pipeline {
				require.Greater(t, asked.Load(), int64(2*50+scenarios.GreedyDepth))
			}
		})
	}
}

// A greedy client that is refused, is sent away, or waits for ever is none.
func TestMeasureGreedyRefuses(t *testing.T) {
	var hang chan struct{}
	for _, row := range []struct {
		name  string
		greed scenarios.Greed
		serve http.HandlerFunc // of the greedy client
		want  string
	}{
		{"too large", scenarios.Upload, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }, "greedy client: "},
		{"elsewhere", scenarios.Download, http.NotFound, `answer "HTTP/1.1 404 Not Found", want HTTP/1.1 200`},
		{"another length", scenarios.Download, right, "Content-Length 1024, want 104857600"},
		{"sent away", scenarios.Pipeline, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			right(w, r)
		}, "the server ends the connection"},
		{"silence", scenarios.Download, func(http.ResponseWriter, *http.Request) { <-hang }, "it got no work done: 0 bytes and 0 answers"},
		{"nobody reads", scenarios.Upload, func(http.ResponseWriter, *http.Request) { <-hang }, "it got no work done: "},
	} {
		t.Run(row.name, func(t *testing.T) {
			var asked atomic.Int64
			target := serve(t, func(w http.ResponseWriter, r *http.Request) {
				// The others have asked so often before the greedy client comes.
				if n := asked.Add(1); r.Method == http.MethodPost || r.URL.Path == scenarios.GreedyPath ||
					row.greed == scenarios.Pipeline && n > 60 {
					row.serve(w, r)
					return
				}
				right(w, r)
			})
			hang = make(chan struct{})
			t.Cleanup(func() { close(hang) }) // before the server waits for its handlers
			g, load := wanting(t, row.greed)
			_, err := measureAwake(t, g, target, load, row.want, &asked)
			require.ErrorContains(t, err, row.want)
			require.ErrorContains(t, err, "measured phase: ")
			require.IsType(t, &Unsound{}, err)
		})
	}
	g, load := wanting(t, scenarios.Pipeline)
	g.Harness = t.TempDir()
	_, err := Measure(t.Context(), g, serve(t, right), load, idle)
	require.ErrorIs(t, err, os.ErrPermission)
}

// What goes wrong without the greedy client is told as that.
func TestMeasureAloneRefuses(t *testing.T) {
	var asked atomic.Int64
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 20 {
			w.WriteHeader(500)
			return
		}
		right(w, r)
	})
	g, load := wanting(t, scenarios.Pipeline)
	_, err := Measure(t.Context(), g, target, load, idle)
	require.ErrorContains(t, err, "without the greedy client: ")

	g.LateMax = time.Nanosecond
	_, err = Measure(t.Context(), g, serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		right(w, r)
	}), load, idle)
	require.ErrorContains(t, err, "rate missed: ")
}
