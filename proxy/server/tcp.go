package server

import (
	"log/slog"
	"net/netip"

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/proxyhead"
	"atlas/proxy/tunnel"
)

// tunnels is what one worker serves in tcp mode.
func (s *Server) tunnels(cfg *config.Config, w *worker) loop.Handler {
	return tunnel.New(tunnel.Config{
		Idle:     cfg.Timeouts.Tunnel,
		Retries:  cfg.Routing.Retries,
		Strategy: cfg.Routing.Strategy,
		Stats:    w.stats,
		Log:      s.access.Ring(w.index),
		Timed:    timed(cfg),
		Failed:   func(f tunnel.Failure) { s.failures.put(f) },
	}, w.pool)
}

// behindProxies has connections of the proxies that the configuration names begin
// with their PROXY header. It is in front of all else.
func (s *Server) behindProxies(cfg *config.Config, w *worker, h loop.Handler) loop.Handler {
	from := cfg.Listen.AcceptProxy
	if len(from) == 0 {
		return h
	}
	var admit func(loop.Conn) bool
	if cfg.Limits.ConnectionsPerIP > 0 {
		admit = func(c loop.Conn) bool { return s.limits.admits(c, w.stats) }
	}
	return proxyhead.NewHandler(proxyhead.Config{
		From:    from,
		Wait:    cfg.Timeouts.Header,
		Stats:   w.stats,
		Admit:   admit,
		Refused: func(proxy netip.AddrPort, why error) { s.failures.put(refusal{proxy, why}) },
	}, h)
}

// refusal is a connection of a proxy without a PROXY header.
type refusal struct {
	proxy netip.AddrPort
	why   error
}

func (f *failures) writeTunnel(r *tunnel.Failure) {
	level := slog.LevelWarn
	if r.Peer {
		level = slog.LevelInfo // peers do that
	}
	fields := []any{"client", nameOf(r.Client)}
	if r.Upstream != "" {
		fields = append(fields, "upstream", r.Upstream)
	}
	fields = append(fields, "why", r.Why)
	if r.Cause != nil {
		fields = append(fields, "cause", r.Cause.Error())
	}
	if r.Moved != [2]int64{} {
		fields = append(fields, "sent", r.Moved[0], "received", r.Moved[1])
	}
	f.line(level, "connection failed", fields...)
}
