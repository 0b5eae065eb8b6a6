package stats

import (
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSnapshotSums(t *testing.T) {
	set := NewSet(2, []string{"", "bare-lf", "cl-te"})
	set.Worker(0).Requests.Add(3)
	set.Worker(1).Requests.Add(4)
	set.Worker(1).Respond(204)
	set.Worker(1).Respond(599)
	set.Worker(1).Respond(0)
	set.Worker(1).Respond(600)
	set.Worker(0).FailClient(HeadTooLarge)
	set.Worker(1).FailUpstream(UpstreamReset)
	set.Worker(0).RefusedRequests[1].Add(1)
	set.Worker(0).RefusedRequests[2].Add(1)
	set.Worker(1).RefusedRequests[2].Add(1)
	set.Worker(1).RefusedResponses[2].Add(1)
	set.Worker(1).RefusedResponses[3].Add(1) // has no name

	counts := make(map[string]int64)
	for _, v := range set.Snapshot(nil) {
		if v.Count != 0 {
			counts[v.Name+" "+v.Of] = v.Count
		}
	}
	assert.Equal(t, map[string]int64{
		"requests_total ":                    7,
		"responses_total 2xx":                1,
		"responses_total 5xx":                1,
		"client_errors_total head_too_large": 1,
		"upstream_errors_total reset":        1,
		"requests_refused_total bare-lf":     1,
		"requests_refused_total cl-te":       2,
		"responses_refused_total cl-te":      1,
	}, counts)
}

// Every counter of Stats is in the snapshot, once, under a name of its own.
func TestSnapshotNames(t *testing.T) {
	set := NewSet(1, allReasons())
	worker := set.Worker(0)
	var counters []*Counter
	var collect func(v reflect.Value)
	collect = func(v reflect.Value) {
		if c, ok := v.Addr().Interface().(*Counter); ok {
			counters = append(counters, c)
			return
		}
		require.Equal(t, reflect.Array, v.Kind(), "a field of Stats is a Counter or an array of them")
		for i := range v.Len() {
			collect(v.Index(i))
		}
	}
	stats := reflect.ValueOf(worker).Elem()
	for i := range stats.NumField() {
		// The times are no counters: see TestDistributions.
		if f := stats.Type().Field(i); f.IsExported() && f.Name != "Phases" {
			collect(stats.Field(i))
		}
	}
	for i, c := range counters {
		c.Add(int64(i + 1))
	}
	names := make(map[string]bool)
	counts := make(map[int64]bool)
	for _, v := range set.Snapshot(nil) {
		assert.NotContains(t, v.Of, "unknown", v.Name)
		assert.Equal(t, v.Label != "", v.Of != "", v.Name)
		assert.NotEmpty(t, v.Help, v.Name)
		names[v.Name+v.Of] = true
		counts[v.Count] = true
	}
	assert.Len(t, names, len(counters))
	assert.Len(t, counts, len(counters), "a counter of Stats is missing in each, or in it twice")
}

// allReasons are as many names as there is room for.
func allReasons() (reasons []string) {
	for i := range ReasonsMax {
		reasons = append(reasons, fmt.Sprint("reason-", i))
	}
	return reasons
}

func TestEnumsEnd(t *testing.T) {
	assert.Equal(t, "unknown", clientErrors.String())
	assert.Equal(t, "unknown", upstreamErrors.String())
	assert.Equal(t, "unknown", handshakeErrors.String())
}

// Two Stats next to each other in memory must not share a cache line.
func TestPadding(t *testing.T) {
	typ := reflect.TypeFor[Stats]()
	first, _ := typ.FieldByName("Requests")
	last, _ := typ.FieldByName("RefusedResponses")
	assert.GreaterOrEqual(t, first.Offset, uintptr(lineBytes))
	assert.GreaterOrEqual(t, typ.Size()-last.Offset-last.Type.Size(), uintptr(lineBytes))
}

// The race detector judges this one.
func TestReadWhileCounting(t *testing.T) {
	const rounds = 1000
	set := NewSet(3, nil)
	var wg sync.WaitGroup
	for i := range set.Len() {
		wg.Go(func() {
			for range rounds {
				set.Worker(i).Requests.Add(1)
			}
		})
	}
	var values []Value
	for range 100 {
		values = set.Snapshot(values[:0])
	}
	wg.Wait()
	values = set.Snapshot(values[:0])
	var requests int64
	for _, v := range values {
		if v.Name == "requests_total" {
			requests = v.Count
		}
	}
	assert.EqualValues(t, 3*rounds, requests)
}

func TestAllocs(t *testing.T) {
	set := NewSet(4, allReasons())
	values := set.Snapshot(nil)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		worker := set.Worker(1)
		worker.Requests.Add(1)
		worker.Respond(200)
		worker.FailUpstream(Refused)
		values = set.Snapshot(values[:0])
	}))
}

func BenchmarkAdd(b *testing.B) {
	worker := NewSet(1, nil).Worker(0)
	for b.Loop() {
		worker.Requests.Add(1)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	b.Run("workers=8", func(b *testing.B) {
		set := NewSet(8, allReasons())
		var values []Value
		for b.Loop() {
			values = set.Snapshot(values[:0])
		}
	})
}
