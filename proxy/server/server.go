// Package server runs a configuration: it opens the listeners, starts a worker
// for each core, gives each its handler, and ends them all in order.
//
// It serves nothing itself, and prints nothing but through the logger it is
// given. What lives as long as the process stands in Server: the engine, the
// workers, listeners by address, the upstreams with their health, counters, keys of
// tickets. What is made of one configuration stands in setup, which is built whole
// and checked before any worker sees it, and in a service for each worker, which
// takes the place of the one before it between two requests.
//
// Workers share only what never changes or is atomic, and the load counters that
// the balancing strategy asks for.
//
// Start and Shutdown, which is called once, are for the main goroutine.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"atlas/proxy/accesslog"
	"atlas/proxy/config"
	"atlas/proxy/exchange"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// panicsQueued bounds the panics that wait to be logged; more are only counted.
const panicsQueued = 16

// drainQuiet is that of each worker; zero is its default, tests rest less.
var drainQuiet time.Duration

// Server is a running process: what lives as long as it does, and the setup of
// its configuration.
type Server struct {
	log     *slog.Logger
	started time.Time
	engine  loop.Engine
	// engineReason is why it is this engine.
	engineReason string
	workers      []*worker
	doors        doors
	stats        *stats.Set
	access       *accesslog.Log
	group        *upstream.Group // without upstreams in static mode
	handshakes   handshakes
	now          atomic.Pointer[setup]
	reloader     *reloader
	upgrades     upgrades
	panics       chan panicReport
	logged       chan struct{}
	failures     *failures
	limits       limits
	pseudonym    string
	estate       Estate
	unready      atomic.Bool
	leaving      atomic.Bool // another process is about to take our place

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
	return startWith(cfg, log, wrap, Estate{})
}

func startWith(
	cfg *config.Config, log *slog.Logger, wrap func(exchange.Handler) exchange.Handler, e Estate,
) (*Server, error) {
	s := &Server{log: log, wrap: wrap, estate: e, started: time.Now()}
	if err := s.chooseEngine(cfg); err != nil {
		return nil, err
	}
	s.group = upstream.NewGroup(context.Background(), upstream.Options{Strategy: cfg.Routing.Strategy, Log: log})
	next, err := s.build(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	s.panics = make(chan panicReport, panicsQueued)
	s.logged = make(chan struct{})
	go s.logPanics()
	s.failures = startFailures(s.log)
	s.limits.failures = s.failures
	s.pseudonym = pseudonym()
	if err := s.startWorkers(next); err != nil {
		s.stop()
		return nil, errors.Join(err, next.release(), s.doors.close())
	}
	s.log.Info("listening", "address", s.Addr(), "mode", cfg.Listen.Mode, "workers", len(s.workers),
		"engine", s.engine)
	return s, nil
}

func (s *Server) chooseEngine(cfg *config.Config) (err error) {
	var fallback string
	s.engine, fallback, err = loop.Choose(loop.Engine(cfg.Listen.Engine))
	if err == nil && fallback != "" {
		s.log.Warn("fell back", "engine", s.engine, "reason", fallback)
	}
	s.engineReason = loop.Reason(loop.Engine(cfg.Listen.Engine), fallback)
	return err
}

// startWorkers starts the workers, opens the listeners and begins to serve.
func (s *Server) startWorkers(first *setup) error {
	if err := s.startLoops(first.config); err != nil {
		return err
	}
	count := len(s.workers)
	s.stats = stats.NewSet(count, h1.Labels())
	var counters []*stats.Stats
	for i, w := range s.workers {
		w.stats = s.stats.Worker(i)
		counters = append(counters, w.stats)
	}
	s.access = accesslog.New(counters, s.log)
	if procs := s.engine.Procs(count); runtime.GOMAXPROCS(0) < procs {
		runtime.GOMAXPROCS(procs)
	}
	if err := s.open(first); err != nil {
		return err
	}
	for _, w := range s.workers {
		w.pool = newPool(s.group, w)
	}
	s.inheritNotes()
	if err := s.loaded(); err != nil {
		return err
	}
	if err := s.apply(first); err != nil {
		return err
	}
	s.group.Start()
	s.reloader = startReloader(s)
	return nil
}

// startLoops starts the workers, all on one engine: where one cannot be opened
// and the configuration leaves the choice, all use the other engine.
func (s *Server) startLoops(cfg *config.Config) (err error) {
	for {
		count, cpus := s.plan(cfg)
		for i := 0; i < count && err == nil; i++ {
			err = s.startLoop(cfg, i, cpus[i])
		}
		instead, may := s.engine.Instead(loop.Engine(cfg.Listen.Engine))
		if err == nil || !may {
			return err
		}
		s.log.Warn("fell back", "engine", instead, "reason", err)
		for _, w := range s.workers {
			w.Stop()
			w.Wait()
		}
		s.workers, s.engine, s.engineReason, err = nil, instead, err.Error(), nil
	}
}

func (s *Server) startLoop(cfg *config.Config, i, cpu int) error {
	l, err := loop.Start(loop.Config{
		Engine:     s.engine,
		CPU:        cpu,
		RateMin:    cfg.Limits.RateMin,
		DrainQuiet: drainQuiet,
		Gate:       &s.limits.gate,
		Held:       s.limits.held,
		Panicked:   func(value any, stack []byte) { s.panicked(i, value, stack) },
	})
	if err != nil {
		return fmt.Errorf("worker %d: %w", i, err)
	}
	s.workers = append(s.workers, newWorker(l, i))
	return nil
}

// plan says how many workers there are, and which core each is pinned to; -1 is
// none.
func (s *Server) plan(cfg *config.Config) (count int, cpus []int) {
	allowed := allowedCPUs()
	count = cfg.Listen.Workers
	if count == 0 {
		count = min(runtime.GOMAXPROCS(0), max(1, len(allowed)))
	}
	cpus = make([]int, count)
	pin := cfg.Listen.Pin && s.engine.Pins()
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
func (s *Server) Addr() string { return s.now.Load().door.address }

// Config is the configuration that is active.
func (s *Server) Config() *config.Config { return s.now.Load().config }

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
	s.reloader.stop()
	s.Unready()
	for _, d := range s.doors.all() {
		s.refuse(d)
	}
	for _, w := range s.workers {
		w.Drain()
	}
	through := true
	for _, d := range s.doors.all() {
		through = s.unlisten(ctx, d) && through
	}
	if through { // else a worker may still accept, and the number be another file's by then
		if err := s.doors.close(); err != nil {
			s.log.Warn("stop listening", "error", err)
		}
	}
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
	if err := errors.Join(s.now.Load().release(), s.doors.close()); err != nil {
		s.log.Warn("shut down", "error", err)
	}
	return clean
}

// refuse has no connection begin any more at a door that nobody else has: with the
// socket open the kernel would complete it, and it would hang until everything else
// has ended, or be reset.
func (s *Server) refuse(d *door) {
	if d.shared.Load() {
		return
	}
	for _, ln := range d.all() {
		if err := ln.Refuse(); err != nil {
			s.log.Warn("stop listening", "address", d.address, "error", err)
		}
	}
}

// stop ends the workers now.
func (s *Server) stop() {
	s.group.Stop()
	for _, w := range s.workers {
		w.Stop()
	}
	for _, w := range s.workers {
		w.Wait()
	}
	if s.access != nil {
		s.access.Close(accessPatience)
	}
	close(s.panics)
	<-s.logged
	s.failures.stop()
}
