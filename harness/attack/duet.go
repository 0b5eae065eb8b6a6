package attack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Arm is one of the servers that a Duet loads.
type Arm struct {
	Name   string // for errors
	Target Target
	CPU    func() (time.Duration, error) // of the server's process
}

// Duet loads several servers at once, each on connections of its own: what the
// machine does to one in a slice of time, it does to the others. The connections
// stay open between slices. It belongs to one goroutine.
type Duet struct {
	generator Generator
	arms      []duetArm
	conns     int  // of each arm
	read      bool // the clocks were read
	opened    bool // what that costs is known
}

type duetArm struct {
	Arm
	transport *transport
	clock     time.Duration
	opening   time.Duration // what it costs the server to have conns more, and to lose them
}

// Slice is what one arm did in a slice.
type Slice struct {
	Requests int
	CPU      time.Duration // of the server
	Wall     time.Duration
}

// rest is how long the servers have to come to rest before their clocks are read:
// that of a process which runs on another core may be a tick behind. What they do
// later counts for the next slice and is not lost.
const rest = 2 * time.Millisecond

// OpenDuet opens the connections, conns for each arm, in the order of the arms.
func (g Generator) OpenDuet(arms []Arm, conns int) (*Duet, error) {
	d := &Duet{generator: g.orDefaults(Load{}), conns: conns}
	for _, arm := range arms {
		d.arms = append(d.arms, duetArm{Arm: arm, transport: newTransport(arm.Target, conns)})
		if err := d.arms[len(d.arms)-1].transport.open(conns); err != nil {
			d.Close()
			return nil, &Unsound{Reasons: []string{fmt.Sprintf("%s: connect: %v", arm.Name, err)}}
		}
	}
	return d, nil
}

// Close ends all connections.
func (d *Duet) Close() {
	for i := range d.arms {
		d.arms[i].transport.close()
	}
}

// Slice loads all arms for a time and returns what each did. Every answer is
// checked; an *Unsound error names the arm that answered wrongly or not at all.
func (d *Duet) Slice(ctx context.Context, length time.Duration) ([]Slice, error) {
	if err := d.clocks(func(int, time.Duration) {}); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, length+d.generator.StallMax)
	defer cancel()
	defer context.AfterFunc(bounded, d.Close)()

	slices := make([]Slice, len(d.arms))
	failed := make([]failures, len(d.arms))
	var over atomic.Bool
	defer time.AfterFunc(length, func() { over.Store(true) }).Stop()
	var all sync.WaitGroup
	began := time.Now()
	for i := range d.arms {
		var each sync.Mutex // of slices[i] and failed[i]
		for range d.conns {
			all.Go(func() {
				n, err := d.arms[i].transport.repeat(&over)
				each.Lock()
				defer each.Unlock()
				slices[i].Requests += n
				if err != nil {
					failed[i].add(1, err.Error())
				}
			})
		}
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i := range d.arms {
		if bounded.Err() != nil && failed[i].count > 0 {
			failed[i].add(1, fmt.Sprintf("stalled for %v", d.generator.StallMax))
		}
		if err := failed[i].refusal(d.arms[i].Name); err != nil {
			return nil, err
		}
	}
	for i := range slices {
		slices[i].Wall = time.Since(began)
	}
	return d.metered(slices)
}

// metered adds what the arms have spent on slices that are over.
func (d *Duet) metered(slices []Slice) ([]Slice, error) {
	d.read = false
	return slices, d.clocks(func(i int, cpu time.Duration) { slices[i].CPU = cpu })
}

// SliceByWrk is a Slice whose load is that of one wrk for each arm, on connections of
// its own, in whole seconds. A slice by our own load comes first: it knows what a right
// answer takes, while wrk only counts. What wrk's connections cost is not in it.
func (d *Duet) SliceByWrk(ctx context.Context, length time.Duration) ([]Slice, error) {
	if err := d.meterOpening(); err != nil {
		return nil, err
	}
	if err := d.clocks(func(int, time.Duration) {}); err != nil {
		return nil, err
	}
	slices := make([]Slice, len(d.arms))
	errs := make([]error, len(d.arms))
	var all sync.WaitGroup
	for i := range d.arms {
		one := d.generator
		one.Scratch = filepath.Join(one.Scratch, fmt.Sprintf("wrk-%d", i)) // for files that it writes
		if err := os.MkdirAll(one.Scratch, 0o755); err != nil {
			return nil, err
		}
		all.Go(func() {
			arm := d.arms[i]
			p, err := one.wrk(ctx, arm.Target, Load{Conns: d.conns, Measured: length}, arm.transport.wire())
			if err == nil {
				err = p.failures.refusal(arm.Name)
			}
			if err == nil && p.requests == 0 {
				err = &Unsound{Reasons: []string{arm.Name + ": no request was completed"}}
			}
			slices[i].Requests, slices[i].Wall, errs[i] = p.requests, p.wall, err
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices, err := d.metered(slices)
	for i := range slices {
		slices[i].CPU = max(0, slices[i].CPU-d.arms[i].opening)
	}
	return slices, err
}

// meterOpening finds out what wrk's connections cost a server beside the requests on
// them, once for all slices. The first ones may take memory that the next find.
func (d *Duet) meterOpening() error {
	if d.opened {
		return nil
	}
	for range 2 {
		if err := d.clocks(func(int, time.Duration) {}); err != nil {
			return err
		}
		for i := range d.arms {
			more := newTransport(d.arms[i].Target, d.conns)
			err := more.open(d.conns)
			more.close()
			if err != nil {
				return &Unsound{Reasons: []string{fmt.Sprintf("%s: connect: %v", d.arms[i].Name, err)}}
			}
		}
		time.Sleep(openingRest)
		d.read = false
		if err := d.clocks(func(i int, cpu time.Duration) { d.arms[i].opening = cpu }); err != nil {
			return err
		}
	}
	d.opened = true
	return nil
}

// openingRest is how long servers have to close what was opened to see what it costs.
const openingRest = 20 * time.Millisecond

// clocks reads the clocks, unless they were since the last load, and tells how
// far each has gone.
func (d *Duet) clocks(tell func(i int, cpu time.Duration)) error {
	if d.read {
		return nil
	}
	time.Sleep(rest)
	var failed error
	for i := range d.arms {
		arm := &d.arms[i]
		now, err := arm.CPU()
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", arm.Name, err))
		}
		tell(i, now-arm.clock)
		arm.clock = now
	}
	d.read = failed == nil
	return failed
}

// repeat sends the one request again and again until it is over, or fails. It
// sends one at least.
func (t *transport) repeat(over *atomic.Bool) (n int, err error) {
	for {
		if _, err := t.RoundTrip(nil); err != nil {
			return n, err
		}
		n++
		if over.Load() {
			return n, nil
		}
	}
}
