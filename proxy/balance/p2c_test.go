package balance

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestP2C(t *testing.T) {
	down := busy([2]int32{0, 1}, [2]int32{5, 1})
	down[0].Up = false
	for _, row := range []struct {
		name  string
		ups   []Upstream
		tried []int
		want  string
	}{
		{"the less busy of two", busy([2]int32{3, 1}, [2]int32{1, 1}), nil, "bbbb"},
		{"for its weight", busy([2]int32{3, 1}, [2]int32{4, 2}), nil, "bbbb"},
		{"also if it is hardly drawn", busy([2]int32{0, 1}, [2]int32{1, 1000}), nil, "aaaa"},
		{"down gets nothing", down, nil, "bbbb"},
		{"tried gets nothing", busy([2]int32{0, 1}, [2]int32{5, 1}), []int{0}, "bbbb"},
		{"weight 0 gets nothing", busy([2]int32{0, 0}, [2]int32{5, 1}), nil, "bbbb"},
		{"one is enough", busy([2]int32{9, 3}), nil, "aaaa"},
		{"all tried", busy([2]int32{0, 1}), []int{0}, "----"},
		{"no upstreams", nil, nil, "----"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := NewPicker(P2C, row.ups, 0, 5)
			assert.Equal(t, row.want, letters(p, row.ups, row.tried, len(row.want)))
		})
	}
}

// Of three the busiest never wins, as its opponent is another one.
func TestP2CDrawsTwo(t *testing.T) {
	ups := busy([2]int32{1, 1}, [2]int32{9, 1}, [2]int32{2, 1})
	counts := count(NewPicker(P2C, ups, 0, 3), Request{}, ups, 30_000)
	assert.InEpsilon(t, 20_000, counts[0], 0.05, "it wins two of the three pairs")
	assert.Zero(t, counts[1])
	assert.InEpsilon(t, 10_000, counts[2], 0.05)
}

// The second one is drawn by weight as well.
func TestPairFollowsWeight(t *testing.T) {
	ups := up(1, 2, 0, 5)
	p := NewPicker(P2C, ups, 0, 3)
	const draws = 200_000
	seconds := make(map[[2]int]int)
	for range draws {
		first, second := pair(p.weights, p.weigh(ups, nil, 0), &p.rng)
		seconds[[2]int{first, second}]++
	}
	assert.Len(t, seconds, 6)
	weight := []float64{1, 2, 0, 5}
	for got, n := range seconds {
		first, second := weight[got[0]], weight[got[1]]
		assert.InEpsilon(t, first/8*second/(8-first)*draws, n, 0.05, "%v", got)
	}
}
