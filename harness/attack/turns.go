package attack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Turn is one of the servers that take turns.
type Turn struct {
	Name   string // for errors
	Target Target
	Meters Meters
}

// leadOf a slice is not counted: a server that has rested while others had the load
// finds nothing of its own in the processor's caches.
const leadOf = 4

// Turns measures an open loop of several servers that run side by side: each has the
// load for a slice of time while the others rest, in an order that is another one each
// time, until every one was measured for as long as the load says. A tail is made by
// the few moments in which the machine does something else; in slices that are short
// beside them these fall on all servers alike. The connections stay open between slices.
// The histogram of a sample has the requests of all its slices.
func (g Generator) Turns(ctx context.Context, servers []Turn, load Load, slice time.Duration) ([]Sample, error) {
	g = g.orDefaults(load)
	turns := make([]*turn, len(servers))
	for i, s := range servers {
		t := &turn{Turn: s, transport: newTransport(s.Target, load.Conns), fold: newFold()}
		defer t.transport.close()
		t.fold.lead = slice / leadOf
		warm, err := g.drive(ctx, t.transport, load, load.Warmup)
		if err != nil {
			return nil, err
		}
		if err := warm.failures.refusal(s.Name + ": warm-up"); err != nil {
			return nil, err
		}
		turns[i] = t
	}
	for range max(1, load.Measured/slice) {
		for _, i := range rand.Perm(len(turns)) {
			if err := turns[i].take(ctx, g, load, slice); err != nil {
				return nil, err
			}
		}
	}
	samples := make([]Sample, len(turns))
	for i, t := range turns {
		var err error
		if samples[i], err = t.sample(g, load); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return samples, nil
}

// turn is one server and what it has done so far.
type turn struct {
	Turn
	transport *transport
	fold      *fold
	clientCPU time.Duration
	spent     reading // differences
}

// take is one slice.
func (t *turn) take(ctx context.Context, g Generator, load Load, slice time.Duration) error {
	before, err := t.Meters.read()
	if err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	clientCPU, err := g.fill(ctx, t.fold, t.transport, load, slice)
	if err != nil {
		return err
	}
	if err := t.fold.failures.refusal(t.Name); err != nil {
		return err
	}
	after, err := t.Meters.read()
	t.clientCPU += clientCPU
	t.spent.server += after.server - before.server
	t.spent.kernel += after.kernel - before.kernel
	t.spent.origin += after.origin - before.origin
	t.spent.unknown, t.spent.origins = before.unknown, before.origins
	return err
}

// sample is what all slices make.
func (t *turn) sample(g Generator, load Load) (Sample, error) {
	p := t.fold.phase(true)
	// The clocks have the leads as well.
	counted := float64(p.requests) / float64(max(1, p.requests+t.fold.led))
	scale := func(d time.Duration) time.Duration { return time.Duration(counted * float64(d)) }
	p.clientCPU = scale(t.clientCPU)
	spent := t.spent
	spent.server, spent.kernel, spent.origin = scale(spent.server), scale(spent.kernel), scale(spent.origin)
	return g.judge(p, t.Target, load, reading{unknown: spent.unknown, origins: spent.origins}, spent)
}
