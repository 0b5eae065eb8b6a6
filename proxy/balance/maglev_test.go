package balance

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTableShares(t *testing.T) {
	for _, row := range []struct {
		name    string
		weights []int32
	}{
		{"one", []int32{7}},
		{"two", []int32{1, 1}},
		{"equal", slices.Repeat([]int32{3}, 100)},
		{"different", []int32{1, 2, 3, 4, 5, 6, 7, 8}},
		{"some of weight 0", []int32{0, 2, 0, 1}},
		{"one much lighter", []int32{1000, 1}},
		{"one much heavier", append(slices.Repeat([]int32{1}, 20), 1000)},
		{"as many as a percent allows", slices.Repeat([]int32{1}, 655)},
	} {
		t.Run(row.name, func(t *testing.T) {
			table := NewTable(up(row.weights...))
			counts, total := make([]int, len(row.weights)), 0
			for _, i := range table.slots {
				counts[i]++
			}
			for _, w := range row.weights {
				total += int(w)
			}
			for i, w := range row.weights {
				// A percent, or the one slot more that a turn may bring.
				want := float64(tableSize) * float64(w) / float64(total)
				assert.InDelta(t, want, counts[i], max(want/100, 1), "upstream %d of weight %d", i, w)
			}
		})
	}
	assert.Empty(t, NewTable(up(0, 0)).slots)
	assert.Empty(t, NewTable(nil).slots)
}

// Whoever has the same upstreams, in any order, in any process, now or after an
// update, sends a key to the same one. A change of these numbers moves the keys
// of everybody.
func TestTableIsStable(t *testing.T) {
	table := NewTable(up(1, 1, 2))
	digest := make([]byte, 0, 2*tableSize)
	for _, i := range table.slots {
		digest = binary.LittleEndian.AppendUint16(digest, i)
	}
	assert.Equal(t, []uint16{0, 2, 1, 2, 2, 1, 2, 0, 0, 2, 1, 2}, table.slots[:12])
	assert.Equal(t, uint64(0x3a39a7a04fbf1bd9), xxh64(digest))

	ups := up(3, 1, 4, 1, 5, 9, 2, 6)
	table = NewTable(ups)
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(ups))
	shuffled := make([]Upstream, len(ups))
	for to, from := range order {
		shuffled[to] = ups[from]
	}
	for slot, to := range NewTable(shuffled).slots {
		if from := order[to]; from != int(table.slots[slot]) {
			t.Fatalf("slot %d is of %d, after shuffling of %d", slot, table.slots[slot], from)
		}
	}
}

// keys calls f with many keys.
func keys(n int, f func(key uint64)) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range n {
		f(max(rng.Uint64(), 1))
	}
}

// One of n that is taken out of the configuration moves its keys and next to no
// others.
func TestTableWithout(t *testing.T) {
	for _, n := range []int{2, 3, 8, 50, 200} {
		ups := equal(n)
		before, after := NewTable(ups), NewTable(append(slices.Clone(ups[:n/2]), ups[n/2+1:]...))
		own, moved := 0, 0
		for slot, i := range before.slots {
			now := int(after.slots[slot])
			if now >= n/2 {
				now++
			}
			if int(i) == n/2 {
				own++
			} else if now != int(i) {
				moved++
			}
		}
		assert.InEpsilon(t, 1/float64(n), float64(own)/tableSize, 0.02)
		assert.Less(t, float64(moved)/tableSize, 0.01, "%d upstreams", n)
		t.Logf("1 of %d taken out: %.2f %% of the keys were its, %.2f %% moved besides", n,
			100*float64(own)/tableSize, 100*float64(moved)/tableSize)
	}
}

// One that goes down or was tried moves its keys only, by weight to the others,
// and every worker moves them alike.
func TestHashWithout(t *testing.T) {
	ups := up(1, 2, 3, 4)
	before := New(Config{Strategy: Hash}, ups)
	after := New(Config{Strategy: Hash, Worker: 3, Seed: 9, Table: before.table}, ups)
	down := slices.Clone(ups)
	down[2].Up = false
	drained := slices.Clone(ups)
	drained[2].Weight = 0
	moved, counts := 0.0, make([]int, len(ups))
	keys(100_000, func(key uint64) {
		req := Request{Key: key}
		home := before.PickFor(req, ups, nil)
		next := after.PickFor(req, down, nil)
		assert.Equal(t, next, after.PickFor(req, ups, []int{2}))
		assert.Equal(t, next, after.PickFor(req, drained, nil))
		if home == 2 {
			counts[next]++
			moved++
		} else if next != home {
			t.Fatalf("key %x moved from %d to %d", key, home, next)
		}
	})
	assert.InEpsilon(t, 30_000, moved, 0.05)
	for i, weight := range []float64{1, 2, 0, 4} {
		assert.InDelta(t, weight/7*moved, counts[i], 0.05*weight/7*moved, "upstream %d of %v", i, counts)
	}
}

// However few are left, the key finds one, the same every time and by weight.
func TestHashFindsTheLast(t *testing.T) {
	ups := equal(200)
	p := New(Config{Strategy: IPHash}, ups)
	for i := range ups {
		ups[i].Up = i == 17 || i == 170
	}
	counts := make(map[int]int)
	keys(20_000, func(key uint64) {
		req := Request{Key: key}
		i := p.PickFor(req, ups, nil)
		assert.Equal(t, i, p.PickFor(req, ups, nil))
		assert.Equal(t, 187-i, p.PickFor(req, ups, []int{i}))
		counts[i]++
	})
	assert.Len(t, counts, 2)
	assert.InEpsilon(t, 10_000, counts[17], 0.05)
}

// Requests without a key must not all go to one upstream.
func TestHashWithoutKey(t *testing.T) {
	ups := up(1, 1, 1)
	assert.Equal(t, "abcabc", letters(New(Config{Strategy: Hash}, ups), ups, nil, 6))
}

// Keys come to an upstream that starts as its share grows, and stay.
func TestHashSlowStart(t *testing.T) {
	const window, n = 1000, 20_000
	ups := equal(4)
	ups[1].Since = 1
	p := New(Config{Strategy: Hash, SlowStart: window}, ups)
	came := make(map[uint64]bool)
	for age := int64(0); age <= window; age += 125 {
		counts := make([]int, len(ups))
		keys(n, func(key uint64) {
			i := p.PickFor(Request{Key: key, Now: 1 + age}, ups, nil)
			counts[i]++
			if came[key] && i != 1 {
				t.Fatalf("key %x left at %d", key, age)
			}
			came[key] = i == 1
		})
		own := float64(n) / 4 * float64(share(1, 1+age, window)) / shareFull
		assert.InDelta(t, own, counts[1], 0.05*n/4, "at %d: %v", age, counts)
		for _, i := range []int{0, 2, 3} {
			assert.InEpsilon(t, (n-own)/3, counts[i], 0.05, "at %d: %v", age, counts)
		}
	}
	keys(n, func(key uint64) {
		assert.Equal(t, p.PickFor(Request{Key: key, Now: window + 1}, ups, nil) == 1, came[key])
	})

	// Where all of them start there is nobody to go to: each key is at home.
	rested := New(Config{Strategy: Hash}, ups)
	for i := range ups {
		ups[i].Since = 1
	}
	at := 0
	keys(n, func(key uint64) {
		req := Request{Key: key, Now: 2}
		if p.PickFor(req, ups, nil) == rested.PickFor(req, ups, nil) {
			at++
		}
	})
	assert.Greater(t, float64(at)/n, 0.7)
}

func BenchmarkNewTable(b *testing.B) {
	for _, n := range []int{8, 64, 1024} {
		for _, heaviest := range []int32{1, 1000} {
			b.Run(fmt.Sprintf("upstreams=%d/heaviest=%d", n, heaviest), func(b *testing.B) {
				ups := equal(n)
				ups[n/2].Weight = heaviest
				for b.Loop() {
					NewTable(ups)
				}
			})
		}
	}
}
