package attack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"atlas/harness/host"
	"atlas/results"
)

const (
	// exchangesIdle is how often each connection is used before it rests.
	exchangesIdle = 2
	// patienceIdle times StallMax is how long that may take: its speed is not
	// measured.
	patienceIdle = 6
	// restIdle is how long connections rest before the memory is looked at, so
	// that a server can give back what it needed for a moment only.
	restIdle = time.Second
)

// measureIdle opens connections, uses each of them and looks at the growth of
// the server's memory once all rest. The server has served others before, so
// that what it allocates once is not in it.
func (g Generator) measureIdle(ctx context.Context, target Target, load Load, meters Meters) (Sample, error) {
	first := newTransport(target, 1)
	defer first.close()
	warm, err := g.drive(ctx, first, Load{Conns: 1}, load.Warmup)
	if err != nil {
		return Sample{}, err
	}
	if err := warm.failures.refusal("warm-up"); err != nil {
		return Sample{}, err
	}
	before, err := meters.resident(ctx)
	if err != nil {
		return Sample{}, err
	}
	c := &crowd{transport: newTransport(target, load.Conns), conns: make([]*conn, load.Conns)}
	defer c.transport.close()
	if err := c.settle(ctx, patienceIdle*g.StallMax); err != nil {
		return Sample{}, err
	}
	after, err := meters.resident(ctx)
	if err != nil {
		return Sample{}, err
	}
	if after <= before {
		grown := fmt.Sprintf("resident memory went from %d to %d bytes with %d connections", before, after, load.Conns)
		return Sample{}, &Unsound{Reasons: []string{grown}}
	}
	return Sample{Requests: load.Conns, Values: map[string]float64{
		results.Resident:       float64(after-before) / float64(load.Conns),
		results.ResidentBefore: float64(before),
		results.Errors:         0,
	}}, nil
}

// resident waits until the server rests, and reads its memory.
func (m Meters) resident(ctx context.Context) (int64, error) {
	if m.Resident == nil {
		return 0, host.ErrUnsupported
	}
	if _, err := m.read(); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(restIdle):
	}
	return m.Resident()
}

// crowd is many connections, most of which rest.
type crowd struct {
	transport *transport
	conns     []*conn
}

// settle opens the connections and uses each of them, within a time.
func (c *crowd) settle(ctx context.Context, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	undo := context.AfterFunc(bounded, c.transport.close) // fails what is in flight
	defer undo()
	// Memory of ours for each connection would be gigabytes.
	buffers := make(chan []byte, openers)
	for range openers {
		buffers <- make([]byte, c.transport.buffer)
	}
	for range exchangesIdle {
		err := crowded(len(c.conns), func(i int) error {
			buffer := <-buffers
			defer func() { buffers <- buffer }()
			return c.use(i, buffer)
		})
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case bounded.Err() != nil:
			return &Unsound{Reasons: []string{fmt.Sprintf("stalled for %v", timeout)}}
		default:
			return &Unsound{Reasons: []string{err.Error()}}
		}
	}
	return nil
}

// use has one answer over a connection, which it opens unless it is open.
func (c *crowd) use(i int, buffer []byte) error {
	if c.conns[i] == nil {
		opened, err := c.transport.add(buffer)
		if err != nil {
			return err
		}
		c.conns[i] = opened
	}
	one := c.conns[i]
	one.buffer = buffer
	_, keep, err := one.exchange(c.transport)
	one.buffer = nil
	if err == nil && !keep {
		err = errors.New("the server ends a connection that is to rest")
	}
	return err
}
