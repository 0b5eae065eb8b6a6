package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
	"atlas/proxy/proxyhead"
	"atlas/proxy/tlsio"
)

// Upstream is one upstream as it was configured. It has a Host, whose addresses
// are looked up, or one Address.
type Upstream struct {
	Name           string
	Host           string
	Port           uint16 // of Host
	Address        loop.Address
	Weight         int // of the upstream, however many addresses it has
	MaxConnections int // exchanges at once at each address; 0: no bound
	MinIdle        int // connections that each worker keeps ready at each address
	SendProxy      proxyhead.Version
	Check          *Check
	TLS            *tlsio.Client // nil: plain
	// Trust tells two TLS apart that are not the same: what the upstream's
	// certificate has to be. Connections of another one are not used any more.
	Trust string
}

// Options are what a Group needs to know. Those of Log and below are for NewGroup
// alone, all others may change: see Apply.
type Options struct {
	Upstreams []Upstream
	Strategy  balance.Strategy
	SlowStart time.Duration // time in which what comes back gets all of its share
	QueueMax  int           // exchanges that may wait for a free slot; more get ErrQueueFull
	QueueWait time.Duration // how long they may
	Log       *slog.Logger
	// Eject is how long the first ejection lasts; 0 is ejectFirst. Tests have
	// less time.
	Eject time.Duration
	// Lookup finds the addresses of a name; nil asks the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Group is what all workers share about the upstreams: their addresses, which of
// them are up, and how many exchanges are in flight. It is safe for any
// goroutine. Workers read it by atomics; what changes rarely is written under a
// lock, by goroutines of the group or by the worker that notices.
//
// It lives as long as the process, so that what is known of an upstream outlives
// the configuration: see Apply.
type Group struct {
	eject  time.Duration
	ask    func(ctx context.Context, host string) ([]netip.Addr, error)
	writer *slog.Logger

	set     atomic.Pointer[set]
	version atomic.Uint64 // grows when a set or what is up changes
	queue   queue

	mu      sync.Mutex
	options *Options
	members []*member
	pools   []*Pool
	warmer  *runner         // nil: no upstream has MinIdle
	drained map[string]bool // names of upstreams that an operator took out

	events chan event
	cancel context.CancelFunc // nil: not started
	life   context.Context    // of what Start has begun
	tasks  sync.WaitGroup
}

// member is an upstream of the present options. But for its addresses, which are
// under Group.mu, it never changes: other options have other members.
type member struct {
	Upstream
	addresses []loop.Address
	hurry     chan struct{} // look its name up soon
	follower  *runner       // nil: it has no name, or nothing has started
	checker   *runner       // nil: it has no check, or nothing has started
}

// set is all endpoints of a moment, and how they are picked. It never changes.
type set struct {
	options   *Options
	counts    bool // exchanges in flight are counted: the strategy or a bound asks
	endpoints []*Endpoint
	weights   []int32
	table     *balance.Table // for strategies that go by a key
}

// Endpoint is one address of an upstream: what requests are shared out to, and
// what has a health of its own.
type Endpoint struct {
	Name    string // of the upstream
	Address loop.Address
	ID      balance.ID

	upstream atomic.Pointer[member]
	key      string        // tells endpoints apart: see keyOf
	tls      *tlsio.Client // with the sessions of this address; nil: plain

	_        [128]byte     // what all workers write, away from what they only read
	active   atomic.Int32  // exchanges in flight, where they are counted
	failures atomic.Int32  // in a row
	_        [120]byte     //
	down     atomic.Bool   // by health checks
	drained  atomic.Bool   // by an operator
	until    atomic.Int64  // when its ejection ends; 0: it is not ejected
	since    atomic.Int64  // when it came back; 0: it always was there
	ejected  time.Duration // how long the last ejection was; under Group.mu
	passes   int           // checks in a row; of the goroutine that checks
	misses   int           //
	past     past
}

// up reports that it may get requests.
func (e *Endpoint) up() bool { return !e.out() && e.until.Load() == 0 }

// out reports that it may get none, whatever happens to the others.
func (e *Endpoint) out() bool { return e.down.Load() || e.drained.Load() }

func (e *Endpoint) String() string { return e.Name + " (" + e.Address.String() + ")" }

// event is something to log. It is logged by a goroutine, since a worker never
// waits for a log.
type event struct {
	level   slog.Level
	message string
	args    []any
}

// eventsQueued bounds the events that wait to be logged; more are dropped.
const eventsQueued = 64

// NewGroup makes a group and looks up its names for the first time, for a few
// seconds at most. A name without an address is no error: it may get one.
func NewGroup(ctx context.Context, o Options) *Group {
	g := &Group{eject: o.Eject, ask: o.Lookup, writer: o.Log, events: make(chan event, eventsQueued)}
	if g.eject == 0 {
		g.eject = ejectFirst
	}
	if g.ask == nil {
		g.ask = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if g.writer == nil {
		g.writer = slog.New(slog.DiscardHandler)
	}
	g.queue.group = g
	g.Apply(g.Prepare(ctx, o))
	return g
}

// Start begins to look names up again, to check health, and to keep connections
// ready. Stop ends it.
func (g *Group) Start() {
	g.life, g.cancel = context.WithCancel(context.Background())
	g.tasks.Go(func() { g.logEvents(g.life) })
	g.mu.Lock()
	defer g.mu.Unlock()
	g.startRunners()
}

// Stop ends what Start has begun, and waits for it.
func (g *Group) Stop() {
	if g.cancel != nil {
		g.cancel()
		g.tasks.Wait()
	}
}

func (g *Group) logEvents(ctx context.Context) {
	for {
		select {
		case e := <-g.events:
			g.writer.Log(ctx, e.level, e.message, e.args...)
		case <-ctx.Done():
			return
		}
	}
}

// log never waits.
func (g *Group) log(level slog.Level, message string, args ...any) {
	select {
	case g.events <- event{level, message, args}:
	default:
	}
}

// Active is the number of exchanges in flight, where they are counted.
func (g *Group) Active() (n int) {
	for _, e := range g.set.Load().endpoints {
		n += int(e.active.Load())
	}
	return n
}

// Endpoints are those of this moment.
func (g *Group) Endpoints() []*Endpoint { return g.set.Load().endpoints }

// rebuild makes the set of the members and addresses that are known now.
// Endpoints that stay keep their state. It is called under mu.
func (g *Group) rebuild() {
	old := make(map[string]*Endpoint)
	if s := g.set.Load(); s != nil {
		for _, e := range s.endpoints {
			old[e.key] = e
		}
	}
	s := &set{options: g.options, counts: g.options.Strategy.Needs().InFlight}
	shares := g.shares()
	for i, m := range g.members {
		s.counts = s.counts || m.MaxConnections > 0
		for _, address := range m.addresses {
			e := old[keyOf(m, address)]
			if e == nil {
				e = newEndpoint(m, address)
			}
			e.join(m)
			e.drained.Store(g.drained[e.Name])
			s.endpoints = append(s.endpoints, e)
			s.weights = append(s.weights, int32(m.Weight*shares[i]))
		}
	}
	if g.options.Strategy.Needs().Key {
		s.table = balance.NewTable(s.view())
	}
	g.set.Store(s)
	g.version.Add(1)
}

func newEndpoint(m *member, address loop.Address) *Endpoint {
	e := &Endpoint{Name: m.Name, Address: address, ID: balance.IDOf(m.Name), key: keyOf(m, address)}
	if m.Host != "" {
		e.ID = balance.IDOf(e.String())
	}
	if m.TLS != nil {
		e.tls = m.TLS.Peer()
	}
	return e
}

// join makes it an endpoint of m. What a check said goes with the check.
func (e *Endpoint) join(m *member) {
	e.upstream.Store(m)
	if m.Check == nil && e.down.CompareAndSwap(true, false) {
		e.failures.Store(0)
		e.since.Store(int64(loop.Now()))
	}
}

// keyOf is the same for two endpoints whose connections and health are.
func keyOf(m *member, address loop.Address) string {
	return fmt.Sprintf("%q %s %t %d %t %q", m.Name, address, m.Host != "", m.SendProxy, m.TLS != nil, m.Trust)
}

// view is the set as balance sees it, with everything up.
func (s *set) view() []balance.Upstream {
	view := make([]balance.Upstream, len(s.endpoints))
	for i, e := range s.endpoints {
		view[i] = balance.Upstream{ID: e.ID, Weight: s.weights[i], Up: true}
	}
	return view
}

// sharesMax bounds the factor that makes weights of all addresses whole numbers.
const sharesMax = 1 << 20

// shares are what to multiply the weight of each upstream with for each of its
// addresses, so that all of them together have its share: those of an upstream
// of two addresses have half of the weight of one that has one.
func (g *Group) shares() []int {
	common := 1
	for _, m := range g.members {
		if n := len(m.addresses); n > 0 {
			common = common / gcd(common, n) * n
		}
		if common > sharesMax {
			common = 1
			break
		}
	}
	shares := make([]int, len(g.members))
	for i, m := range g.members {
		shares[i] = max(1, common/max(1, len(m.addresses)))
	}
	return shares
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// changed has workers look again at what is up, and waiting exchanges try again.
func (g *Group) changed() {
	g.version.Add(1)
	g.queue.dispatch()
}

const (
	// failuresMax is how many failures in a row eject an endpoint.
	failuresMax = 3
	// ejectFirst is how long the first ejection lasts, ejectMost the longest:
	// each that follows soon lasts twice as long as the one before.
	ejectFirst = 10 * time.Second
	ejectMost  = 60 * time.Second
)

// fail counts a failure of an endpoint: a connection that was refused or lost,
// or a response that did not come. Enough in a row eject it for a time, unless
// half of the endpoints are out already: then the fault is likely elsewhere.
func (g *Group) fail(e *Endpoint, now loop.Instant) {
	e.past.failures.Add(1)
	if e.failures.Add(1) < failuresMax {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.until.Load() != 0 {
		return
	}
	out, all := 1, 0
	for _, other := range g.set.Load().endpoints {
		all++
		if other.until.Load() != 0 {
			out++
		}
	}
	if 2*out > all {
		return
	}
	wait := g.eject
	if back := loop.Instant(e.since.Load()); e.ejected > 0 && now < back.After(max(ejectMost, e.ejected)) {
		wait = min(2*e.ejected, ejectMost)
	}
	e.ejected = wait
	e.past.ejections.Add(1)
	e.until.Store(int64(now.After(wait)))
	g.changed()
	g.log(slog.LevelWarn, "upstream ejected", "upstream", e.String(), "failures", e.failures.Load(), "for", wait)
}

// readmit ends the ejections that are over, and returns when the next one is; 0
// is never.
func (g *Group) readmit(now loop.Instant) (next loop.Instant) {
	back := false
	for _, e := range g.set.Load().endpoints {
		until := loop.Instant(e.until.Load())
		if until == 0 {
			continue
		}
		if until > now {
			if next == 0 || until < next {
				next = until
			}
			continue
		}
		g.mu.Lock()
		if e.until.CompareAndSwap(int64(until), 0) {
			// One more failure is enough to eject it again.
			e.failures.Store(failuresMax - 1)
			e.since.Store(int64(now))
			back = true
			g.log(slog.LevelInfo, "upstream back on trial", "upstream", e.String())
		}
		g.mu.Unlock()
	}
	if back {
		g.changed()
	}
	return next
}

// settle notes what health checks say of an endpoint.
func (g *Group) settle(e *Endpoint, down bool, why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.down.Load() == down {
		return
	}
	e.down.Store(down)
	if down {
		g.log(slog.LevelWarn, "upstream down", "upstream", e.String(), "error", fmt.Sprint(why))
	} else {
		e.failures.Store(0)
		e.since.Store(int64(loop.Now()))
		g.log(slog.LevelInfo, "upstream up", "upstream", e.String())
	}
	g.changed()
}
