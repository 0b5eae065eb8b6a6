package server

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"atlas/proxy/config"
	"atlas/proxy/exchange"
	"atlas/proxy/limit"
	"atlas/proxy/loop"
	"atlas/proxy/stats"
)

const (
	// staticReserve is how many descriptors static mode keeps for files, listeners
	// and the workers themselves.
	staticReserve = 256
	// fewConnections is what a busy server needs in a moment; below it somebody has
	// forgotten to raise the limit.
	fewConnections = 1024
	// limitLogged is how often the log is told that a limit is in effect.
	limitLogged = 10 * time.Second
	tooFewFiles = "too few file descriptors for anything else"
	raiseFiles  = "raise the limit of open files (ulimit -Hn, LimitNOFILE=)"
)

// limits are what bounds clients: of the process, whatever the configuration is.
// A new one changes the bounds, and what clients have used of them stays known.
type limits struct {
	gate  loop.Gate
	peers *limit.Peers // nil: no configuration had a bound yet
	rate  *limit.Rate  // the same

	failures *failures
	told     [limitNotices]throttle
}

// set brings the bounds of a configuration into effect. It is for one goroutine.
func (l *limits) set(cfg *config.Config, log *slog.Logger) {
	c := &cfg.Limits
	l.gate.Bound(connectionsMax(cfg, DescriptorsMax(), log))
	if c.ConnectionsPerIP > 0 && l.peers == nil {
		l.peers = limit.NewPeers(c.ConnectionsPerIP)
	}
	if l.peers != nil {
		l.peers.Set(c.ConnectionsPerIP)
	}
	switch {
	case c.RequestsPerSecond == 0:
	case l.rate == nil:
		l.rate = limit.NewRate(c.RequestsPerSecond, burst(c))
	default:
		l.rate.Set(c.RequestsPerSecond, burst(c))
	}
}

func burst(c *config.Limits) int {
	if c.Burst == 0 {
		return c.RequestsPerSecond
	}
	return c.Burst
}

// DescriptorsMax is how many descriptors this process may have. The runtime of Go
// has raised that to the hard limit by now.
func DescriptorsMax() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt))
}

// connectionsMax is how many clients may be connected, where the process may have
// so many descriptors: the configuration's number, or what leaves enough for
// upstreams, or files.
func connectionsMax(cfg *config.Config, descriptors int, log *slog.Logger) int {
	derived := connectionsFit(cfg, descriptors)
	asked := cfg.Limits.Connections
	switch {
	case asked > derived:
		log.Warn("[limits] connections leaves "+tooFewFiles,
			"connections", asked, "descriptors", descriptors, "fix", raiseFiles)
	case asked == 0 && derived < fewConnections:
		log.Warn("few file descriptors: few clients can be connected at once",
			"connections", derived, "descriptors", descriptors, "fix", raiseFiles)
	}
	if asked > 0 {
		return asked
	}
	return derived
}

// connectionsFit is how many leave enough for the rest.
func connectionsFit(cfg *config.Config, descriptors int) int {
	if cfg.Listen.Mode == config.Static && descriptors >= 2*staticReserve {
		return descriptors - staticReserve
	}
	return descriptors / 4 * 3
}

// examineLimits asks whether a start here would have the descriptors for them. A
// service may have others.
func examineLimits(cfg *config.Config, descriptors int) []Finding {
	asked := cfg.Limits.Connections
	if asked <= connectionsFit(cfg, descriptors) {
		return nil
	}
	return []Finding{{Key: "limits.connections", Hint: raiseFiles, Warning: true,
		Message: fmt.Sprintf("%d leaves %s, of which this process may have %d", asked, tooFewFiles, descriptors)}}
}

// requests is the limit of requests that a configuration asks for, or nil.
func (l *limits) requests(c *config.Limits) *exchange.RateLimit {
	if c.RequestsPerSecond == 0 {
		return nil
	}
	return exchange.NewRateLimit(l.rate, c.RequestsPerSecond, burst(c), c.RateField())
}

// limitNotice is what the log is told of, once in a while.
type limitNotice uint8

const (
	noticeFull limitNotice = iota
	noticeScarce
	noticePeer
	limitNotices
)

// throttle lets one notice through in limitLogged, and counts them all.
type throttle struct {
	next  atomic.Int64
	count atomic.Int64
}

// limited is a record for the log.
type limited struct {
	notice limitNotice
	client netip.Addr // who was turned away
	why    error
	open   int64 // connections
	times  int64 // since the last one that was logged
}

// notice may be called on a worker, so it hands a record over and never waits.
func (l *limits) notice(r limited) {
	t := &l.told[r.notice]
	t.count.Add(1)
	now, next := int64(loop.Now()), t.next.Load()
	if now < next || !t.next.CompareAndSwap(next, now+int64(limitLogged)) {
		return
	}
	r.times = t.count.Swap(0)
	l.failures.put(r)
}

// held is told by workers that accepting has to wait.
func (l *limits) held(why error) {
	if why == loop.ErrFull {
		l.notice(limited{notice: noticeFull, open: l.gate.Open()})
		return
	}
	l.notice(limited{notice: noticeScarce, why: why})
}

func (f *failures) writeLimited(r *limited) {
	switch r.notice {
	case noticeFull:
		f.line(slog.LevelWarn, "as many clients as [limits] connections allows: more wait to be accepted",
			"connections", r.open, "times", r.times)
	case noticeScarce:
		f.line(slog.LevelWarn, "no descriptors or memory left: clients wait to be accepted",
			"cause", r.why.Error(), "times", r.times)
	case noticePeer:
		f.line(slog.LevelWarn, "connection closed: one address has as many as [limits] connections_per_ip allows",
			"client", nameOf(r.client), "times", r.times)
	}
}

// turnstile counts the connections of each address, in front of another handler,
// and resets those that are too many before they cost anything. It belongs to one
// worker.
type turnstile struct {
	above  loop.Handler
	limits *limits
	stats  *stats.Stats
	// exempt are the networks of proxies, which connect for others.
	exempt []netip.Prefix
}

// behindTurnstile counts the connections of clients whom the system names. Those
// of proxies with a PROXY header are counted when it has been read: see admits.
func (l *limits) behindTurnstile(cfg *config.Config, counts *stats.Stats, h loop.Handler) loop.Handler {
	if cfg.Limits.ConnectionsPerIP == 0 {
		return h
	}
	exempt := append([]netip.Prefix(nil), cfg.Listen.AcceptProxy...)
	if cfg.Listen.Mode != config.TCP {
		exempt = append(exempt, cfg.Routing.TrustedProxies...)
	}
	return &turnstile{above: h, limits: l, stats: counts, exempt: exempt}
}

// Open hands over who may come in.
func (s *turnstile) Open(c loop.Conn) {
	client := c.Remote().Addr()
	for _, network := range s.exempt {
		if network.Contains(client) {
			s.above.Open(c)
			return
		}
	}
	if !s.limits.admits(c, s.stats) {
		c.Reset()
		return
	}
	s.above.Open(c)
}

// admits counts a connection of its Remote until it ends, or reports that there
// are too many.
func (l *limits) admits(c loop.Conn, counts *stats.Stats) bool {
	client := c.Remote().Addr()
	if !client.IsValid() {
		return true // it is gone, or of a Unix socket
	}
	peer := l.peers.Enter(client)
	if peer == nil {
		counts.FailClient(stats.PeerConnections)
		l.notice(limited{notice: noticePeer, client: client})
		return false
	}
	if !loop.Follow(c, peer) {
		peer.Gone()
	}
	return true
}

// Serve hands over.
func (s *turnstile) Serve(c loop.Conn) (keep bool) { return s.above.Serve(c) }

// Greets hands over.
func (s *turnstile) Greets(c loop.Conn) bool { return loop.Greets(s.above, c) }

// Leave hands over.
func (s *turnstile) Leave(c loop.Conn) {
	if above, leaves := s.above.(loop.Leaver); leaves {
		above.Leave(c)
	}
}

// Fresh hands over.
func (s *turnstile) Fresh(c loop.Conn) bool {
	above, leaves := s.above.(loop.Leaver)
	return leaves && above.Fresh(c)
}
