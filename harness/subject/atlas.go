package subject

import (
	"errors"
	"fmt"
	"os"

	"atlas/harness/host"
)

// atlas returns Atlas on one of its engines.
func atlas(name, engine string) Subject {
	return Subject{
		Name:  name,
		About: "Atlas on its " + engine + " engine",
		program: func(p Programs) (string, error) {
			if _, err := os.Stat(p.Atlas); err != nil {
				return "", fmt.Errorf("%s is missing: run `make build`", p.Atlas)
			}
			return p.Atlas, nil
		},
		service: "atlas", executable: "atlas",
		template: "atlas.toml",
		engine:   engine,
		kinds:    everything,
		argv:     func(p place) []string { return []string{p.Config} },
		version:  func(program string) string { return host.Version(program, "version") },
	}
}

// logged returns Atlas with all that it may note of a request: what that costs is
// the difference to atlas.
func logged(name, engine string) Subject {
	s := atlas(name, engine)
	s.About = "Atlas on its " + engine + " engine, with an access log in JSON to a file"
	s.logged = true
	return s
}

// observed returns a logged Atlas with an admin listener, for which it counts how
// long every exchange takes.
func observed(name, engine string) Subject {
	s := logged(name, engine)
	s.About += " and an admin listener, for which it counts times"
	s.observed = true
	return s
}

// metered returns Atlas with an admin listener alone.
func metered(name, engine string) Subject {
	s := atlas(name, engine)
	s.About += ", with an admin listener, for which it counts times"
	s.observed = true
	return s
}

// other returns another Atlas, in all but the binary the same.
func other(name, engine string) Subject {
	s := atlas(name, engine)
	s.service = ""
	s.Name, s.About = name, "the binary that -other names, on its "+engine+" engine"
	s.program = func(p Programs) (string, error) {
		if p.Other == "" {
			return "", errors.New("-other names no binary")
		}
		if _, err := os.Stat(p.Other); err != nil {
			return "", fmt.Errorf("%s, which -other names, is missing", p.Other)
		}
		return p.Other, nil
	}
	return s
}

// Arm returns an Atlas of a binary that is an arm of a duet: one engine, one
// configuration, and the name that the benchmark lines of all arms have.
func Arm(binary, engine string, env ...string) Subject {
	s := atlas("atlas", engine)
	s.About, s.env = "an arm of a duet", env
	s.program = func(Programs) (string, error) {
		_, err := os.Stat(binary)
		return binary, err
	}
	return s
}

// Noting returns an Atlas with what an operator may have it note of requests: an
// access log, and an admin listener with its metrics.
func (s Subject) Noting(log, metrics bool) Subject {
	s.logged, s.observed = log, metrics
	return s
}
