package upstream

import (
	"context"
	"sync"

	"atlas/proxy/balance"
	"atlas/proxy/loop"
)

// Plan is options whose names have been looked up, ready to be applied.
type Plan struct {
	options   Options
	addresses [][]loop.Address // of each upstream
}

// Prepare looks up the names that are not known yet, for a few seconds at most. It
// changes nothing.
func (g *Group) Prepare(ctx context.Context, o Options) *Plan {
	p := &Plan{options: o, addresses: make([][]loop.Address, len(o.Upstreams))}
	ctx, cancel := context.WithTimeout(ctx, lookupFirst)
	defer cancel()
	var looks sync.WaitGroup
	for i := range o.Upstreams {
		u := &o.Upstreams[i]
		if u.Host == "" {
			p.addresses[i] = []loop.Address{u.Address}
			continue
		}
		if g.knows(u) {
			continue // by then they may be others
		}
		looks.Go(func() {
			found, err := g.lookup(ctx, u)
			if err != nil {
				g.writer.Warn("upstream has no address yet", "upstream", u.Name, "name", u.Host, "error", err)
			}
			p.addresses[i] = found
		})
	}
	looks.Wait()
	return p
}

// Apply has the group go by a plan from now on. Upstreams are known by their
// names: one that stays where it was keeps its addresses, their health and what is
// in flight there, and its connections unless these would be made differently now.
// Exchanges in flight end as they have begun; a further try of theirs goes to
// where the plan says.
//
// It returns when what has to end has ended; one goroutine calls it at a time.
func (g *Group) Apply(p *Plan) {
	g.mu.Lock()
	old := make(map[string]*member)
	for _, m := range g.members {
		old[m.Name] = m
	}
	g.options, g.members = &p.options, nil
	for i := range p.options.Upstreams {
		m := &member{Upstream: p.options.Upstreams[i], addresses: p.addresses[i], hurry: make(chan struct{}, 1)}
		if was := old[m.Name]; was != nil {
			m.inherit(was)
		}
		g.members = append(g.members, m)
	}
	ending := g.endRunners(old)
	g.rebuild()
	g.mu.Unlock()
	g.queue.dispatch()
	for _, r := range ending {
		<-r.done
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.startRunners()
}

// knows reports that the addresses of an upstream's name are followed already.
func (g *Group) knows(u *Upstream) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.member(u.Name)
	return m != nil && m.samePlace(u)
}

// member finds an upstream by its name. It is called under mu.
func (g *Group) member(name string) *member {
	for _, m := range g.members {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// samePlace reports that it is found where u is.
func (m *member) samePlace(u *Upstream) bool {
	return m.Host == u.Host && m.Port == u.Port && m.Address == u.Address
}

// inherit takes over what goes on unchanged.
func (m *member) inherit(was *member) {
	if !was.samePlace(&m.Upstream) {
		return
	}
	m.hurry = was.hurry
	if m.Host != "" {
		m.addresses = was.addresses
		m.follower, was.follower = was.follower, nil
	}
	if m.Check != nil && was.Check != nil && *m.Check == *was.Check && m.Trust == was.Trust {
		m.checker, was.checker = was.checker, nil
	}
}

// runner is a goroutine of the group that may end before it.
type runner struct {
	end  context.CancelFunc
	done chan struct{}
}

// run starts a runner. It is called under mu.
func (g *Group) run(f func(ctx context.Context)) *runner {
	ctx, end := context.WithCancel(g.life)
	r := &runner{end: end, done: make(chan struct{})}
	g.tasks.Go(func() {
		defer close(r.done)
		f(ctx)
	})
	return r
}

// startRunners starts what is wanted and does not run. It is called under mu.
func (g *Group) startRunners() {
	if g.cancel == nil {
		return
	}
	warm := false
	for _, m := range g.members {
		name := m.Name
		if m.Host != "" && m.follower == nil {
			m.follower = g.run(func(ctx context.Context) { g.follow(ctx, name) })
		}
		if m.Check != nil && m.checker == nil {
			m.checker = g.run(func(ctx context.Context) { g.check(ctx, name) })
		}
		warm = warm || m.MinIdle > 0
	}
	if warm && g.warmer == nil {
		g.warmer = g.run(g.warm)
	}
}

// endRunners ends those that nobody has inherited, and returns them: whoever
// follows must wait for them. It is called under mu.
func (g *Group) endRunners(old map[string]*member) (ending []*runner) {
	for _, m := range old {
		for _, r := range []*runner{m.follower, m.checker} {
			if r != nil {
				ending = append(ending, r)
			}
		}
	}
	if g.warmer != nil { // it starts again, if it is wanted
		ending = append(ending, g.warmer)
		g.warmer = nil
	}
	for _, r := range ending {
		r.end()
	}
	return ending
}

// picksLike reports that a picker of t does for s as well: all that it remembers
// of the endpoints is true.
func (s *set) picksLike(t *set) bool {
	if s.options.Strategy != t.options.Strategy || s.options.SlowStart != t.options.SlowStart ||
		len(s.endpoints) != len(t.endpoints) {
		return false
	}
	for i := range s.endpoints {
		if s.endpoints[i] != t.endpoints[i] || s.weights[i] != t.weights[i] {
			return false
		}
	}
	return true
}

// newPicker makes the picker of a worker for a set.
func (p *Pool) newPicker(s *set) *balance.Picker {
	return balance.New(balance.Config{
		Strategy:  s.options.Strategy,
		Worker:    p.config.Worker,
		Seed:      p.config.Seed,
		SlowStart: s.options.SlowStart,
		Table:     s.table,
	}, p.view)
}
