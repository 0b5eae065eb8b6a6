package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync/atomic"

	"atlas/proxy/exchange"
	"atlas/proxy/tunnel"
)

// failuresQueued bounds the failures that wait to be logged. When clients or an
// upstream fail in masses, the log gets some, and the number of the others.
const failuresQueued = 256

// failures brings what workers say about failed exchanges and connections to the
// log.
type failures struct {
	log     *slog.Logger
	queue   chan any     // exchange.Failure, tunnel.Failure, refusal, limited
	dropped atomic.Int64 // since the last one that was logged
	// unlogged are all that were dropped so far.
	unlogged atomic.Int64
	done     chan struct{}
}

func startFailures(log *slog.Logger) *failures {
	f := &failures{log: log, queue: make(chan any, failuresQueued), done: make(chan struct{})}
	go f.run()
	return f
}

// add is called on a worker, so it hands the record over and never waits.
func (f *failures) add(record exchange.Failure) { f.put(record) }

func (f *failures) put(record any) {
	select {
	case f.queue <- record:
	default:
		f.dropped.Add(1)
		f.unlogged.Add(1)
	}
}

func (f *failures) run() {
	defer close(f.done)
	for record := range f.queue {
		switch r := record.(type) {
		case exchange.Failure:
			f.write(&r)
		case tunnel.Failure:
			f.writeTunnel(&r)
		case refusal:
			f.line(slog.LevelWarn, "PROXY header refused", "proxy", nameOf(r.proxy), "why", r.why.Error())
		case limited:
			f.writeLimited(&r)
		}
	}
}

func (f *failures) write(r *exchange.Failure) {
	level := slog.LevelWarn
	if r.Status == exchange.StatusGone || r.Status == 429 {
		level = slog.LevelInfo // clients do that
	}
	fields := []any{"status", r.Status, "client", nameOf(r.Client), "method", r.Method, "target", r.Target}
	if r.Upstream != "" {
		fields = append(fields, "upstream", r.Upstream)
	}
	fields = append(fields, "side", r.Side, "step", r.Step, "why", r.Why)
	if r.Details != "" {
		fields = append(fields, "details", r.Details)
	}
	if r.Cause != nil {
		fields = append(fields, "cause", r.Cause.Error())
	}
	if r.Sent != 0 {
		fields = append(fields, "sent", r.Sent)
	}
	f.line(level, "exchange failed", fields...)
}

// nameOf is an address for the log, with or without its port.
func nameOf[A interface {
	IsValid() bool
	String() string
}](address A) string {
	if !address.IsValid() {
		return "unknown" // a Unix socket
	}
	return address.String()
}

// line logs, and says how many others there was no time for.
func (f *failures) line(level slog.Level, message string, fields ...any) {
	if dropped := f.dropped.Swap(0); dropped > 0 {
		fields = append(fields, "dropped", dropped)
	}
	f.log.Log(context.Background(), level, message, fields...)
}

// stop logs what is queued. No worker may run any more.
func (f *failures) stop() {
	close(f.queue)
	<-f.done
}

// pseudonym is what this process calls itself to other proxies: by another name
// than any other process, or two of us in a row would look like a loop.
func pseudonym() string {
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	return "atlas-" + hex.EncodeToString(random[:])
}
