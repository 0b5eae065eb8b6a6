// Package upstream keeps a worker's connections to upstreams: it picks one for
// a request, hands out an idle connection or dials, and takes it back.
//
// It speaks no protocol and never repeats a request: whether a failed one may
// be tried elsewhere is the handler's decision.
//
// A Pool belongs to one worker and is called on it; Take waits. Loads are the
// one thing that workers share: a counter for each upstream, and only where the
// strategy looks at it.
package upstream

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

// Target is one upstream.
type Target struct {
	Name    string
	Address loop.Address
	Weight  int
}

const (
	// idleMax is how many idle connections a worker keeps for each upstream.
	idleMax = 256
	// surplusIdle is how long it keeps those beyond: between two requests of a
	// busy moment. Closing them at once made 500 clients dial anew all the
	// time (1.45 of nginx's CPU per request; kept, 0.8).
	surplusIdle = time.Second
	// surplusMax bounds them.
	surplusMax = 8192
)

// Config is what a Pool needs to know.
type Config struct {
	Targets  []Target
	Strategy balance.Strategy
	Connect  time.Duration // bound of a dial
	Idle     time.Duration // how long an unused connection is kept
	Worker   int           // its number: workers start at different targets
	Seed     uint64        // of Strategy Random
	// Loads is shared by all workers; nil where the strategy needs none.
	Loads *Loads
	Stats *stats.Stats
}

// Loads counts the exchanges in flight for each target, over all workers.
type Loads struct{ active []paddedInt }

// paddedInt keeps counters of different targets off one cache line.
type paddedInt struct {
	n atomic.Int32
	_ [124]byte
}

// NewLoads makes the counters for a strategy, or nil if it looks at none.
func NewLoads(strategy balance.Strategy, targets int) *Loads {
	if strategy != balance.LeastConnections {
		return nil
	}
	return &Loads{active: make([]paddedInt, targets)}
}

// Active is the number of exchanges in flight for a target.
func (l *Loads) Active(target int) int { return int(l.active[target].n.Load()) }

// ErrNone says that no upstream is eligible: all weights are 0, or all that
// are not have been tried.
var ErrNone = errors.New("no upstream is eligible")

// Pool is one worker's upstream connections.
type Pool struct {
	loop   loop.Loop
	config Config
	picker *balance.Picker
	view   []balance.Upstream
	idle   [][]*Conn // by target, the most recently used last
	free   []*Conn   // structs for the next connections
}

// New makes the pool of one worker.
func New(l loop.Loop, cfg Config) *Pool {
	p := &Pool{loop: l, config: cfg, idle: make([][]*Conn, len(cfg.Targets))}
	for _, t := range cfg.Targets {
		p.view = append(p.view, balance.Upstream{Weight: int32(t.Weight), Up: true})
	}
	p.picker = balance.NewPicker(cfg.Strategy, p.view, cfg.Worker, cfg.Seed)
	return p
}

// Conn is a connection that an exchange has for itself.
type Conn struct {
	loop.Conn
	Reused bool // it has carried an exchange before, so the upstream may just be closing it
	pool   *Pool
	target int
	since  loop.Instant // when it was dialled
}

// lifeMax bounds the age of a connection, so that changes of names and routes
// are followed within it.
const lifeMax = time.Hour

// Pick chooses the target of a request, without those that it has tried. It
// counts the exchange as in flight until Done.
func (p *Pool) Pick(tried []int) (target int, err error) {
	if p.config.Loads != nil {
		for i := range p.view {
			p.view[i].InFlight = p.config.Loads.active[i].n.Load()
		}
	}
	target = p.picker.Pick(p.view, tried)
	if target == balance.None {
		return target, ErrNone
	}
	if p.config.Loads != nil {
		p.config.Loads.active[target].n.Add(1)
	}
	return target, nil
}

// Done ends the exchange that Pick has begun.
func (p *Pool) Done(target int) {
	if p.config.Loads != nil {
		p.config.Loads.active[target].n.Add(-1)
	}
}

// Name is the target's name, for messages.
func (p *Pool) Name(target int) string { return p.config.Targets[target].Name }

// Take returns an idle connection to the target, the warmest first, or dials.
// fresh insists on dialling. The error says which upstream and why.
func (p *Pool) Take(target int, fresh bool) (*Conn, error) {
	for !fresh && len(p.idle[target]) > 0 {
		last := len(p.idle[target]) - 1
		c := p.idle[target][last]
		p.idle[target] = p.idle[target][:last]
		if c.Unpark() {
			c.Reused = true
			return c, nil
		}
		c.Drop()
	}
	t := &p.config.Targets[target]
	conn, err := p.loop.Dial(t.Address, p.config.Connect)
	if err != nil {
		if err == loop.ErrDeadline {
			p.config.Stats.FailUpstream(stats.ConnectTimeout)
		} else {
			p.config.Stats.FailUpstream(stats.Refused)
		}
		return nil, fmt.Errorf("upstream %s (%s): connect: %w", t.Name, t.Address, err)
	}
	c := p.newConn()
	*c = Conn{Conn: conn, pool: p, target: target, since: p.loop.Now()}
	return c, nil
}

func (p *Pool) newConn() *Conn {
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c
	}
	return new(Conn)
}

// Release gives a connection back for the next exchange. Everything of the last
// one must have been read.
func (c *Conn) Release() {
	p := c.pool
	now := p.loop.Now()
	idle, keep := len(p.idle[c.target]), p.config.Idle
	if idle >= idleMax {
		keep = min(keep, surplusIdle)
	}
	if idle >= surplusMax || p.loop.Draining() || now > c.since.After(lifeMax) || len(c.Peek()) > 0 {
		c.Drop()
		return
	}
	c.SetReadDeadline(now.After(keep))
	c.SetWriteDeadline(0)
	p.idle[c.target] = append(p.idle[c.target], c)
	c.Park(c)
}

// Drop closes a connection that cannot carry another exchange.
func (c *Conn) Drop() {
	p := c.pool
	c.Conn.Close()
	*c = Conn{}
	if len(p.free) < idleMax {
		p.free = append(p.free, c)
	}
}

// Lost closes an idle connection that the upstream ended, that spoke out of
// turn, or that expired.
func (c *Conn) Lost(loop.Conn) {
	idle := c.pool.idle[c.target]
	for i := range idle {
		if idle[i] == c {
			c.pool.idle[c.target] = append(idle[:i], idle[i+1:]...)
			break
		}
	}
	c.Drop()
}

// Idle is the number of idle connections to a target.
func (p *Pool) Idle(target int) int { return len(p.idle[target]) }
