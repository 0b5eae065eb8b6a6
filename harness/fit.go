package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"atlas/scenarios"
)

// eachOf returns the scenarios with each value of those that vary a key.
func eachOf(all []*scenarios.Scenario) (each []*scenarios.Scenario) {
	for _, s := range all {
		each = append(each, s.Each()...)
	}
	return each
}

// fitCores leaves out what needs more cores than there are. Where their number
// is not known, nothing can be shared out.
func (o *options) fitCores(cores int) error {
	var tooMuch []string
	o.scenarios = slices.DeleteFunc(o.scenarios, func(s *scenarios.Scenario) bool {
		if s.Shared.Cores <= cores {
			return false
		}
		tooMuch = append(tooMuch, fmt.Sprintf("%s needs %d cores, and %d may be used", s.Name, s.Shared.Cores, cores))
		return true
	})
	if len(o.scenarios) == 0 && len(tooMuch) > 0 {
		return errors.New(strings.Join(tooMuch, "; "))
	}
	for _, text := range tooMuch {
		o.note("%s", text)
	}
	return nil
}

// connsSpared are for what is no connection of the load: those of the warm-up
// that linger, logs, documents, and the programs' own.
const connsSpared = 512

// filesOf is how many files the side with the most of them has open in a cell:
// a proxy has a connection to the origin for each request in flight.
func filesOf(s *scenarios.Scenario, conns int) uint64 {
	sides := 1
	if s.Target.Kind.Forwards() && s.Load.Of != scenarios.Idle {
		sides = 2
	}
	return uint64(sides*conns + connsSpared)
}

// filesWanted is the limit of open files to ask for: twice what any cell has open,
// because servers are configured for more, and HAProxy does not start below that.
func filesWanted(all []*scenarios.Scenario) (most uint64) {
	for _, s := range all {
		most = max(most, 2*filesOf(s, slices.Max(s.Load.Conns)))
	}
	return most
}

// portsOf is how many local ports a cell takes of those that lead to one address
// and port: the load's connections, and before them the warm-up's, whose ports the
// kernel holds back for a minute.
func portsOf(conns int) int { return 2*conns + connsSpared }

// fitConns leaves out the connection counts for which too few files may be open, or
// there are too few local ports.
func (o *options) fitConns(files uint64, ports int) error {
	var tooMuch []string
	var fitting []*scenarios.Scenario
	for _, s := range o.scenarios {
		one := *s
		one.Load.Conns = nil
		for _, conns := range s.Load.Conns {
			missing := ""
			switch {
			case filesOf(s, conns) > files:
				missing = fmt.Sprintf("%d open files, and the hard limit is %d, which needs CAP_SYS_RESOURCE "+
					"to go beyond: raise it (ulimit -Hn, LimitNOFILE= of systemd)", filesOf(s, conns), files)
			case portsOf(conns) > ports:
				missing = fmt.Sprintf("%d local ports, and there are %d: widen net.ipv4.ip_local_port_range (sysctl)",
					portsOf(conns), ports)
			default:
				one.Load.Conns = append(one.Load.Conns, conns)
				continue
			}
			tooMuch = append(tooMuch, fmt.Sprintf("%s c=%d is left out: it needs %s", s.Name, conns, missing))
		}
		switch len(one.Load.Conns) {
		case 0:
		case len(s.Load.Conns):
			fitting = append(fitting, s)
		default:
			fitting = append(fitting, &one)
		}
	}
	if o.scenarios = fitting; len(fitting) == 0 && len(tooMuch) > 0 {
		return errors.New(strings.Join(tooMuch, "; "))
	}
	for _, text := range tooMuch {
		o.note("%s", text)
	}
	return nil
}

// fitLaunch leaves out what containers have no origin for.
func (o *options) fitLaunch() error {
	if o.programs.Compose == nil {
		return nil
	}
	left := len(o.scenarios)
	o.scenarios = slices.DeleteFunc(o.scenarios, func(s *scenarios.Scenario) bool {
		if s.OwnOrigin() {
			o.note("%s is left out: its origin is none of -launch compose", s.Name)
		}
		return s.OwnOrigin()
	})
	if left > 0 && len(o.scenarios) == 0 {
		return errors.New(strings.Join(o.notes, "; "))
	}
	return nil
}
