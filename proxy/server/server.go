// Package server runs a configuration: it opens the listeners, starts a worker
// for each core, gives each its handler, and ends them all in order.
//
// It serves nothing itself, and prints nothing but through the logger it is
// given. Workers share only what stands in Server and never changes after
// Start, but for the load counters that the balancing strategy asks for.
//
// Start and Shutdown, which is called once, are for the main goroutine.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"syscall"

	"atlas/proxy/config"
	"atlas/proxy/exchange"
	"atlas/proxy/forward"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/static"
	"atlas/proxy/stats"
	"atlas/proxy/tlsio"
	"atlas/proxy/upstream"
)

// panicsQueued bounds the panics that wait to be logged; more are only counted.
const panicsQueued = 16

// Server is a running configuration.
type Server struct {
	config    *config.Config
	log       *slog.Logger
	engine    loop.Engine
	workers   []loop.Loop
	listeners []*loop.Listener
	address   string
	stats     *stats.Set
	secure    *secure // nil: clients speak plain text
	dir       *loop.Dir
	group     *upstream.Group // nil in static mode
	panics    chan panicReport
	logged    chan struct{}
	failures  *failures
	pseudonym string

	// wrap is put around each worker's handler; tests inject faults with it.
	wrap func(exchange.Handler) exchange.Handler
}

type panicReport struct {
	worker int
	value  any
	stack  []byte
}

// Start opens everything and begins to serve. It fails, with nothing left open,
// where something that the configuration names is not there.
func Start(cfg *config.Config, log *slog.Logger) (*Server, error) {
	return start(cfg, log, func(h exchange.Handler) exchange.Handler { return h })
}

func start(cfg *config.Config, log *slog.Logger, wrap func(exchange.Handler) exchange.Handler) (*Server, error) {
	s := &Server{config: cfg, log: log, wrap: wrap}
	if err := Unbuilt(cfg); err != nil {
		return nil, err
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	s.panics = make(chan panicReport, panicsQueued)
	s.logged = make(chan struct{})
	go s.logPanics()
	s.failures = startFailures(s.log)
	s.pseudonym = pseudonym()
	if err := s.startWorkers(); err != nil {
		s.stop()
		return nil, errors.Join(err, s.release())
	}
	s.log.Info("listening", "address", s.Addr(), "mode", cfg.Listen.Mode, "workers", len(s.workers),
		"engine", s.engine)
	return s, nil
}

// Unbuilt says no to what a configuration may ask for and this version does not
// do.
func Unbuilt(cfg *config.Config) error {
	if cfg.Listen.TLS != nil && cfg.Listen.Mode == config.TCP {
		return errors.New(`[listen.tls] with mode = "tcp" is not built yet: use mode "http" or "static"`)
	}
	return nil
}

// open prepares what all workers share.
func (s *Server) open() (err error) {
	cfg := s.config
	var fallback string
	s.engine, fallback, err = loop.Choose(loop.Engine(cfg.Listen.Engine))
	if err != nil {
		return err
	}
	if fallback != "" {
		s.log.Warn("fell back", "engine", s.engine, "reason", fallback)
	}
	if cfg.Listen.TLS != nil {
		if s.secure, err = openSecure(cfg.Listen.TLS, s.log); err != nil {
			return err
		}
	}
	if cfg.Listen.Mode == config.Static {
		if s.dir, err = loop.OpenDir(cfg.StaticFiles.Root); err != nil {
			return fmt.Errorf("[static_files] root: %w", err)
		}
	} else {
		options, err := groupOptions(cfg, s.log)
		if err != nil {
			return err
		}
		s.group = upstream.NewGroup(context.Background(), options)
	}
	return nil
}

// startWorkers opens the listeners and starts a worker on each.
func (s *Server) startWorkers() error {
	count, err := s.startLoops()
	if err != nil {
		return err
	}
	s.stats = stats.NewSet(count, h1.Labels())
	if procs := s.engine.Procs(count); runtime.GOMAXPROCS(0) < procs {
		runtime.GOMAXPROCS(procs)
	}
	if err := s.listen(count); err != nil {
		return err
	}
	for i, worker := range s.workers {
		if err := s.serve(i, worker); err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
	}
	if s.group != nil {
		s.group.Start()
	}
	if s.secure != nil {
		s.secure.start()
	}
	return nil
}

// startLoops starts the workers, all on one engine: where one cannot be opened
// and the configuration leaves the choice, all use the other engine.
func (s *Server) startLoops() (count int, err error) {
	for {
		var cpus []int
		count, cpus = s.plan()
		for i := 0; i < count && err == nil; i++ {
			err = s.startLoop(i, cpus[i])
		}
		instead, may := s.engine.Instead(loop.Engine(s.config.Listen.Engine))
		if err == nil || !may {
			return count, err
		}
		s.log.Warn("fell back", "engine", instead, "reason", err)
		for _, w := range s.workers {
			w.Stop()
			w.Wait()
		}
		s.workers, s.engine, err = nil, instead, nil
	}
}

func (s *Server) startLoop(i, cpu int) error {
	worker, err := loop.Start(loop.Config{
		Engine:   s.engine,
		CPU:      cpu,
		RateMin:  s.config.Limits.RateMin,
		Panicked: func(value any, stack []byte) { s.panicked(i, value, stack) },
	})
	if err != nil {
		return fmt.Errorf("worker %d: %w", i, err)
	}
	s.workers = append(s.workers, worker)
	return nil
}

// plan says how many workers there are, and which core each is pinned to; -1 is
// none.
func (s *Server) plan() (count int, cpus []int) {
	allowed := allowedCPUs()
	count = s.config.Listen.Workers
	if count == 0 {
		count = min(runtime.GOMAXPROCS(0), max(1, len(allowed)))
	}
	cpus = make([]int, count)
	pin := s.config.Listen.Pin && s.engine.Pins()
	if pin && count > len(allowed) {
		s.log.Warn("more workers than allowed cores: not pinned", "workers", count, "cores", len(allowed))
		pin = false
	}
	for i := range cpus {
		cpus[i] = -1
		if pin {
			cpus[i] = allowed[i]
		}
	}
	return count, cpus
}

// listen opens a listener for each worker of a ring, where the kernel shares
// connections out, and one for all workers of netpoll.
func (s *Server) listen(workers int) error {
	address := net.JoinHostPort(s.config.Listen.Address, strconv.Itoa(s.config.Listen.Port))
	// SO_REUSEPORT lets a second program of the same user share the port
	// without a word. One that is in use is asked for without it first.
	if s.config.Listen.Port != 0 {
		probe, err := net.Listen(loop.Network(address), address)
		if err != nil {
			return listenError(address, err)
		}
		if err := probe.Close(); err != nil {
			return fmt.Errorf("listen %s: %w", address, err)
		}
	}
	for range s.engine.Listeners(workers) {
		ln, err := loop.ListenTCP(address, s.config.Listen.Backlog)
		if err != nil {
			return listenError(address, err)
		}
		s.listeners = append(s.listeners, ln)
		address = ln.Addr().String() // port 0: the others join the first
	}
	s.address = address
	return nil
}

func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("[listen] %s is in use by another program: stop it or choose another port", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("[listen] %s: not allowed: ports below 1024 need root or CAP_NET_BIND_SERVICE", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("[listen] %s: this machine has no such address", address)
	}
	return fmt.Errorf("[listen] %w", err)
}

// serve gives a worker its handler and its listener.
func (s *Server) serve(i int, worker loop.Loop) error {
	listener := s.listeners[i%len(s.listeners)]
	answer := make(chan error, 1)
	worker.Post(func() {
		answer <- worker.Listen(listener, s.behindProxies(i, s.handler(i, worker)))
	})
	return <-answer
}

// handler builds what one worker serves.
func (s *Server) handler(i int, worker loop.Loop) loop.Handler {
	if s.config.Listen.Mode == config.TCP {
		return s.tunnels(i, worker)
	}
	t, counts := &s.config.Timeouts, s.stats.Worker(i)
	limits := h1.Limits{HeadBytes: s.config.Limits.HeaderBytes, Fields: s.config.Limits.HeaderFields}
	var h exchange.Handler
	var name string
	if s.config.Listen.Mode == config.Static {
		h = static.New(static.Config{
			Dir:           s.dir,
			Index:         s.config.StaticFiles.Index,
			CacheBytes:    s.config.StaticFiles.CacheBytes / int64(len(s.workers)),
			Precompressed: s.config.StaticFiles.Precompressed,
		})
	} else {
		name = s.pseudonym
		h = forward.New(forward.Config{
			Upstream: t.Upstream,
			Body:     t.Body,
			Write:    t.Write,
			Tunnel:   t.Tunnel,
			Limits:   limits,
			Via:      name,
			RateMin:  s.config.Limits.RateMin,
			Retries:  s.config.Routing.Retries,
			Route:    route(&s.config.Routing),
		}, s.pool(i, worker))
	}
	exchanges := exchange.NewServer(exchange.Config{
		Header:  t.Header,
		Body:    t.Body,
		Write:   t.Write,
		Idle:    t.Idle,
		Limits:  limits,
		BodyMax: s.config.Limits.BodyBytes,
		Secure:  s.secure != nil,
		Stats:   counts,
		Name:    name,
		Trusted: s.config.Routing.TrustedProxies,
		Failed:  s.failures.add,
	}, s.wrap(h))
	if s.secure == nil {
		return exchanges
	}
	return tlsio.NewHandler(tlsio.Config{TLS: &s.secure.current, Handshake: t.Handshake, Stats: counts}, exchanges)
}

// panicked is called on a worker, so it hands the report over and never waits.
func (s *Server) panicked(worker int, value any, stack []byte) {
	select {
	case s.panics <- panicReport{worker, value, stack}:
	default: // counted all the same
	}
}

func (s *Server) logPanics() {
	defer close(s.logged)
	for p := range s.panics {
		s.log.Error("panic in a handler: its connection was reset", "worker", p.worker,
			"panic", fmt.Sprint(p.value), "stack", string(p.stack))
	}
}

// Addr is the address that is listened on.
func (s *Server) Addr() string { return s.address }

// Engine is what the workers run on.
func (s *Server) Engine() loop.Engine { return s.engine }

// Panics counts the handlers that panicked.
func (s *Server) Panics() (n uint64) {
	for _, w := range s.workers {
		n += w.Counters().Panics.Load()
	}
	return n
}

// Shutdown stops accepting, lets exchanges in flight end, and cuts what is left
// when ctx is done. It reports whether everything ended by itself.
func (s *Server) Shutdown(ctx context.Context) (clean bool) {
	for _, w := range s.workers {
		w.Drain()
	}
	s.refuse(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for _, w := range s.workers {
			w.Wait()
		}
	}()
	select {
	case <-ended:
		clean = true
	case <-ctx.Done():
	}
	s.stop()
	if err := s.release(); err != nil {
		s.log.Warn("shut down", "error", err)
	}
	return clean
}

// refuse closes the listeners of draining workers, so that new connections are
// refused at once: with the sockets open the kernel would complete them, and
// they would hang until everything else has ended. A worker that has answered
// accepts no more, but for what its ring has under way, which keeps the socket.
func (s *Server) refuse(ctx context.Context) {
	for _, w := range s.workers {
		answered := make(chan struct{})
		if !w.Post(func() { close(answered) }) {
			continue // it has ended
		}
		select {
		case <-answered:
		case <-ctx.Done():
			return
		}
	}
	for _, ln := range s.listeners {
		if err := ln.Close(); err != nil {
			s.log.Warn("stop listening", "error", err)
		}
	}
	s.listeners = nil
}

// stop ends the workers now.
func (s *Server) stop() {
	if s.group != nil {
		s.group.Stop()
	}
	if s.secure != nil {
		s.secure.stop()
	}
	for _, w := range s.workers {
		w.Stop()
	}
	for _, w := range s.workers {
		w.Wait()
	}
	close(s.panics)
	<-s.logged
	s.failures.stop()
}

// release closes what belongs to the process. No worker runs any more.
func (s *Server) release() (err error) {
	for _, ln := range s.listeners {
		err = errors.Join(err, ln.Close())
	}
	if s.dir != nil {
		err = errors.Join(err, s.dir.Close())
	}
	return err
}
