package balance

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestID(t *testing.T) {
	assert.Equal(t, "d24ec4f1a98c6e5b", string(IDOf("a").Append(nil)), "a change of it breaks every session")
	assert.NotEqual(t, IDOf("a"), IDOf("b"))
	assert.NotZero(t, IDOf(""))
	assert.Equal(t, "lb=0000000000000007", string(ID(7).Append([]byte("lb="))))

	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		id := ID(rng.Uint64() >> rng.IntN(64))
		assert.Equal(t, id, ParseID(id.Append(nil)))
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"short":         "d24ec4f1a98c6e5",
		"long":          "d24ec4f1a98c6e5b0",
		"capitals":      "D24EC4F1A98C6E5B",
		"not a digit":   "d24ec4f1a98c6e5g",
		"before digits": "d24ec4f1a98c6e5/",
		"quoted":        `"24ec4f1a98c6e5"`,
		"zero":          "0000000000000000",
	} {
		assert.Zero(t, ParseID([]byte(text)), name)
	}
}

func TestStick(t *testing.T) {
	down := up(1, 1, 1)
	down[1].Up = false
	starting := up(1, 1, 1)
	starting[1].Since = 1
	for _, row := range []struct {
		name  string
		ups   []Upstream
		stick ID
		tried []int
		want  string
	}{
		{"no cookie", up(1, 1, 1), 0, nil, "abca"},
		{"one upstream", up(1, 1, 1), IDOf("upstream-1"), nil, "bbbb"},
		{"one of no upstream", up(1, 1, 1), IDOf("removed"), nil, "abca"},
		{"a busier one", busy([2]int32{0, 1}, [2]int32{100, 1}), IDOf("upstream-1"), nil, "bbbb"},
		{"one that starts slowly", starting, IDOf("upstream-1"), nil, "bbbb"},
		{"one that is down", down, IDOf("upstream-1"), nil, "acac"},
		{"one that was tried", up(1, 1, 1), IDOf("upstream-1"), []int{1}, "acac"},
		{"one that is drained", up(1, 0, 1), IDOf("upstream-1"), nil, "acac"},
		{"no upstreams", nil, IDOf("upstream-1"), nil, "----"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := New(Config{Strategy: RoundRobin, SlowStart: 1000}, row.ups)
			got := ""
			for range row.want {
				got += string("-abc"[p.PickFor(Request{Stick: row.stick, Now: 2}, row.ups, row.tried)+1])
			}
			assert.Equal(t, row.want, got)
		})
	}
}

// The ID outlives a new order of the upstreams, and no strategy overrules it.
func TestStickEverywhere(t *testing.T) {
	ups := up(1, 2, 3)
	cookie := ups[0].ID.Append(nil)
	slices.Reverse(ups)
	for _, strategy := range Strategies() {
		p := NewPicker(strategy, ups, 1, 1)
		keys(100, func(key uint64) {
			assert.Equal(t, 2, p.PickFor(Request{Key: key, Stick: ParseID(cookie)}, ups, nil), strategy)
		})
	}
}

// Turns go on from where they were.
func TestStickTakesNoTurn(t *testing.T) {
	ups := up(5, 1, 1)
	p := NewPicker(RoundRobin, ups, 0, 0)
	got := ""
	for range 7 {
		assert.Equal(t, 2, p.PickFor(Request{Stick: ups[2].ID}, ups, nil))
		got += letters(p, ups, nil, 1)
	}
	assert.Equal(t, "aabacaa", got)
}

func TestAllocsStick(t *testing.T) {
	ups := up(1, 2, 3)
	p := NewPicker(RoundRobin, ups, 0, 0)
	cookie := make([]byte, 0, idText)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		cookie = ups[2].ID.Append(cookie[:0])
		p.PickFor(Request{Stick: ParseID(cookie)}, ups, nil)
	}))
}
