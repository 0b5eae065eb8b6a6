package subject

import (
	"strings"

	"atlas/harness/host"
)

// haproxy returns HAProxy, which forwards and serves no files.
func haproxy(name, about string) Subject {
	return Subject{
		Name:    name,
		About:   about,
		program: func(Programs) (string, error) { return host.Find("haproxy") },
		service: "haproxy", executable: "haproxy",
		template: name + ".cfg",
		kinds:    forwarding,
		argv: func(p place) []string {
			// -db: in the foreground and without a master process, -q: silent but for errors.
			return []string{"-db", "-q", "-f", p.Config}
		},
		version: func(program string) string {
			line := strings.TrimPrefix(host.Version(program, "-v"), "HAProxy version ")
			version, _, _ := strings.Cut(line, " ")
			return "HAProxy/" + version
		},
	}
}
