package subject

import (
	"fmt"
	"os"
	"path/filepath"

	"atlas/scenarios"
)

// floor returns what the kernel costs by itself: no server can cost less.
func floor(name, about string) Subject {
	return Subject{
		Name:     name,
		About:    about,
		kinds:    everything,
		plain:    true,
		constant: true,
		program: func(p Programs) (string, error) {
			if _, err := os.Stat(p.Floor); err != nil {
				return "", fmt.Errorf("%s is missing: run `make build`", p.Floor)
			}
			return p.Floor, nil
		},
		argv: func(p place) []string {
			if p.Kind == scenarios.Static {
				return []string{"-listen", p.Address(), "-body", filepath.Join(p.Root, filepath.FromSlash(p.Path))}
			}
			return []string{"-listen", p.Address(), "-upstream", p.Origin}
		},
		version: func(string) string { return "floor" },
	}
}
