package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"slices"

	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/scenarios"
)

// roles are the engines that start the servers of a run. The load is always this
// host's.
type roles struct{ subject, origin subject.Engine }

// roleFlags adds the flags of roles.
func roleFlags(flags *flag.FlagSet) *roles {
	r := &roles{}
	flags.StringVar(&r.subject.Name, "subject-context", "",
		"`name` of the Docker context of another host, which runs the subjects; with -launch compose")
	flags.StringVar(&r.subject.Address, "subject-host", "", "its IP `address`, to which the load goes")
	flags.StringVar(&r.origin.Name, "origin-context", "",
		"`name` of the Docker context of the host that runs the origin, if not this one does")
	flags.StringVar(&r.origin.Address, "origin-host", "", "its IP `address`, to which the subjects forward")
	return r
}

// far says whether the subjects run on another host.
func (r roles) far() bool { return r.subject.Name != "" }

// apart says whether more than this host takes part.
func (r roles) apart() bool { return r.far() || r.origin.Name != "" }

// check says what is wrong with the flags.
func (r roles) check() error {
	return errors.Join(r.subject.Check("subject"), r.origin.Check("origin"))
}

// launchBy finds what starts the servers.
func (o *options) launchBy(launch string, asked roles) (err error) {
	switch launch {
	case launchProcess:
		if asked != (roles{}) {
			return errors.New("servers of other hosts are containers: say -launch compose as well")
		}
	case launchCompose:
		if err := asked.check(); err != nil {
			return err
		}
		o.roles = asked
		o.programs.Compose, err = subject.NewCompose(asked.subject)
	default:
		return fmt.Errorf("-launch %q: want %s or %s", launch, launchProcess, launchCompose)
	}
	return err
}

// counted says why system calls are not: their counters are the kernel's that runs
// the subjects.
func (r roles) counted() error {
	if r.far() {
		return errors.New("system calls are not counted on another host")
	}
	return host.CallsCounted()
}

// fitHosts leaves out what wants everybody on one machine, and says what a
// scenario lacks.
func (o *options) fitHosts() error {
	if !o.roles.apart() {
		return nil
	}
	o.scenarios = slices.DeleteFunc(o.scenarios, func(s *scenarios.Scenario) bool {
		switch {
		case s.Shared.Cores > 0:
			o.note("%s is left out: everybody shares the cores of one machine there", s.Name)
		case s.OwnOrigin() && o.roles.origin.Name != "":
			o.note("%s is left out: its origin, which is the lab's own, is a process of this host", s.Name)
		default:
			return false
		}
		return true
	})
	if len(o.scenarios) == 0 {
		return errors.New(
			"no scenario is left: those that share their cores, or whose origin is the lab's own, want one host")
	}
	forwards := slices.ContainsFunc(o.scenarios, func(s *scenarios.Scenario) bool { return s.Target.Kind.Forwards() })
	if forwards && o.roles.origin.Address == "" {
		return errors.New("a subject on another host forwards to the origin: " +
			"-origin-host is the IP address at which it reaches that, of this host or of -origin-context")
	}
	return nil
}

// hosts are the engines of a run, and what their hosts say of themselves: nil
// reports are this one's.
type hosts struct {
	roles           roles
	subject, origin *subject.Compose // one, if they are on one engine; nil runs processes
	subjectReport   *host.Report
	originReport    *host.Report
}

// openHosts takes the scratch directory to the other hosts, and asks them what they
// are; close removes it.
func openHosts(o *options, scratch string) (h hosts, err error) {
	h = hosts{roles: o.roles, subject: o.programs.Compose, origin: o.programs.Compose}
	if !h.roles.apart() {
		return h, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.roles.origin.Name != h.roles.subject.Name {
		if h.origin, err = subject.NewCompose(h.roles.origin); err != nil {
			return h, err
		}
	}
	if err := h.subject.Carry(scratch, o.programs.Harness); err != nil {
		return h, err
	}
	if h.subjectReport, err = h.subject.Report(); err != nil {
		return h, err
	}
	if h.origin == h.subject {
		return h, h.answers()
	}
	if err := h.origin.Carry(scratch, o.programs.Harness); err != nil {
		return h, err
	}
	if h.originReport, err = h.origin.Report(); err != nil {
		return h, err
	}
	return h, h.answers()
}

// answers says whether the load can reach the host of the subjects: nobody
// listens yet, so to be refused is an answer.
func (h hosts) answers() error {
	if h.subjectReport == nil {
		return nil
	}
	if err := subject.Answers(h.roles.subject.Address); err != nil {
		return fmt.Errorf("%s does not answer at %s, which -subject-host names, "+
			"or something between drops what is sent: %w",
			h.roles.subject, h.roles.subject.Address, err)
	}
	return nil
}

// cores are those of the two sides. Where the subjects are elsewhere, all of this
// host's may make load.
func (h hosts) cores(allowed []int) host.Cores {
	if h.subjectReport == nil {
		return host.Split(allowed, host.Siblings)
	}
	there := h.subjectReport.Cores
	cores := host.Cores{Server: there.Server, Client: host.ForLoad(allowed)}
	if len(there.Server) == 0 {
		cores.Warning = there.Warning
	}
	return cores
}

// originCores are the origin's, where those of the load on this host are given.
func (h hosts) originCores(load []int) []int {
	switch {
	case h.originReport != nil:
		return h.originReport.Cores.Client
	case h.subjectReport != nil && h.origin == h.subject:
		return h.subjectReport.Cores.Client
	}
	return load
}

// facts are those of the other hosts.
func (h hosts) facts() (all []host.Fact) {
	for _, one := range h.reports() {
		all = append(all, host.Of(one.role, append(one.report.Facts, host.Fact{Key: "address", Value: one.address}))...)
	}
	return all
}

// warnings are what limits figures on the other hosts.
func (h hosts) warnings() (all []string) {
	for _, one := range h.reports() {
		if one.report.Noise != "" {
			all = append(all, fmt.Sprintf("host of the %s: %s", one.role, one.report.Noise))
		}
		if host.Value(one.report.Facts, "conntrack") == "on" {
			all = append(all, fmt.Sprintf(
				"host of the %s: the kernel tracks connections (NAT rules are loaded)", one.role))
		}
	}
	return all
}

// reported is a host with a role, and what it says.
type reported struct {
	role, address string
	report        *host.Report
}

func (h hosts) reports() (all []reported) {
	if h.subjectReport != nil {
		all = append(all, reported{"subject", h.roles.subject.Address, h.subjectReport})
	}
	if h.originReport != nil {
		all = append(all, reported{"origin", h.roles.origin.Address, h.originReport})
	}
	return all
}

// reach says whether the host of the subjects has an answer of the origin.
func (h hosts) reach(url string) error {
	if h.subject == nil {
		return nil
	}
	return h.subject.Reaches(url)
}

// images are those of the services, each from the host that runs it.
func (h hosts) images() (all []subject.Image) {
	if h.subject == nil {
		return nil
	}
	of := func(from *subject.Compose, origin bool) {
		for _, image := range from.Images() {
			if (image.Service == "origin") == origin {
				all = append(all, image)
			}
		}
	}
	of(h.subject, false)
	of(h.origin, true)
	return all
}

// close removes what is on the other hosts.
func (h hosts) close() error {
	var err error
	if h.subject != nil {
		err = h.subject.Close()
	}
	if h.origin != nil {
		err = errors.Join(err, h.origin.Close())
	}
	return err
}

// answerHost is the verbs `report` and `meter`, which a run has on another host.
func answerHost(stdin io.Reader, stdout, stderr io.Writer, verb string, args []string) int {
	flags := flag.NewFlagSet("harness "+verb, flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1", "IP `address` that has to be this host's")
	if status, ok := parse(flags, args); !ok {
		return status
	}
	var err error
	if verb == "meter" {
		const first = 1 // process of the container
		err = subject.ServeMeter(stdin, stdout, first)
	} else {
		err = report(stdout, *listen)
	}
	if err != nil {
		fmt.Fprintf(stderr, "harness %s: %v\n", verb, err)
		return exitInvalid
	}
	return exitPass
}

// report says what this host is, if an address is its own.
func report(stdout io.Writer, address string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return fmt.Errorf("servers cannot listen on %s, which has to be an address of this host: %w", address, err)
	}
	if err := listener.Close(); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := json.NewEncoder(&text).Encode(host.Reported()); err != nil {
		return err
	}
	_, err = stdout.Write(text.Bytes())
	return err
}
