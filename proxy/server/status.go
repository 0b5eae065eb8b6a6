package server

import (
	"context"
	"crypto/tls"
	"time"

	"atlas/proxy/loop"
	"atlas/proxy/stats"
	"atlas/proxy/upstream"
)

// Status is what a server says about itself at one moment. Numbers in it are from
// moments apart, as the workers go on.
type Status struct {
	Ready        bool
	Reason       string // why it is not
	Started      time.Time
	Engine       loop.Engine
	EngineReason string
	Listeners    []ListenerStatus
	Workers      []WorkerStatus
	Upstreams    upstream.Report
	Certificates []CertificateStatus
	// CertificateErrors are what is wrong with files of [listen.tls] as they are now:
	// what they were before is in use.
	CertificateErrors []string
	Upgrades          UpgradeStatus
	Reloads           ReloadStatus
	Counters          []stats.Value // of all workers together
	Times             []stats.Distribution
	// Unlogged are failures that the log had no time for.
	Unlogged int64
}

// ListenerStatus is an address that is listened on.
type ListenerStatus struct {
	Address string
	Mode    string
	TLS     bool
}

// WorkerStatus is what one worker counts.
type WorkerStatus struct {
	Requests int64
	Loop     *loop.Counters
}

// CertificateStatus is a certificate of the listener.
type CertificateStatus struct {
	File      string
	Names     []string
	NotBefore time.Time
	NotAfter  time.Time
}

// Status asks the workers for what only they know, as long as ctx allows. Any
// goroutine.
func (s *Server) Status(ctx context.Context) Status {
	now := s.now.Load()
	st := Status{
		Started: s.started, Engine: s.engine, EngineReason: s.engineReason,
		Listeners: []ListenerStatus{{
			Address: now.door.address,
			Mode:    string(now.config.Listen.Mode),
			TLS:     now.secure != nil,
		}},
		Upstreams: s.group.Report(ctx),
		Reloads:   s.Reloads(),
		Upgrades:  s.upgrades.now(),
		Counters:  s.stats.Snapshot(nil),
		Times:     s.stats.Distributions(nil),
		Unlogged:  s.failures.unlogged.Load(),
	}
	st.Reason = s.NotReady()
	st.Ready = st.Reason == ""
	for _, w := range s.workers {
		st.Workers = append(st.Workers, WorkerStatus{Requests: w.stats.Requests.Load(), Loop: w.Counters()})
	}
	if now.secure != nil {
		known := now.secure.published.Load()
		st.Certificates, st.CertificateErrors = known.inUse, known.problems
	}
	return st
}

// NotReady is why no new connections should be sent here; empty: they may.
func (s *Server) NotReady() string {
	if !s.Ready() {
		return "draining"
	}
	return ""
}

// Silent asks every worker for a sign of life, and returns those that give none
// while ctx lasts. One that has ended, as it may in a drain, is not silent.
func (s *Server) Silent(ctx context.Context) (workers []int) {
	answers := make(chan int, len(s.workers))
	silent := make(map[int]bool)
	for i, w := range s.workers {
		if w.Post(func() { answers <- i }) {
			silent[i] = true
		}
	}
	for len(silent) > 0 {
		select {
		case i := <-answers:
			delete(silent, i)
		case <-ctx.Done():
			for i := range s.workers {
				if silent[i] {
					workers = append(workers, i)
				}
			}
			return workers
		}
	}
	return nil
}

// DrainUpstream takes an upstream out of the rotation of all workers, or puts it
// back. It reports whether there is one of that name.
func (s *Server) DrainUpstream(name string, out bool) (known bool) { return s.group.Drain(name, out) }

// certificates are what is known of files of [listen.tls].
type certificates struct {
	inUse    []CertificateStatus
	problems []string
}

// note remembers which certificates are in use, and which could not be, for those
// who ask.
func (s *secure) note() {
	known := new(certificates)
	sources := []*source{&s.clients, &s.staple}
	for _, p := range s.pairs {
		known.inUse = append(known.inUse, statusOf(p.files[0], p.good))
		sources = append(sources, &p.source)
	}
	for _, f := range sources {
		if f.problem != "" {
			known.problems = append(known.problems, f.problem)
		}
	}
	s.published.Store(known)
}

func statusOf(file string, c *tls.Certificate) CertificateStatus {
	names := c.Leaf.DNSNames
	for _, ip := range c.Leaf.IPAddresses {
		names = append(names[:len(names):len(names)], ip.String())
	}
	return CertificateStatus{File: file, Names: names, NotBefore: c.Leaf.NotBefore, NotAfter: c.Leaf.NotAfter}
}
