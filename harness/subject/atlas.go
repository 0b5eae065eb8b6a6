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
		template: "atlas.toml",
		engine:   engine,
		kinds:    everything,
		argv:     func(p place) []string { return []string{p.Config} },
		version:  func(program string) string { return host.Version(program, "version") },
	}
}

// other returns another Atlas, in all but the binary the same.
func other(name, engine string) Subject {
	s := atlas(name, engine)
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
