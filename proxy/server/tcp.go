package server

import (
	"log/slog"
	"net/netip"

	"atlas/proxy/loop"
	"atlas/proxy/proxyhead"
	"atlas/proxy/tunnel"
)

// tunnels is what one worker serves in tcp mode.
func (s *Server) tunnels(i int, worker loop.Loop) loop.Handler {
	return tunnel.New(tunnel.Config{
		Idle:     s.config.Timeouts.Tunnel,
		Retries:  s.config.Routing.Retries,
		Strategy: s.config.Routing.Strategy,
		Stats:    s.stats.Worker(i),
		Failed:   func(f tunnel.Failure) { s.failures.put(f) },
	}, s.pool(i, worker))
}

// behindProxies has connections of the proxies that the configuration names begin
// with their PROXY header. It is in front of all else.
func (s *Server) behindProxies(i int, h loop.Handler) loop.Handler {
	from := s.config.Listen.AcceptProxy
	if len(from) == 0 {
		return h
	}
	return proxyhead.NewHandler(proxyhead.Config{
		From:    from,
		Wait:    s.config.Timeouts.Header,
		Stats:   s.stats.Worker(i),
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
