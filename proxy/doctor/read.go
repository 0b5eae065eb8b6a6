package doctor

import (
	"errors"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"atlas/proxy/config"
	"atlas/proxy/loop"
)

// Read looks at the machine, and at what a configuration asks of it; nil is the
// defaults.
func Read(cfg *config.Config) *Readings {
	r := &Readings{
		System: runtime.GOOS, RingMay: true, Pin: true,
		Seccomp: -1, OpenSoft: -1, OpenHard: -1, LockedSoft: -1, Somaxconn: -1, ConntrackCount: -1,
		CPUs: runtime.NumCPU(), Online: runtime.NumCPU(), Now: time.Now(),
	}
	if cfg != nil {
		r.RingMay, r.RingMust = loop.Engine(cfg.Listen.Engine).Ring()
		r.Pin = cfg.Listen.Pin
		r.Workers, r.Backlog = cfg.Listen.Workers, cfg.Listen.Backlog
		for i := range cfg.Upstreams {
			if cfg.Listen.Mode != config.Static && config.UnixPath(cfg.Upstreams[i].Address) == "" {
				r.UpstreamsTCP++
			}
		}
		port := bind(net.JoinHostPort(cfg.Listen.Address, strconv.Itoa(cfg.Listen.Port)))
		if errors.Is(port.Err, syscall.EADDRINUSE) {
			port.Holder = holder(cfg.Listen.Port, cfg.File)
		}
		r.Ports = []Port{port}
	}
	r.readSystem()
	return r
}

// bind listens for a moment, without SO_REUSEPORT: that would let it in beside a
// server that has the port.
func bind(address string) Port {
	ln, err := net.Listen(loop.Network(address), address)
	if err == nil {
		err = ln.Close()
	}
	return Port{Address: address, Err: err}
}
