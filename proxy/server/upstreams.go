package server

import (
	"log/slog"
	"net/netip"
	"time"

	"atlas/proxy/config"
	"atlas/proxy/forward"
	"atlas/proxy/loop"
	"atlas/proxy/proxyhead"
	"atlas/proxy/upstream"
)

// groupOptions is what the configuration says about upstreams, in the words of
// package upstream.
func groupOptions(cfg *config.Config, log *slog.Logger) (upstream.Options, error) {
	o := upstream.Options{
		Strategy:  cfg.Routing.Strategy,
		SlowStart: cfg.Routing.SlowStart,
		QueueMax:  cfg.Routing.Queue,
		QueueWait: cfg.Timeouts.Queue,
		Log:       log,
	}
	if cfg.Listen.Mode == config.Static {
		return o, nil
	}
	for i := range cfg.Upstreams {
		c := &cfg.Upstreams[i]
		u := upstream.Upstream{
			Name:           c.Name,
			Weight:         c.Weight,
			MaxConnections: c.MaxConnections,
			MinIdle:        c.MinIdle,
			SendProxy:      proxyVersions[c.SendProxy],
		}
		port := uint16(c.Port)
		if path := config.UnixPath(c.Address); path != "" {
			u.Address = loop.Address{Path: path}
		} else if ip, err := netip.ParseAddr(c.Address); err == nil {
			u.Address = loop.Address{AddrPort: netip.AddrPortFrom(ip, port)}
		} else {
			u.Host, u.Port = c.Address, port
		}
		if check := c.HealthCheck; check != nil {
			u.Check = (*upstream.Check)(check)
			if cfg.Listen.Mode == config.TCP {
				connects := *u.Check
				connects.Path = ""
				u.Check = &connects
			}
		}
		var err error
		if u.TLS, u.Trust, err = upstreamTLS(c, cfg.Listen.Mode); err != nil {
			return o, err
		}
		o.Upstreams = append(o.Upstreams, u)
	}
	return o, nil
}

var proxyVersions = map[string]proxyhead.Version{"v1": proxyhead.V1, "v2": proxyhead.V2}

// newPool makes the connections to upstreams of one worker. What a configuration
// says of them comes with take.
func newPool(group *upstream.Group, w *worker) *upstream.Pool {
	return upstream.New(w.Loop, upstream.Config{
		Group:  group,
		Worker: w.index,
		Seed:   uint64(time.Now().UnixNano()) + uint64(w.index),
		Stats:  w.stats,
	})
}

// route is what the configuration says about where a request goes.
func route(r *config.Routing) forward.Route {
	of, name := r.HashOf()
	kinds := map[string]forward.Hash{
		config.HashPath:   forward.HashPath,
		config.HashHeader: forward.HashHeader,
		config.HashCookie: forward.HashCookie,
	}
	return forward.Route{Strategy: r.Strategy, Hash: kinds[of], Name: name, Sticky: r.Sticky}
}
