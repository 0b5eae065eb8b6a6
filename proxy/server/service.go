package server

import (
	"atlas/proxy/config"
	"atlas/proxy/exchange"
	"atlas/proxy/forward"
	"atlas/proxy/h1"
	"atlas/proxy/loop"
	"atlas/proxy/static"
	"atlas/proxy/tlsio"
)

// newService builds what one worker serves by a setup.
func (s *Server) newService(u *setup, w *worker) *service {
	v := &service{server: s, setup: u}
	if u.config.Listen.Mode == config.TCP {
		v.handler = s.tunnels(u.config, w)
	} else {
		v.handler = s.exchanges(u, w)
	}
	v.front = w
	if u.secure != nil {
		v.front = tlsio.NewHandler(tlsio.Config{
			TLS: &s.handshakes.current, Handshake: u.config.Timeouts.Handshake, Stats: w.stats,
		}, v.front)
	}
	v.front = s.behindProxies(u.config, w, v.front)
	v.front = s.limits.behindTurnstile(u.config, w.stats, v.front)
	return v
}

// exchanges is what one worker serves in the modes that speak HTTP.
func (s *Server) exchanges(u *setup, w *worker) loop.Handler {
	cfg := u.config
	t := &cfg.Timeouts
	limits := h1.Limits{HeadBytes: cfg.Limits.HeaderBytes, Fields: cfg.Limits.HeaderFields}
	var h exchange.Handler
	var name string
	if cfg.Listen.Mode == config.Static {
		h = static.New(static.Config{
			Dir:           u.dir,
			Index:         cfg.StaticFiles.Index,
			CacheBytes:    cfg.StaticFiles.CacheBytes / int64(len(s.workers)),
			Precompressed: cfg.StaticFiles.Precompressed,
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
			RateMin:  cfg.Limits.RateMin,
			Retries:  cfg.Routing.Retries,
			Route:    route(&cfg.Routing),
			Timing:   cfg.Routing.ServerTiming,
		}, w.pool)
	}
	return exchange.NewServer(exchange.Config{
		Header:  t.Header,
		Body:    t.Body,
		Write:   t.Write,
		Idle:    t.Idle,
		Limits:  limits,
		BodyMax: cfg.Limits.BodyBytes,
		Stats:   w.stats,
		Name:    name,
		Trusted: cfg.Routing.TrustedProxies,
		Rate:    s.limits.requests(&cfg.Limits),
		Log:     s.access.Ring(w.index),
		Timed:   timed(cfg),
		Failed:  s.failures.add,
	}, s.wrap(h))
}

// timed reports that somebody may ask how long exchanges take: then it is counted.
func timed(cfg *config.Config) bool { return cfg.Admin.Address != "" }
