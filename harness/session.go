package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

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
	allowed   []int  // all cores that may be used
	scratch   string // removed by close
	root      string // of the documents
	launcher  subject.Launcher
	hosts     hosts // other than this one
	generator attack.Generator
	identity  map[scenarios.Key]*cert.Identity // as far as needed
	origins   map[behind]*subject.Running      // empty if nothing is forwarded
	originBy  string                           // name of the origin, "" if there is none
	warnings  []string                         // that limit the meaning of every sample
}

// behind is what tells origins apart: the cores that they share, how long they
// wait before they answer, and whether they have to be the lab's own.
type behind struct {
	cores int
	delay time.Duration
	own   bool
}

func behindOf(s *scenarios.Scenario) behind {
	return behind{cores: s.Shared.Cores, delay: time.Duration(s.Origin.Delay), own: s.OwnOrigin()}
}

// openSession pins this process to the client's cores, writes the documents
// and starts the origin if a scenario needs it. close undoes it.
func openSession(ctx context.Context, o *options) (_ *session, err error) {
	scratch, err := os.MkdirTemp("", "atlas-lab-")
	if err != nil {
		return nil, err
	}
	s := &session{options: o, scratch: scratch, root: filepath.Join(scratch, "documents"), warnings: o.notes}
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
	if err := host.RaiseFiles(filesWanted(o.scenarios)); err != nil { // a gate has not asked before
		s.warnings = append(s.warnings, fmt.Sprintf("the limit of open files cannot be raised for wrk: %v", err))
	}
	if s.hosts, err = openHosts(o, scratch); err != nil {
		return nil, err
	}
	s.warnings = append(s.warnings, s.hosts.warnings()...)
	s.pin()
	s.launcher = subject.Launcher{Programs: o.programs, Scratch: scratch}
	s.generator = attack.Generator{Cores: s.cores.Client, Scratch: scratch, Harness: o.programs.Harness}
	if slices.Contains(o.generators, generatorWrk) {
		if s.generator.Wrk, err = host.Find("wrk"); err != nil {
			return nil, err
		}
	}
	return s, s.startOrigins(ctx)
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
		if one.Load.Greedy == scenarios.Download {
			lengths[scenarios.GreedyPath] = scenarios.GreedyLength
		}
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
	allowed := s.options.allowed
	if allowed == nil {
		allowed = host.Allowed()
	}
	s.allowed = allowed
	s.cores = s.hosts.cores(allowed)
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

// startOrigins starts the best origin there is, if any scenario forwards to it,
// and others with as many workers for those where all share their cores, and for
// those that wait. They serve the whole run: restarting them would only add noise.
func (s *session) startOrigins(ctx context.Context) error {
	s.origins = map[behind]*subject.Running{}
	launcher := s.launcher
	launcher.Programs.Compose = s.hosts.origin
	for _, one := range s.options.scenarios {
		if !one.Target.Kind.Forwards() || s.origins[behindOf(one)] != nil {
			continue
		}
		by, own := launcher, one.OwnOrigin()
		if own {
			by.Programs.Compose = nil // our own is a process of this host
		}
		candidate, err := s.bestOrigin(by.Programs, own)
		if err != nil {
			return err
		}
		site := s.site(cell{scenario: one, conns: s.connsMost(behindOf(one))})
		site.Kind, site.Identity, site.Listen = scenarios.Static, nil, s.hosts.roles.origin.Address
		running, err := by.Start(ctx, candidate, site, s.hosts.originCores(s.sides(one).Client))
		if err != nil {
			return err
		}
		s.origins[behindOf(one)] = running
		if !own || s.originBy == "" {
			s.originBy = candidate.Name
		}
		if err := s.hosts.reach("http://" + running.Address + site.Path); err != nil {
			return err
		}
	}
	return nil
}

// connsMost is the most connections that an origin may have to serve.
func (s *session) connsMost(at behind) (most int) {
	for _, one := range s.options.scenarios {
		if one.Target.Kind.Forwards() && behindOf(one) == at {
			most = max(most, slices.Max(one.Load.Conns))
		}
	}
	return most
}

// fieldsOf are the header fields of a scenario's requests beside Host.
func fieldsOf(s *scenarios.Scenario) (fields []string) {
	for i := range s.Load.Headers {
		fields = append(fields, fmt.Sprintf("X-Lab-Field-%02d: 0123456789abcd", i))
	}
	if s.Load.Of == scenarios.Connections {
		fields = append(fields, "Connection: close")
	}
	return fields
}

// bestOrigin is the first that is there, with a warning where it is not the best.
func (s *session) bestOrigin(programs subject.Programs, own bool) (subject.Subject, error) {
	var missing []error
	for _, candidate := range subject.Origins(own) {
		err := candidate.Missing(programs)
		if err == nil {
			if len(missing) > 0 {
				s.warnings = append(s.warnings, fmt.Sprintf("the origin is Go's net/http: %v", missing[0]))
			}
			return candidate, nil
		}
		missing = append(missing, err)
	}
	return subject.Subject{}, fmt.Errorf("there is no origin: %w", missing[0])
}

// sides are the cores of a scenario's two sides.
func (s *session) sides(of *scenarios.Scenario) host.Cores {
	if n := of.Shared.Cores; n > 0 {
		return host.Cores{Server: s.allowed[:n], Client: s.allowed[:n]}
	}
	return s.cores
}

// close stops the origins and removes every file of the session.
func (s *session) close() error {
	var err error
	for _, one := range s.origins {
		err = errors.Join(err, one.Stop())
	}
	err = errors.Join(err, s.hosts.close())
	return errors.Join(err, os.RemoveAll(s.scratch))
}

// site is what a subject has to serve in a cell.
func (s *session) site(c cell) subject.Site {
	site := subject.Site{
		Kind:   c.scenario.Target.Kind,
		Listen: s.hosts.roles.subject.Address,
		Root:   s.root,
		Path:   c.scenario.Target.Path,
		Length: c.scenario.Target.Length,
		Conns:  c.conns,
		Share:  c.scenario.Shared.Cores,
		Delay:  time.Duration(c.scenario.Origin.Delay),
		Bound:  c.scenario.Origin.Connections,
		Greedy: c.scenario.Load.Greedy != "",

		Identity: s.identity[c.scenario.Target.TLS],
	}
	if running := s.origins[behindOf(c.scenario)]; running != nil {
		site.Origin = running.Address
	}
	return site
}

// load is what a step asks of its subject.
func (s *session) load(st step) attack.Load {
	return attack.Load{
		Of:       st.cell.scenario.Load.Of,
		Conns:    st.cell.conns,
		Rate:     st.cell.scenario.Load.Rate,
		Crowd:    st.cell.scenario.Load.Handshakes,
		Shed:     st.cell.scenario.Load.Shed,
		Greedy:   st.cell.scenario.Load.Greedy,
		Warmup:   s.options.form.warmup,
		Measured: s.options.measuredOf(st),
	}
}

// target is what the load of a cell asks a server.
func (s *session) target(c cell, running *subject.Running) attack.Target {
	target := attack.Target{
		Address: running.Address,
		Path:    c.scenario.Target.Path,
		Length:  c.scenario.Target.Length,
		Fields:  fieldsOf(c.scenario),
	}
	if identity := s.identity[c.scenario.Target.TLS]; identity != nil {
		target.TLS = identity.Client()
	}
	return target
}

// meters are those of a step's server, and of the origin behind it.
func (s *session) meters(st step, running *subject.Running) attack.Meters {
	meters := attack.Meters{Server: running.Meter.CPU, Resident: running.Meter.Resident,
		Kernel: running.Meter.Kernel, Peak: running.Meter.Peak}
	if st.cell.scenario.Target.Kind.Forwards() && !st.subject.ByURL() { // which has an origin of its own
		meters.Origin = s.origins[behindOf(st.cell.scenario)].Meter.CPU
	}
	return meters
}

// by is the generator of a step's closed loop.
func (s *session) by(st step) string {
	if st.by != "" {
		return st.by
	}
	return s.options.generators[0]
}

// measure takes one sample with a fresh process of the subject.
func (s *session) measure(ctx context.Context, st step) (attack.Sample, error) {
	running, err := s.launcher.Start(ctx, st.subject, s.site(st.cell), s.sides(st.cell.scenario).Server)
	if err != nil {
		return attack.Sample{}, err
	}
	target := s.target(st.cell, running)
	load := s.load(st)
	meters := s.meters(st, running)
	if st.counts {
		calls, err := running.CallMeter()
		if err != nil {
			return attack.Sample{}, errors.Join(err, running.Stop())
		}
		defer calls.Close() // it has been read: nothing is lost by an error
		meters.Calls = calls.Read
	}
	generator := s.generator
	generator.Cores = s.sides(st.cell.scenario).Client
	sample, err := attack.Measure(ctx, generator, target, load, meters)
	if err == nil && !st.counts && generator.ByWrk(target, load) {
		err = running.Answers(ctx, s.site(st.cell))
	}
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
