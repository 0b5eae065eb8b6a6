// Package upstream picks the upstream of a request and keeps a worker's
// connections to it: it hands out an idle connection or dials, and takes it
// back. It knows which upstreams are up, by health checks and by what goes wrong
// on the way, bounds what each gets at once, and follows the addresses of names.
//
// It speaks no HTTP but in health checks, nor anything else but the PROXY header
// that an upstream may want, and never repeats a request: whether a
// failed one may be tried elsewhere is the handler's decision.
//
// A Pool belongs to one worker and is called on it; Take and Await wait. A Group
// is what all workers share, and safe for any goroutine.
package upstream

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/proxyhead"
	"atlas/proxy/stats"
	"atlas/proxy/tlsio"
)

const (
	// idleMax is how many idle connections a worker keeps for each endpoint.
	idleMax = 256
	// surplusIdle is how long it keeps those beyond: between two requests of a
	// busy moment. Closing them at once made 500 clients dial anew all the
	// time (1.45 of nginx's CPU per request; kept, 0.8).
	surplusIdle = time.Second
	// surplusMax bounds them.
	surplusMax = 8192
	// lifeMax bounds the age of a connection, so that changes of routes are
	// followed within it.
	lifeMax = time.Hour
)

// Config is what a Pool needs to know.
type Config struct {
	Group       *Group
	Connect     time.Duration // bound of a dial
	Handshake   time.Duration // bound of a TLS handshake after it
	Idle        time.Duration // how long an unused connection is kept
	Worker      int           // its number: workers start at different upstreams
	Seed        uint64        // of strategies that draw
	RetryBudget int           // percent of the requests that may be further tries
	Stats       *stats.Stats
}

// Errors of an exchange for which there is no upstream.
var (
	// ErrNone: none is eligible, by health checks, because weights are 0, or
	// because all others have been tried.
	ErrNone = errors.New("no upstream is eligible")
	// ErrNoAddress: all are names, and none has an address.
	ErrNoAddress = errors.New("no upstream's name has an address")
	// ErrScarce: this machine, or what it allows this process, has no room for
	// another connection. No upstream is to blame, and none would be better.
	ErrScarce = errors.New("no room for another connection to an upstream")
)

// scarce reports an error of a dial that is ours.
func scarce(err error) bool {
	return loop.Scarce(err) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// Pool is one worker's upstream connections.
type Pool struct {
	loop   loop.Loop
	group  *Group
	config Config
	budget budget
	memory *tlsio.Memory
	free   []*Conn // structs for the next connections

	// What the group said when its version was version: of this worker's own,
	// so that a pick reads no more than that number.
	version uint64
	set     *set
	targets []*Target // of set.endpoints
	picker  *balance.Picker
	view    []balance.Upstream
	up      []bool       // what view.Up is where there is room
	again   loop.Instant // when an ejection ends; 0: none does
	tried   []int        // memory for Pick

	reported atomic.Pointer[poolReport] // what it last said of itself
}

// Target is an endpoint as one worker sees it: with its connections.
type Target struct {
	*Endpoint
	Label   accesslog.Upstream // what it is called, and where its times are counted
	index   int                // in Pool.targets
	gone    bool               // not in the configuration any more, or an address that its name has lost
	own     int                // exchanges of this worker in flight
	counted bool               // own is in Endpoint.active
	idle    []*Conn            // the most recently used last
	dialled int                // connections that are being made to be idle
	open    int                // connections, idle ones and those being made included
	picked  int64              // exchanges
}

// Conn is a connection that an exchange has for itself.
type Conn struct {
	loop.Conn
	Reused bool // it has carried an exchange before, so the upstream may just be closing it
	pool   *Pool
	target *Target
	since  loop.Instant // when it was dialled
}

// New makes the pool of one worker, on it.
func New(l loop.Loop, cfg Config) *Pool {
	p := &Pool{loop: l, group: cfg.Group, config: cfg, memory: tlsio.NewMemory()}
	p.budget.percent = cfg.RetryBudget
	p.group.join(p)
	return p
}

// refresh looks at the group where something has changed.
func (p *Pool) refresh() {
	g, now := p.group, p.loop.Now()
	version := g.version.Load()
	if version == p.version && (p.again == 0 || now < p.again) {
		return
	}
	p.again = g.readmit(now)
	p.version = g.version.Load()
	if s := g.set.Load(); s != p.set {
		p.adopt(s)
	}
	for i, e := range p.set.endpoints {
		p.up[i] = e.up()
		p.view[i].Up = p.up[i]
		p.view[i].Since = e.since.Load()
	}
}

// adopt takes over another set. Targets that stay keep their connections; idle
// connections of the others are closed.
func (p *Pool) adopt(s *set) {
	old, before := p.targets, p.set
	p.set, p.targets, p.view, p.up = s, make([]*Target, len(s.endpoints)), s.view(), make([]bool, len(s.endpoints))
	for i, e := range s.endpoints {
		at := slices.IndexFunc(old, func(t *Target) bool { return t.Endpoint == e })
		if at < 0 {
			p.targets[i] = &Target{Endpoint: e, index: i, counted: s.counts, Label: accesslog.Upstream{
				Name: e.Name, Address: e.Address.String(), Times: p.config.Stats.Upstream(e.Name),
			}}
			continue
		}
		p.targets[i] = old[at]
		p.targets[i].index = i
		p.targets[i].count(s.counts)
	}
	for _, t := range old {
		if !slices.Contains(p.targets, t) {
			t.gone = true
			t.drain()
		}
	}
	if before == nil || !s.picksLike(before) {
		p.picker = p.newPicker(s)
	}
}

// count has the exchanges of this worker be in the count of all, or not.
func (t *Target) count(counts bool) {
	if t.counted == counts {
		return
	}
	t.counted = counts
	own := int32(t.own)
	if !counts {
		own = -own
	}
	t.active.Add(own)
}

// Refresh closes the idle connections to upstreams that are gone, at once and not
// when something is picked.
func (p *Pool) Refresh() { p.refresh() }

// Retune replaces what a configuration says of the connections. Those that are
// idle keep the time that they have; those to upstreams that are gone are closed.
func (p *Pool) Retune(connect, handshake, idle time.Duration, retryBudget int) {
	p.config.Connect, p.config.Handshake, p.config.Idle = connect, handshake, idle
	p.budget.percent = retryBudget
	p.refresh()
}

// drain closes the idle connections.
func (t *Target) drain() {
	for len(t.idle) > 0 {
		c := t.idle[len(t.idle)-1]
		t.idle = t.idle[:len(t.idle)-1]
		c.Unpark()
		c.Drop()
	}
}

// Pick chooses the target of a request, without those that it has tried. It
// counts the exchange as in flight until Done. It does not wait:
//
//	target, nil     take a connection to it
//	nil, ErrFull    all that may get it have as much as they may: see Await
//	nil, another    nobody may get it: ErrNone, ErrNoAddress
func (p *Pool) Pick(req balance.Request, tried []*Target) (*Target, error) {
	p.refresh()
	if len(tried) == 0 {
		p.budget.request(p.loop.Now())
	}
	p.tried = p.tried[:0]
	for _, t := range tried {
		if !t.gone {
			p.tried = append(p.tried, t.index)
		}
	}
	if !p.set.counts {
		if i := p.picker.PickFor(req, p.view, p.tried); i != balance.None {
			return p.begin(p.targets[i]), nil
		}
		return p.pickEjected(req)
	}
	return p.pickCounted(req)
}

// begin counts an exchange.
func (p *Pool) begin(t *Target) *Target {
	t.own++
	t.picked++
	return t
}

// pickCounted is Pick where exchanges in flight are counted. Others count at the
// same time, so what has room when it is looked at may have none when it is taken.
func (p *Pool) pickCounted(req balance.Request) (*Target, error) {
	full := p.group.queue.waiting.Load() > 0 // then it is not our turn
	for i, e := range p.set.endpoints {
		free := e.free() && !(full && e.upstream.Load().MaxConnections > 0)
		p.view[i].InFlight = e.active.Load()
		p.view[i].Up = p.up[i] && free
	}
	for {
		i := p.picker.PickFor(req, p.view, p.tried)
		if i == balance.None {
			break
		}
		if p.targets[i].acquire() {
			return p.begin(p.targets[i]), nil
		}
		p.view[i].Up = false
	}
	for i := range p.view {
		if p.up[i] && p.view[i].Weight > 0 && !slices.Contains(p.tried, i) {
			return nil, ErrFull // it is up, and was not taken
		}
	}
	return p.pickEjected(req)
}

// pickEjected is the last resort: what was ejected and has not been tried by
// this request is better than nothing. What health checks call down, or an operator
// took out, is not.
func (p *Pool) pickEjected(req balance.Request) (*Target, error) {
	for i, e := range p.set.endpoints {
		p.view[i].Up = !e.out() && e.free()
	}
	i := p.picker.PickFor(req, p.view, p.tried)
	for k := range p.view {
		p.view[k].Up = p.up[k]
	}
	if len(p.targets) == 0 {
		return nil, ErrNoAddress
	}
	if i == balance.None || p.set.counts && !p.targets[i].acquire() {
		return nil, ErrNone
	}
	return p.begin(p.targets[i]), nil
}

// Await waits for a target to have room for the exchange of a client, as long as
// the client stays. Its errors are ErrQueueFull, ErrQueueWait, and those of
// loop.Conn.Await.
func (p *Pool) Await(client loop.Conn, tried []*Target) (*Target, error) {
	q := &p.group.queue
	w := &waiter{loop: p.loop, client: client}
	for _, t := range tried {
		w.tried = append(w.tried, t.Endpoint)
	}
	if !q.join(w) {
		return nil, ErrQueueFull
	}
	q.dispatch()
	var err error
	for until := p.loop.Now().After(p.set.options.QueueWait); err == nil && !q.has(w); {
		err = client.Await(until)
	}
	granted := q.leave(w)
	switch {
	case granted == nil && err == loop.ErrDeadline:
		return nil, ErrQueueWait
	case granted == nil:
		return nil, err
	case err != nil && err != loop.ErrDeadline:
		p.group.release(granted)
		return nil, err
	}
	p.refresh()
	for _, t := range p.targets {
		if t.Endpoint == granted {
			p.begin(t)
			if !t.counted { // not any more: the slot was counted when it was granted
				p.group.release(granted)
			}
			return t, nil
		}
	}
	p.group.release(granted) // it has just left the configuration
	return nil, ErrNone
}

// Done ends the exchange that Pick or Await has begun.
func (p *Pool) Done(t *Target) {
	if t.own--; t.counted {
		p.group.release(t.Endpoint)
	}
}

// MayRetry asks for a further try of a request to which Take has said err. One
// that was refused at once has cost nobody anything; what was waited for counts
// against the budget.
func (p *Pool) MayRetry(err error) bool {
	if errors.Is(err, loop.ErrDeadline) && !p.budget.retry(p.loop.Now()) {
		return false
	}
	p.config.Stats.Retries.Add(1)
	return true
}

// Succeeded notes a response that began took after the request was sent.
func (p *Pool) Succeeded(t *Target, took time.Duration) {
	if t.failures.Load() != 0 {
		t.failures.Store(0)
	}
	p.observe(t, took)
}

// Failed notes a connection that was refused or lost. took is how long a
// response that is late has been waited for, 0 if it is not that.
func (p *Pool) Failed(t *Target, took time.Duration) {
	p.group.fail(t.Endpoint, p.loop.Now())
	if took > 0 {
		p.observe(t, took)
	}
}

func (p *Pool) observe(t *Target, took time.Duration) {
	if !t.gone && p.set.options.Strategy == balance.PeakEWMA {
		p.picker.Observe(t.index, int64(took), int64(p.loop.Now()))
	}
}

// Take returns an idle connection to the target, the warmest first, or dials.
// fresh insists on dialling. The error says which upstream and why.
func (p *Pool) Take(t *Target, fresh bool) (*Conn, error) {
	if c := p.takeIdle(t, fresh); c != nil {
		return c, nil
	}
	return p.TakeFor(t, proxyhead.Header{})
}

// takeIdle returns an idle connection that is usable, if there is one.
func (p *Pool) takeIdle(t *Target, fresh bool) *Conn {
	for !fresh && len(t.idle) > 0 {
		last := len(t.idle) - 1
		c := t.idle[last]
		t.idle = t.idle[:last]
		if c.Unpark() {
			c.Reused = true
			return c
		}
		c.Drop()
	}
	return nil
}

// TakeFor dials for one client, and tells an upstream that wants to know who that
// is; for nobody, the connection is our own.
func (p *Pool) TakeFor(t *Target, client proxyhead.Header) (*Conn, error) {
	c, err := p.dial(t, client)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: connect: %w", t.Endpoint, p.refused(t, err))
	}
	return c, nil
}

// dial makes a connection that is ready to carry an exchange.
func (p *Pool) dial(t *Target, client proxyhead.Header) (*Conn, error) {
	t.open++
	conn, err := p.connect(t, client)
	if err != nil {
		t.open--
		return nil, err
	}
	c := p.newConn()
	*c = Conn{Conn: conn, pool: p, target: t, since: p.loop.Now()}
	return c, nil
}

func (p *Pool) connect(t *Target, client proxyhead.Header) (loop.Conn, error) {
	conn, err := p.loop.Dial(t.Address, p.config.Connect)
	if err == nil {
		err = introduce(conn, t.upstream.Load().SendProxy, client)
	}
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		return t.tls.Start(conn, p.memory, p.config.Handshake)
	}
	return conn, nil
}

// Introduces reports that the upstream is told who its connections are for.
func (t *Target) Introduces() bool { return t.upstream.Load().SendProxy != 0 }

// introduce writes a PROXY header, where one is wanted, in front of all else.
func introduce(c loop.Conn, v proxyhead.Version, client proxyhead.Header) error {
	if v == 0 {
		return nil
	}
	head, err := proxyhead.Append(nil, v, client)
	if err == nil {
		_, err = c.Write(head)
	}
	if err != nil {
		c.Close()
	}
	return err
}

// refused counts a dial that failed.
func (p *Pool) refused(t *Target, err error) error {
	switch {
	case errors.Is(err, loop.ErrStopped):
		return err
	case errors.As(err, new(*tlsio.HandshakeError)):
		p.config.Stats.FailUpstream(stats.BadTLS)
	case scarce(err):
		p.config.Stats.FailUpstream(stats.Scarce)
		return errors.Join(ErrScarce, err)
	case err == loop.ErrDeadline:
		p.config.Stats.FailUpstream(stats.ConnectTimeout)
	default:
		p.config.Stats.FailUpstream(stats.Refused)
	}
	p.group.lookSoon(t.Endpoint)
	return err
}

// Ready reports that Take probably need not dial.
func (t *Target) Ready() bool { return len(t.idle) > 0 }

func (p *Pool) newConn() *Conn {
	if n := len(p.free); n > 0 {
		c := p.free[n-1]
		p.free = p.free[:n-1]
		return c
	}
	return new(Conn)
}

// Forever is for Release: the upstream did not say how long it keeps idle
// connections.
const Forever = -1

// Release gives a connection back for the next exchange. Everything of the last
// one must have been read. timeout is after how many seconds of silence the
// upstream closes it, or Forever: it is used no longer than until a second before
// that, so that no request meets its end on the way.
func (c *Conn) Release(timeout int) {
	p, t := c.pool, c.target
	now := p.loop.Now()
	keep := p.config.Idle
	if timeout != Forever {
		keep = min(keep, time.Duration(timeout-1)*time.Second)
	}
	if len(t.idle) >= idleMax {
		keep = min(keep, surplusIdle)
	}
	if len(t.idle) >= surplusMax || t.gone || p.loop.Draining() || keep <= 0 ||
		now > c.since.After(lifeMax) || len(c.Peek()) > 0 {
		c.Drop()
		return
	}
	c.SetReadDeadline(now.After(keep))
	c.SetWriteDeadline(0)
	t.idle = append(t.idle, c)
	c.Park(c)
}

// Drop closes a connection that cannot carry another exchange.
func (c *Conn) Drop() {
	p := c.pool
	c.Conn.Close()
	c.target.open--
	*c = Conn{}
	if len(p.free) < idleMax {
		p.free = append(p.free, c)
	}
}

// Abandon closes a connection that another task may still know.
func (c *Conn) Abandon() {
	c.Conn.Reset()
	c.target.open--
}

// Lost closes an idle connection that the upstream ended, that spoke out of
// turn, or that expired.
func (c *Conn) Lost(loop.Conn) {
	t := c.target
	if i := slices.Index(t.idle, c); i >= 0 {
		t.idle = slices.Delete(t.idle, i, i+1)
	}
	c.Drop()
}

// Idle is the number of idle connections.
func (p *Pool) Idle() (n int) {
	for _, t := range p.targets {
		n += len(t.idle)
	}
	return n
}
