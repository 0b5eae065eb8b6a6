package accesslog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/stats"
)

// What is pushed comes out, in order and whole, whatever the sizes; and what there
// is no room for is counted. The race detector judges, too.
func TestRing(t *testing.T) {
	const records = 20_000
	var dropped stats.Counter
	ring := newRing(1<<12, &dropped, make(chan struct{}, 1), make(chan struct{}, 1))
	format, err := ParseFormat("{target} {host}")
	require.NoError(t, err)
	ring.format.Store(format)
	targets := func() func() string {
		rng := rand.New(rand.NewPCG(1, 2))
		n := 0
		return func() string {
			n++
			return fmt.Sprint(n) + strings.Repeat("x", rng.IntN(600))
		}
	}
	var done sync.WaitGroup
	pushed := make(chan struct{})
	done.Go(func() {
		defer close(pushed)
		var r Record
		next := targets()
		for range records {
			r.Begin(moment, HTTP11)
			r.SetString(Target, next())
			r.SetString(Host, "host")
			ring.Push(&r)
		}
	})
	var got int64
	done.Go(func() {
		next := targets()
		for {
			lines := ring.peek(1000)
			if len(lines) == 0 {
				select {
				case <-pushed:
					if ring.empty() {
						return
					}
				default:
				}
				continue
			}
			for line := range bytes.Lines(lines) {
				for want := next() + " host\n"; want != string(line); want = next() + " host\n" { // dropped
					if strings.HasPrefix(want, fmt.Sprint(records)) {
						t.Errorf("%q was not pushed", line)
						return
					}
				}
				got++
			}
			ring.take(len(lines))
		}
	})
	done.Wait()
	assert.EqualValues(t, records, got+dropped.Load())
	assert.NotZero(t, got)
}

// A line of the greatest length fits, and none is too long for the ring.
func TestRingLongest(t *testing.T) {
	var dropped stats.Counter
	ring := newRing(ringBytes, &dropped, nil, nil)
	r := new(Record)
	r.Begin(moment, HTTP11)
	for text := range texts {
		r.SetString(text, strings.Repeat("\x7f", 1<<16)) // each is six bytes
	}
	ring.format.Store(new(Format))
	for range 100 {
		ring.Push(r)
		line := ring.peek(1)
		var members map[string]any
		require.NoError(t, json.Unmarshal(line, &members))
		assert.Equal(t, strings.Repeat("\x7f", textMax(Target)), members["target"])
		ring.take(len(line))
	}
	assert.Zero(t, dropped.Load())
}

func TestDraw(t *testing.T) {
	const draws = 100_000
	ring := newRing(1<<12, new(stats.Counter), nil, nil)
	for sample, want := range map[uint32]int{0: draws, 1: draws, 10: draws / 10, 1000: draws / 1000} {
		ring.sample.Store(sample)
		n := 0
		for range draws {
			if ring.Draw() {
				n++
			}
		}
		assert.InEpsilon(t, want, n, 0.4, "one of %d", sample)
	}
	assert.False(t, (*Ring)(nil).On())
}
