package server

import (
	"atlas/proxy/loop"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// worker is a worker with what it keeps as long as it lives, whatever the
// configuration: its connections to upstreams, and its counters. As a handler it
// hands each request, or each connection in tcp mode, to the service of now.
type worker struct {
	loop.Loop
	index int
	stats *stats.Stats
	pool  *upstream.Pool
	now   *service // of the worker's own
	slow  slowdown
}

func newWorker(l loop.Loop, index int) *worker { return &worker{Loop: l, index: index} }

// service is what one worker serves by one setup.
type service struct {
	server  *Server
	setup   *setup
	handler loop.Handler // of what clients ask for
	// front is what a connection meets first, and has for as long as it lives:
	// a PROXY header and TLS are settled when it begins. Behind them is the worker.
	front   loop.Handler
	serving int  // calls of handler that have not returned
	retired bool // another service has taken its place
}

// take puts a service in the place of the present one. It runs on the worker,
// outside any task, so it is between two requests of every idle connection.
func (w *worker) take(v *service, d *door) error {
	old := w.now
	w.now = v
	if old != nil {
		old.retire()
	}
	cfg := v.setup.config
	w.pool.Retune(cfg.Timeouts.Connect, cfg.Timeouts.Handshake, cfg.Timeouts.Pool, cfg.Routing.RetryBudget)
	w.SetRateMin(cfg.Limits.RateMin)
	return w.listen(d)
}

// listen accepts from the worker's share of a door.
func (w *worker) listen(d *door) error {
	for _, ln := range d.of(w.index, len(w.now.server.workers)) {
		if err := w.Listen(ln, w.now.front); err != nil {
			return err
		}
	}
	return nil
}

// Open is told of a connection that has what it needs to begin.
func (w *worker) Open(c loop.Conn) { w.now.handler.Open(c) }

// Greets asks whether the server may speak first.
func (w *worker) Greets(c loop.Conn) bool { return loop.Greets(w.now.handler, c) }

// Serve has the service of now carry a connection. Where requests are left, as
// that was retired meanwhile, the next one takes them.
func (w *worker) Serve(c loop.Conn) (keep bool) {
	for {
		v := w.now
		w.slow.spend()
		if !v.serve(c) {
			return false
		}
		if v == w.now || len(c.Peek()) == 0 {
			return true
		}
	}
}

func (v *service) serve(c loop.Conn) (keep bool) {
	v.serving++
	defer v.served() // also in a panic
	return v.handler.Serve(c)
}

func (v *service) served() {
	v.serving--
	v.settle()
}

// retirer is a handler that may go on with the requests of a client for as long as
// there are any.
type retirer interface {
	// Retire has it return between two requests from now on.
	Retire()
}

func (v *service) retire() {
	v.retired = true
	if h, may := v.handler.(retirer); may {
		h.Retire()
	}
	v.settle()
}

// settle lets go of the setup once the last exchange has ended.
func (v *service) settle() {
	if v.retired && v.serving == 0 {
		v.setup.leave(v.server)
	}
}
