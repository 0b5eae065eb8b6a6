// Package conformance sends the corpus of HTTP/1 rules through a reverse proxy
// and says what became of each case: what the client was told, and which bytes
// the origin behind the proxy saw. It meets every proxy the same way, by its
// address and a connection to an origin of our own.
//
// It refuses to judge by anything but bytes on sockets: it knows no proxy's
// names for things, except that it holds Atlas to the corpus to the letter
// (Strict) and records what others do. Check may be called by one goroutine; it
// starts one for each lane and waits for them.
package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"atlas/harness/corpus"
)

// Proxy is a server under test, in as many copies as there are lanes.
type Proxy struct {
	Lanes []*Lane
	// Strict holds it to the status, the reason and the fields that the corpus
	// wants. Without, any refusal is a refusal and only the message counts.
	Strict bool
	// Progress is told how many cases are done; nil if nobody asks.
	Progress func(done int)
}

// Check returns what became of every case of every rule, in their order. A
// proxy that stops serving is an error that names the case.
func (p Proxy) Check(ctx context.Context, rules []*corpus.Rule) ([]Outcome, error) {
	var trials []*trial
	for _, rule := range rules {
		for i := range rule.Cases {
			trials = append(trials, newTrial(rule, &rule.Cases[i], p.Strict))
		}
	}
	outcomes := make([]Outcome, len(trials))
	failed := make([]error, len(p.Lanes))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan int)
	var group sync.WaitGroup
	for i, lane := range p.Lanes {
		group.Go(func() {
			for n := range work {
				var err error
				if outcomes[n], err = trials[n].run(ctx, lane); err != nil {
					failed[i] = fmt.Errorf("%s: %w", trials[n].name(), err)
					cancel() // the others' errors are then ours
					return
				}
			}
		})
	}
	for n := range trials {
		select {
		case work <- n:
			if p.Progress != nil {
				p.Progress(n)
			}
		case <-ctx.Done():
		}
	}
	close(work)
	group.Wait()
	if err := firstCause(failed); err != nil {
		return nil, err
	}
	return outcomes, ctx.Err()
}

// firstCause returns the error that is not the consequence of another.
func firstCause(all []error) error {
	var consequence error
	for _, err := range all {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		consequence = errors.Join(consequence, err)
	}
	return consequence
}
