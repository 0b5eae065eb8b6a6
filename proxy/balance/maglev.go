package balance

import (
	"cmp"
	"math/bits"
	"slices"

	"atlas/proxy/invariant"
)

// tableSize is the number of slots of a Table: a prime, which makes each
// upstream's walk visit every slot, and of the two in the paper's section 5.3 the
// one that Envoy has by default. The paper asks for a hundred slots for each
// upstream to keep the shares within a percent, so this is enough for 655 of
// equal weight; with more the shares get coarser. The table takes 128 KiB, which
// stays in a core's second cache; the paper's other size, 655373, does not.
const tableSize = 65537

// rehashMax bounds how many other slots a key tries, as many as in nginx's hash.
// With half of the upstreams down, one key in a million is left after it.
const rehashMax = 20

// Table says for each key which upstream has it: a Maglev table (Eisenbud et
// al., Maglev: A Fast and Reliable Software Network Load Balancer, 2016,
// section 3.4). It depends on the IDs and weights of the upstreams only, not on
// their order, so everybody with the same upstreams has the same table.
//
// It is made once for a configuration, never changes, and all workers share it:
// what is up is asked at the pick. So the keys of an upstream that goes down
// spread over the others and come back when it does, and no other key moves.
type Table struct {
	upstreams int
	slots     []uint16 // index of the upstream; empty if none has a weight
}

// turn is one upstream while the slots are dealt out.
type turn struct {
	upstream   int
	id         ID
	slot, skip int   // its walk over the slots: the next one, and from there
	weight     int64 // what it gains in each round
	credit     int64 // at the highest weight of all it takes a slot
}

// NewTable makes the table of upstreams by their IDs and weights.
func NewTable(ups []Upstream) *Table {
	t := &Table{upstreams: len(ups)}
	invariant.That(len(ups) <= 1<<16, "an upstream's index fits into a slot")
	heaviest := int64(0)
	for i := range ups {
		heaviest = max(heaviest, int64(ups[i].Weight))
	}
	if heaviest == 0 {
		return t
	}
	turns := make([]turn, 0, len(ups))
	for i := range ups {
		weight := int64(ups[i].Weight)
		if weight == 0 {
			continue
		}
		id := uint64(ups[i].ID)
		turns = append(turns, turn{
			upstream: i,
			id:       ups[i].ID,
			slot:     below(mix(id), tableSize),
			skip:     1 + below(mix(id+prime1), tableSize-1),
			weight:   weight,
			credit:   heaviest - weight, // all take a slot in the first round
		})
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Compare(a.id, b.id) })
	t.deal(turns, heaviest)
	return t
}

// deal lets the upstreams take turns until no slot is left. At its turn each
// takes the first free slot of its walk, and the heaviest has one in every
// round. The paper leaves open how to do it by weight; here it is as often as
// the weight says, as in Envoy.
func (t *Table) deal(turns []turn, heaviest int64) {
	t.slots = make([]uint16, tableSize)
	taken := make([]bool, tableSize)
	left := tableSize
	for {
		for i := range turns {
			u := &turns[i]
			u.credit += u.weight
			if u.credit < heaviest {
				continue
			}
			u.credit -= heaviest
			for taken[u.slot] {
				u.slot = (u.slot + u.skip) % tableSize
			}
			taken[u.slot] = true
			t.slots[u.slot] = uint16(u.upstream)
			left--
			if left == 0 {
				return
			}
		}
	}
}

// below maps h evenly to 0 <= n < limit.
func below(h uint64, limit int) int {
	high, _ := bits.Mul64(h, uint64(limit))
	return int(high)
}

// byKey takes the upstream whose the key is. If that may not get the request,
// the key is hashed again, so that the keys of one upstream spread over all the
// others, by weight, and each goes to the same one every time. If that finds
// none in the bounded time it has, the key says what to draw from those left.
func (p *Picker) byKey(req Request, ups []Upstream, tried []int) int {
	if i := p.table.find(req, ups, tried, p.slowStart); i != None {
		return i
	}
	return draw(p.weights, p.weigh(ups, tried, req.Now), mix(req.Key))
}

// find looks for a candidate in the slots of a key. One that starts slowly has
// a part of its keys that grows with its share, and a key that has come stays;
// the others go on, but come back if they find nobody else.
func (t *Table) find(req Request, ups []Upstream, tried []int, slowStart int64) int {
	home := None
	if len(t.slots) == 0 {
		return None
	}
	h := req.Key
	for n := range uint64(1 + rehashMax) {
		i := int(t.slots[below(h, tableSize)])
		if eligible(ups, tried, i) {
			if slowStart == 0 || admits(&ups[i], req, slowStart) {
				return i
			}
			if home == None {
				home = i
			}
		}
		h = mix(req.Key + (n+1)*prime1)
	}
	return home
}

// admits tells whether the key is in the part that an upstream has in its slow
// start.
func admits(u *Upstream, req Request, window int64) bool {
	portion := share(u.Since, req.Now, window)
	return portion == shareFull || int64(below(mix(req.Key^uint64(u.ID)), shareFull)) < portion
}

// eligible tells whether upstream i may get a new request.
func eligible(ups []Upstream, tried []int, i int) bool {
	return ups[i].Up && ups[i].Weight > 0 && !slices.Contains(tried, i)
}
