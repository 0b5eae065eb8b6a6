package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"atlas/harness/host"
	"atlas/results"
	"atlas/scenarios"
)

// handshakers are phases of connections that live for one request. Each worker
// opens one after another: dial, handshake, a request that asks for the end of
// the connection, its answer, and the end. The request is there because only
// its answer proves that the server has finished the handshake; the server
// closes first because the ports of a client that does would run out.
type handshakers struct {
	g       Generator
	load    Load
	workers []*handshaker
}

func newHandshakers(g Generator, target Target, load Load) *handshakers {
	asked := newTransport(target, 0)
	asked.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
		target.Path, target.Address)
	h := &handshakers{g: g, load: load}
	for range load.Conns {
		w := &handshaker{asked: asked, target: target, buffer: make([]byte, asked.buffer)}
		if load.Of == scenarios.Resumptions {
			// One ticket is enough, and it is this worker's own: tickets of
			// TLS 1.3 are for one use.
			w.resume = true
			w.target.TLS = target.TLS.Clone()
			w.target.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		h.workers = append(h.workers, w)
	}
	return h
}

// Every worker has a ticket before the measured phase, however short the
// warm-up is: a phase makes at least one handshake a worker.
func (h *handshakers) warmUp(ctx context.Context) (phase, error)  { return h.run(ctx, h.load.Warmup) }
func (h *handshakers) measure(ctx context.Context) (phase, error) { return h.run(ctx, h.load.Measured) }

// opening is part of what is measured here.
func (h *handshakers) opening() (cpu, wall time.Duration) { return 0, 0 }

func (h *handshakers) close() {} // a phase leaves no connection behind

// run has every worker make handshakes for d, and waits for them.
func (h *handshakers) run(ctx context.Context, d time.Duration) (phase, error) {
	bounded, cancel := context.WithTimeout(ctx, d+h.g.StallMax)
	defer cancel()
	cpu, began := host.SelfCPU(), time.Now()
	var all sync.WaitGroup
	for _, w := range h.workers {
		all.Go(func() { w.run(bounded, began.Add(d)) })
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return phase{}, err
	}
	p := phase{wall: time.Since(began), clientCPU: host.SelfCPU() - cpu}
	latency := hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
	for _, w := range h.workers {
		p.requests += w.done
		p.failures.join(w.failures)
		latency.Merge(w.latency)
	}
	p.latency = map[string]float64{
		results.Mean: latency.Mean(),
		results.P50:  float64(latency.ValueAtQuantile(50)),
		results.P99:  float64(latency.ValueAtQuantile(99)),
	}
	p.histograms = histograms{results.Raw: latency}
	return p, nil
}

// pace has the workers make handshakes at a rate per second, until the
// function that it returns is called, which waits for them.
func (h *handshakers) pace(ctx context.Context, rate int) (stop func() phase) {
	pacing, halt := context.WithCancel(ctx)
	living, kill := context.WithCancel(ctx)
	began := time.Now()
	due := make(chan struct{}) // no queue: what finds all busy waits, and is made up for
	var all sync.WaitGroup
	for _, w := range h.workers {
		w.begin()
		all.Go(func() {
			for range due {
				w.count(w.once(living))
			}
		})
	}
	all.Go(func() {
		defer close(due)
		interval := time.Second / time.Duration(rate)
		for next := began; pacing.Err() == nil; next = next.Add(interval) {
			// Not SleepUntil: that keeps a processor, and the requests have one so.
			time.Sleep(time.Until(next))
			select {
			case due <- struct{}{}:
			case <-pacing.Done():
			}
		}
	})
	return func() phase {
		p := phase{wall: time.Since(began)}
		halt()
		late := time.AfterFunc(h.g.StallMax, kill)
		all.Wait()
		late.Stop()
		kill()
		for _, w := range h.workers {
			p.requests += w.done
			p.failures.join(w.failures)
		}
		return p
	}
}

// handshaker is one worker; only one goroutine uses it at a time.
type handshaker struct {
	asked  *transport // for its request and what the answer must be
	target Target
	buffer []byte
	resume bool
	ticket bool // the last connection left one

	// Of the last phase.
	done     int
	failures failures
	latency  *hdrhistogram.Histogram // of dial and handshake
}

// run makes one handshake after another until the deadline, the end of ctx or
// a failure: a sample with one is refused anyway.
func (w *handshaker) run(ctx context.Context, deadline time.Time) {
	w.begin()
	for w.failures.count == 0 {
		w.count(w.once(ctx))
		if !time.Now().Before(deadline) {
			return
		}
	}
}

// begin starts a phase.
func (w *handshaker) begin() {
	w.done, w.failures = 0, failures{}
	w.latency = hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
}

// count notes how a handshake went.
func (w *handshaker) count(err error) {
	if err != nil {
		w.failures.add(1, err.Error())
		return
	}
	w.done++
}

// once lives through one connection.
func (w *handshaker) once(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	c, err := w.target.dial(w.buffer)
	if err != nil {
		return err
	}
	record(w.latency, time.Since(began))
	defer c.socket.Close()
	undo := context.AfterFunc(ctx, func() { _ = c.socket.Close() }) // fails what waits for it
	defer undo()
	if resumed := c.Conn.(*tls.Conn).ConnectionState().DidResume; resumed != (w.resume && w.ticket) {
		return fmt.Errorf("handshake resumed: %v, want %v", resumed, w.resume && w.ticket)
	}
	if _, keep, err := c.exchange(w.asked); err != nil || keep {
		return errors.Join(err, stays(keep))
	}
	w.ticket = true
	// The end, whether by close_notify or without: that is not the load's to judge.
	_, _ = c.Read(c.buffer)
	return nil
}

// stays is the error of a connection that a server does not close on demand.
func stays(keep bool) error {
	if !keep {
		return nil
	}
	return errors.New("an answer to Connection: close that does not say so itself")
}
