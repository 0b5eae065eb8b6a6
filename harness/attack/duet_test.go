package attack

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/harness/origin"
)

// served is a server of the document, whose answers count.
func served(t *testing.T, handler http.HandlerFunc) (Target, *atomic.Int64) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	return Target{Address: strings.TrimPrefix(server.URL, "http://"), Path: "/1k.html", Length: 1024}, &n
}

func serveDocument(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(origin.Document(1024)) }

// ticking is a clock that has gone on by a step whenever it is read.
func ticking(step time.Duration) func() (time.Duration, error) {
	now := time.Duration(0)
	return func() (time.Duration, error) { now += step; return now, nil }
}

func TestDuet(t *testing.T) {
	a, answeredA := served(t, serveDocument)
	b, answeredB := served(t, serveDocument)
	d, err := Generator{}.OpenDuet([]Arm{{"a", a, ticking(time.Second)}, {"b", b, ticking(time.Minute)}}, 3)
	require.NoError(t, err)
	defer d.Close()
	counted := [2]int{}
	for range 3 {
		slices, err := d.Slice(t.Context(), time.Millisecond)
		require.NoError(t, err)
		require.Len(t, slices, 2)
		require.Equal(t, time.Second, slices[0].CPU, "clocks are read once between slices")
		require.Equal(t, time.Minute, slices[1].CPU)
		for i, s := range slices {
			require.GreaterOrEqual(t, s.Requests, 3, "one a connection")
			require.GreaterOrEqual(t, s.Wall, time.Millisecond)
			counted[i] += s.Requests
		}
	}
	require.Equal(t, [2]int{int(answeredA.Load()), int(answeredB.Load())}, counted, "every answer counts once")
}

func TestDuetRefuses(t *testing.T) {
	good, _ := served(t, serveDocument)
	wrong, _ := served(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(origin.Document(1023)) })
	ended := make(chan struct{})
	defer close(ended)
	stalling, _ := served(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-ended:
		case <-r.Context().Done():
		}
	})
	g := Generator{StallMax: time.Second} // in which a busy machine answers
	for _, row := range []struct {
		arm  Target
		want string
	}{{wrong, "bad: 2 errors; Content-Length 1023, want 1024"}, {stalling, "bad: 3 errors; "}} {
		d, err := g.OpenDuet([]Arm{{"good", good, ticking(1)}, {"bad", row.arm, ticking(1)}}, 2)
		require.NoError(t, err)
		_, err = d.Slice(t.Context(), time.Millisecond)
		require.ErrorContains(t, err, row.want)
		_, unsound := errors.AsType[*Unsound](err)
		require.True(t, unsound)
		d.Close()
	}
	_, err := g.OpenDuet([]Arm{{"nobody", Target{Address: "127.0.0.1:1"}, ticking(1)}}, 1)
	require.ErrorContains(t, err, "nobody: connect: ")

	d, err := g.OpenDuet([]Arm{{"stalling", stalling, ticking(1)}}, 1)
	require.NoError(t, err)
	defer d.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	_, err = d.Slice(ctx, time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}

// By wrk a slice has connections of wrk's own, and is checked as it checks.
func TestDuetByWrk(t *testing.T) {
	wrk := requireInstalled(t)
	a, answeredA := served(t, serveDocument)
	var wrong atomic.Bool
	b, answeredB := served(t, func(w http.ResponseWriter, r *http.Request) {
		if wrong.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		serveDocument(w, r)
	})
	g := Generator{Wrk: wrk, Scratch: t.TempDir(), Cores: host.Allowed()[:1]}
	d, err := g.OpenDuet([]Arm{{"a", a, ticking(time.Second)}, {"b", b, ticking(time.Minute)}}, 2)
	require.NoError(t, err)
	defer d.Close()
	_, err = d.Slice(t.Context(), time.Millisecond)
	require.NoError(t, err)
	before := [2]int64{answeredA.Load(), answeredB.Load()}
	slices, err := d.SliceByWrk(t.Context(), time.Second)
	require.NoError(t, err)
	for _, s := range slices {
		require.Zero(t, s.CPU, "as much as it took to open connections and close them")
		require.GreaterOrEqual(t, s.Wall, time.Second)
	}
	for i, answered := range []int64{answeredA.Load(), answeredB.Load()} {
		// What it has asked when it ends it does not wait for.
		require.InDelta(t, answered-before[i], slices[i].Requests, 4)
		require.Positive(t, slices[i].Requests)
	}
	wrong.Store(true)
	_, err = d.SliceByWrk(t.Context(), time.Second)
	require.ErrorContains(t, err, "b: ")
	require.ErrorContains(t, err, "status other than 2xx and 3xx")
	_, unsound := errors.AsType[*Unsound](err)
	require.True(t, unsound)
}
