package subject

import (
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
		argv:     func(p place) []string { return []string{p.Config} },
		version:  func(program string) string { return host.Version(program, "version") },
	}
}
