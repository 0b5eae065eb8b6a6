package upstream

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"atlas/proxy/loop"
)

const (
	lookupFirst    = 5 * time.Second  // patience at start
	lookupInterval = 30 * time.Second // between two looks, as in Envoy's and HAProxy's defaults by order of magnitude
	lookupPause    = time.Second      // the same, where connecting fails or a name has no address
)

// lookupAll looks up all names at once, for the first time.
func (g *Group) lookupAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookupFirst)
	defer cancel()
	var looks sync.WaitGroup
	for i := range g.options.Upstreams {
		u := &g.options.Upstreams[i]
		if u.Host == "" {
			continue
		}
		g.addresses[i] = nil
		looks.Go(func() {
			found, err := g.lookup(ctx, u)
			if err != nil {
				g.options.Log.Warn("upstream has no address yet", "upstream", u.Name, "name", u.Host, "error", err)
			}
			g.addresses[i] = found
		})
	}
	looks.Wait()
}

// lookup finds the addresses of an upstream's name, in an order of their own so
// that the resolver's rotation changes nothing.
func (g *Group) lookup(ctx context.Context, u *Upstream) ([]loop.Address, error) {
	ask := g.options.Lookup
	if ask == nil {
		ask = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	found, err := ask(ctx, u.Host)
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

// follow looks the name of upstream i up again and again, and soon where
// connecting to it fails. A look that fails leaves what is known.
func (g *Group) follow(ctx context.Context, i int) {
	u := &g.options.Upstreams[i]
	failing := false
	for {
		wait := lookupInterval
		g.mu.Lock()
		if len(g.addresses[i]) == 0 {
			wait = lookupPause
		}
		g.mu.Unlock()
		if !g.pause(ctx, i, wait) {
			return
		}
		asked, cancel := context.WithTimeout(ctx, lookupFirst)
		found, err := g.lookup(asked, u)
		cancel()
		switch {
		case err != nil && !failing && ctx.Err() == nil:
			g.log(slog.LevelWarn, "upstream cannot be looked up: its addresses stay as they are",
				"upstream", u.Name, "name", u.Host, "error", err)
		case err == nil && len(found) > 0:
			g.move(i, found)
		}
		failing = err != nil
	}
}

// pause waits until upstream i is to be looked up again.
func (g *Group) pause(ctx context.Context, i int, wait time.Duration) bool {
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
	case <-g.hurry[i]:
	case <-ctx.Done():
		return false
	}
	return true
}

// lookSoon has the name of an endpoint's upstream looked up, if it has one.
func (g *Group) lookSoon(e *Endpoint) {
	if e.upstream.Host == "" {
		return
	}
	select {
	case g.hurry[e.index] <- struct{}{}:
	default: // it is going to be
	}
}

// move gives upstream i other addresses, if they are others.
func (g *Group) move(i int, found []loop.Address) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if slices.Equal(g.addresses[i], found) {
		return
	}
	g.log(slog.LevelInfo, "upstream has other addresses", "upstream", g.options.Upstreams[i].Name,
		"addresses", found, "before", g.addresses[i])
	g.addresses[i] = found
	g.rebuild()
	g.queue.dispatch()
}
