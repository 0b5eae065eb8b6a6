package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// peersLocks is how many connections may be counted at once.
const peersLocks = 64

// Peers counts the open connections of each address.
type Peers struct {
	bound  atomic.Int64
	shards [peersLocks]peersShard
}

type peersShard struct {
	mu   sync.Mutex
	open map[netip.Addr]*Peer
	_    [64]byte // workers that count different peers stay out of each other's way
}

// Peer is an address with connections. It is forgotten with the last one.
type Peer struct {
	shard   *peersShard
	address netip.Addr
	open    int
}

// NewPeers makes an account of no connections. 0 counts them and bounds none.
func NewPeers(bound int) *Peers {
	p := new(Peers)
	for i := range p.shards {
		p.shards[i].open = make(map[netip.Addr]*Peer)
	}
	p.Set(bound)
	return p
}

// Set changes how many connections an address may have. Those that are open stay.
func (p *Peers) Set(bound int) { p.bound.Store(int64(bound)) }

// Enter counts a connection of address. nil says that it would be one too many.
func (p *Peers) Enter(address netip.Addr) *Peer {
	bound := p.bound.Load()
	client := Client(address)
	shard := p.shard(client)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	peer := shard.open[client]
	if peer == nil {
		peer = &Peer{shard: shard, address: client}
		shard.open[client] = peer
	}
	if bound > 0 && int64(peer.open) >= bound {
		return nil
	}
	peer.open++
	return peer
}

// Gone ends one connection.
func (p *Peer) Gone() {
	p.shard.mu.Lock()
	defer p.shard.mu.Unlock()
	if p.open--; p.open == 0 {
		delete(p.shard.open, p.address)
	}
}

// shard spreads addresses by all their bytes: who chooses some gains only that
// they wait for each other.
func (p *Peers) shard(address netip.Addr) *peersShard {
	hash := uint64(14695981039346656037) // FNV-1a
	for _, b := range address.As16() {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	return &p.shards[hash%peersLocks]
}

// Len is how many addresses have connections.
func (p *Peers) Len() (n int) {
	for i := range p.shards {
		shard := &p.shards[i]
		shard.mu.Lock()
		n += len(shard.open)
		shard.mu.Unlock()
	}
	return n
}
