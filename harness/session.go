package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"atlas/harness/attack"
	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// session is what all samples of a run share: the cores, the documents and
// the origin.
type session struct {
	options   *options
	cores     host.Cores
	scratch   string // removed by close
	root      string // of the documents
	launcher  subject.Launcher
	generator attack.Generator
	identity  map[scenarios.Key]*cert.Identity // as far as needed
	origin    *subject.Running                 // nil if nothing is forwarded
	originBy  string                           // name of the origin, "" if there is none
	warnings  []string                         // that limit the meaning of every sample
}

// openSession pins this process to the client's cores, writes the documents
// and starts the origin if a scenario needs it. close undoes it.
func openSession(ctx context.Context, o *options) (s *session, err error) {
	scratch, err := os.MkdirTemp("", "atlas-lab-")
	if err != nil {
		return nil, err
	}
	s = &session{options: o, scratch: scratch, root: filepath.Join(scratch, "documents"), warnings: o.notes}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	// A worker of nginx may run as another user; MkdirTemp shuts others out.
	if err := os.Chmod(scratch, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(s.root, 0o755); err != nil {
		return nil, err
	}
	lengths, err := documents(o.scenarios)
	if err != nil {
		return nil, err
	}
	if err := origin.WriteTree(s.root, lengths); err != nil {
		return nil, err
	}
	if err := s.identify(); err != nil {
		return nil, err
	}
	s.pin()
	s.launcher = subject.Launcher{Programs: o.programs, Scratch: scratch}
	s.generator = attack.Generator{Cores: s.cores.Client, Scratch: scratch}
	if o.generator == generatorWrk {
		if s.generator.Wrk, err = host.Find("wrk"); err != nil {
			return nil, err
		}
	}
	return s, s.startOrigin(ctx)
}

// documents returns the length of every document by its path.
func documents(all []*scenarios.Scenario) (map[string]int, error) {
	lengths := map[string]int{}
	for _, one := range all {
		target := one.Target
		if known, ok := lengths[target.Path]; ok && known != target.Length {
			return nil, fmt.Errorf("scenario %s wants %s of %d bytes, another one of %d: use another path",
				one.Name, target.Path, target.Length, known)
		}
		lengths[target.Path] = target.Length
	}
	return lengths, nil
}

// identify makes a certificate of each kind that is needed, the same for every
// subject.
func (s *session) identify() error {
	s.identity = map[scenarios.Key]*cert.Identity{}
	for _, one := range s.options.scenarios {
		kind := one.Target.TLS
		if kind == scenarios.Plain || s.identity[kind] != nil {
			continue
		}
		made, err := cert.Make(s.scratch, kind)
		if err != nil {
			return err
		}
		s.identity[kind] = made
	}
	return nil
}

// procs lets the pacer sleep in the kernel on one thread while another reads
// answers, though both share a core.
const procs = 2

// pin divides the cores and moves this process to the client's.
func (s *session) pin() {
	s.cores = host.Split(host.Allowed(), host.Siblings)
	if s.cores.Warning != "" {
		s.warnings = append(s.warnings, s.cores.Warning)
	}
	if len(s.cores.Client) == 0 {
		return
	}
	if err := host.PinSelf(s.cores.Client); err != nil {
		s.warnings = append(s.warnings, fmt.Sprintf("nothing is pinned: %v", err))
		s.cores = host.Cores{}
		return
	}
	runtime.GOMAXPROCS(max(procs, len(s.cores.Client)))
}

// startOrigin starts the best origin there is, if any scenario forwards to it.
// One origin serves the whole run: restarting it would only add noise.
func (s *session) startOrigin(ctx context.Context) error {
	for _, one := range s.options.scenarios {
		if !one.Target.Kind.Forwards() {
			continue
		}
		for _, candidate := range subject.Origins() {
			if err := candidate.Missing(s.options.programs); err != nil {
				s.warnings = append(s.warnings, fmt.Sprintf("the origin is Go's net/http: %v", err))
				continue
			}
			site := s.site(cell{scenario: one})
			site.Kind, site.Identity = scenarios.Static, nil
			running, err := s.launcher.Start(ctx, candidate, site, s.cores.Client)
			if err != nil {
				return err
			}
			s.origin, s.originBy = running, candidate.Name
			return nil
		}
	}
	return nil
}

// close stops the origin and removes every file of the session.
func (s *session) close() error {
	var err error
	if s.origin != nil {
		err = s.origin.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.scratch))
}

// site is what a subject has to serve in a cell.
func (s *session) site(c cell) subject.Site {
	site := subject.Site{
		Kind:   c.scenario.Target.Kind,
		Root:   s.root,
		Path:   c.scenario.Target.Path,
		Length: c.scenario.Target.Length,
		Conns:  c.conns,

		Identity: s.identity[c.scenario.Target.TLS],
	}
	if s.origin != nil {
		site.Origin = s.origin.Address
	}
	return site
}

// measure takes one sample with a fresh process of the subject.
func (s *session) measure(ctx context.Context, st step) (attack.Sample, error) {
	running, err := s.launcher.Start(ctx, st.subject, s.site(st.cell), s.cores.Server)
	if err != nil {
		return attack.Sample{}, err
	}
	target := attack.Target{
		Address: running.Address,
		Path:    st.cell.scenario.Target.Path,
		Length:  st.cell.scenario.Target.Length,
	}
	if identity := s.identity[st.cell.scenario.Target.TLS]; identity != nil {
		target.TLS = identity.Client()
	}
	load := attack.Load{
		Of:       st.cell.scenario.Load.Of,
		Conns:    st.cell.conns,
		Rate:     st.cell.scenario.Load.Rate,
		Crowd:    st.cell.scenario.Load.Handshakes,
		Warmup:   s.options.form.warmup,
		Measured: s.options.form.measured,
	}
	meters := attack.Meters{Server: running.Meter.CPU, Resident: running.Meter.Resident}
	if st.cell.scenario.Target.Kind.Forwards() {
		meters.Origin = s.origin.Meter.CPU
	}
	sample, err := attack.Measure(ctx, s.generator, target, load, meters)
	if err != nil {
		// A server that died explains its errors better than they do.
		if ended := running.Ended(); ended != nil {
			err = ended
		}
		return attack.Sample{}, errors.Join(err, running.Stop())
	}
	if err := running.Stop(); err != nil {
		sample.Notes = append(sample.Notes, err.Error())
	}
	return sample, nil
}
