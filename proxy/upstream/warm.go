package upstream

import (
	"context"
	"time"

	"atlas/proxy/proxyhead"
)

// warmInterval is how often missing idle connections are made.
const warmInterval = time.Second

// join notes the pool of a worker, for those who have to reach all of them.
func (g *Group) join(p *Pool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pools = append(g.pools, p)
}

// warm has every pool make the idle connections that it lacks, again and again.
func (g *Group) warm(ctx context.Context) {
	again := time.NewTicker(warmInterval)
	defer again.Stop()
	for {
		g.mu.Lock()
		pools := g.pools
		g.mu.Unlock()
		for _, p := range pools {
			p.loop.Post(p.warm)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// warm starts to make the idle connections that are wanted and missing.
func (p *Pool) warm() {
	if p.loop.Draining() {
		return
	}
	p.refresh()
	for _, t := range p.targets {
		if !t.up() {
			continue
		}
		for n := len(t.idle) + t.dialled; n < t.upstream.Load().MinIdle; n++ {
			t.dialled++
			p.loop.Go(func() { p.dialIdle(t) })
		}
	}
}

func (p *Pool) dialIdle(t *Target) {
	defer func() { t.dialled-- }()
	c, err := p.dial(t, proxyhead.Header{})
	if err != nil {
		return // a request that needs one will say so
	}
	c.Release(Forever)
}
