package upstream

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"atlas/proxy/loop"
)

const (
	lookupFirst    = 5 * time.Second  // patience at start
	lookupInterval = 30 * time.Second // between two looks, as in Envoy's and HAProxy's defaults by order of magnitude
	lookupPause    = time.Second      // the same, where connecting fails or a name has no address
)

// lookup finds the addresses of an upstream's name, in an order of their own so
// that the resolver's rotation changes nothing.
func (g *Group) lookup(ctx context.Context, u *Upstream) ([]loop.Address, error) {
	found, err := g.ask(ctx, u.Host)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	found = usable(found)
	slices.SortFunc(found, netip.Addr.Compare)
	var addresses []loop.Address
	for _, ip := range slices.Compact(found) {
		addresses = append(addresses, loop.Address{AddrPort: netip.AddrPortFrom(ip, u.Port)})
	}
	return addresses, nil
}

// usable leaves out IPv6 addresses that nothing could come of: those that this
// machine has no route to, and the loopback one beside that of IPv4, where one
// server has both and many listen on the latter only.
func usable(found []netip.Addr) []netip.Addr {
	loopback4 := slices.ContainsFunc(found, func(ip netip.Addr) bool { return ip.Is4() && ip.IsLoopback() })
	var kept []netip.Addr
	for _, ip := range found {
		if ip.Is6() && (loopback4 && ip.IsLoopback() || !routed(ip)) {
			continue
		}
		kept = append(kept, ip)
	}
	if len(kept) == 0 {
		return found
	}
	return kept
}

// routed reports that there is a route to the address. Connecting a datagram
// socket looks it up and sends nothing.
func routed(ip netip.Addr) bool {
	const discard = 9
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, discard)))
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was sent
	return true
}

// follow looks the name of an upstream up again and again, and soon where
// connecting to it fails. A look that fails leaves what is known.
func (g *Group) follow(ctx context.Context, name string) {
	failing := false
	for {
		g.mu.Lock()
		m := g.member(name)
		g.mu.Unlock()
		if m == nil {
			return // ctx has just ended
		}
		wait := lookupInterval
		if len(m.known(g)) == 0 {
			wait = lookupPause
		}
		if !m.pause(ctx, wait) {
			return
		}
		asked, cancel := context.WithTimeout(ctx, lookupFirst)
		found, err := g.lookup(asked, &m.Upstream)
		cancel()
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			g.log(slog.LevelWarn, "upstream cannot be looked up: its addresses stay as they are",
				"upstream", m.Name, "name", m.Host, "error", err)
		case err == nil && len(found) > 0:
			g.move(ctx, name, found)
		}
		failing = err != nil
	}
}

// known is the addresses of now.
func (m *member) known(g *Group) []loop.Address {
	g.mu.Lock()
	defer g.mu.Unlock()
	return m.addresses
}

// pause waits until the name is to be looked up again.
func (m *member) pause(ctx context.Context, wait time.Duration) bool {
	least := time.NewTimer(min(wait, lookupPause))
	defer least.Stop()
	select {
	case <-least.C:
	case <-ctx.Done():
		return false
	}
	if wait <= lookupPause {
		return true
	}
	rest := time.NewTimer(wait - lookupPause)
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-m.hurry:
	case <-ctx.Done():
		return false
	}
	return true
}

// lookSoon has the name of an endpoint's upstream looked up, if it has one.
func (g *Group) lookSoon(e *Endpoint) {
	m := e.upstream.Load()
	if m.Host == "" {
		return
	}
	select {
	case m.hurry <- struct{}{}:
	default: // it is going to be
	}
}

// move gives an upstream other addresses, if they are others. ctx ends, under mu,
// when the upstream does.
func (g *Group) move(ctx context.Context, name string, found []loop.Address) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.member(name)
	if ctx.Err() != nil || m == nil || slices.Equal(m.addresses, found) {
		return
	}
	g.log(slog.LevelInfo, "upstream has other addresses", "upstream", m.Name,
		"addresses", found, "before", m.addresses)
	m.addresses = found
	g.rebuild()
	g.queue.dispatch()
}
