package subject

import "atlas/harness/host"

// nginx returns an nginx with the template of the same name.
func nginx(name, about string) Subject {
	return Subject{
		Name:     name,
		About:    about,
		program:  func(Programs) (string, error) { return host.Find("nginx") },
		template: name + ".conf",
		argv: func(p place) []string {
			// -e: without it nginx first tries the system's log file.
			return []string{"-e", "stderr", "-p", p.Dir, "-c", p.Config}
		},
		version: func(program string) string { return host.Version(program, "-v") },
	}
}

// Origins returns the origins, the one to prefer first.
func Origins() []Subject {
	return []Subject{
		nginx("nginx-origin", "the origin: nginx serving the documents"),
		{
			Name:    "go-origin",
			About:   "the origin where there is no nginx: Go's net/http from memory",
			program: func(p Programs) (string, error) { return p.Harness, nil },
			argv: func(p place) []string {
				return []string{"serve-origin", "-listen", p.Address(), "-root", p.Root}
			},
		},
	}
}
