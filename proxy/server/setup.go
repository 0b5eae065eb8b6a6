package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"atlas/proxy/accesslog"
	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/upstream"
)

// setup is what one configuration stands on: all that it names and that has to be
// there. It is built whole and checked before a worker sees it, and released when
// the last exchange that uses it has ended.
type setup struct {
	config *config.Config
	secure *secure   // nil: clients speak plain text
	dir    *loop.Dir // nil but in static mode
	plan   *upstream.Plan
	door   *door
	access *accesslog.Opened // nil: it is in use
	trust  source            // files with the authorities of upstreams' certificates

	users atomic.Int32 // workers whose service has not ended
}

// build opens what a configuration names but for its listeners, or says what is
// wrong, with nothing left open. Nothing that runs notices.
func (s *Server) build(ctx context.Context, cfg *config.Config) (_ *setup, err error) {
	next := &setup{config: cfg}
	if cfg.Listen.TLS != nil {
		alpn := alpnHTTP
		if cfg.Listen.Mode == config.TCP {
			alpn = cfg.Listen.TLS.ALPN
		}
		if next.secure, err = openSecure(cfg.Listen.TLS, alpn, &s.handshakes, s.log); err != nil {
			return nil, err
		}
	}
	next.trust = trustOf(cfg)
	_, _, _ = next.trust.read() // a file that cannot be read is an error below
	options, err := groupOptions(cfg, s.log)
	if err != nil {
		return nil, err
	}
	next.plan = s.group.Prepare(ctx, options)
	if cfg.Listen.Mode == config.Static {
		if next.dir, err = loop.OpenDir(cfg.StaticFiles.Root); err != nil {
			return nil, fmt.Errorf("[static_files] root: %w", err)
		}
	}
	if next.access, err = openAccessLog(&cfg.AccessLog); err != nil {
		return nil, errors.Join(err, next.release())
	}
	return next, nil
}

// apply has all workers use a setup from now on, and returns when they do. It fails
// only where a worker has ended.
func (s *Server) apply(next *setup) error {
	next.users.Store(int32(len(s.workers)))
	s.limits.set(next.config, s.log)
	if next.secure != nil {
		next.secure.use()
	}
	s.access.Apply(next.access)
	next.access = nil
	// Without upstreams the old service could serve nothing: it goes first.
	static := next.config.Listen.Mode == config.Static
	if !static {
		s.group.Apply(next.plan)
	}
	answers := make(chan error, len(s.workers))
	for _, w := range s.workers {
		v := s.newService(next, w)
		if !w.Post(func() { answers <- w.take(v, next.door) }) {
			answers <- loop.ErrStopped
		}
	}
	var err error
	for i := range s.workers {
		if failed := <-answers; failed != nil {
			err = errors.Join(err, fmt.Errorf("worker %d: %w", i, failed))
		}
	}
	s.now.Store(next)
	if static {
		s.group.Apply(next.plan)
		for _, w := range s.workers {
			w.Post(w.pool.Refresh)
		}
	}
	return err
}

// leave is called by each worker that has no exchange of the setup any more. The
// last one has it released, by a goroutine: a worker closes no files.
func (u *setup) leave(s *Server) {
	if u.users.Add(-1) == 0 {
		go func() {
			if err := u.release(); err != nil {
				s.log.Warn("release what the last configuration used", "error", err)
			}
		}()
	}
}

// release closes what only this setup has.
func (u *setup) release() error {
	if u.access != nil {
		u.access.Close()
	}
	if u.dir == nil {
		return nil
	}
	return u.dir.Close()
}
