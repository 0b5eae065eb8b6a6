package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"atlas/harness/host"
	"atlas/scenarios"
)

// nginx returns an nginx with the template of the same name.
func nginx(name, about string) Subject {
	return Subject{
		Name:    name,
		About:   about,
		program: func(Programs) (string, error) { return host.Find("nginx") },
		service: "nginx", executable: "nginx",
		template: name + ".conf",
		kinds:    everything,
		module:   streamModule,
		argv: func(p place) []string {
			// -e: without it nginx first tries the system's log file.
			return []string{"-e", "stderr", "-p", p.Dir, "-c", p.Config}
		},
		version: func(program string) string { return host.Version(program, "-v") },
	}
}

var (
	streamOption  = regexp.MustCompile(`--with-stream(=dynamic)?(\s|$)`)
	libraryLine   = regexp.MustCompile(`(?m)^built with (OpenSSL \S+).*?(?:\(running with (OpenSSL \S+) .*)?$`)
	modulesOption = regexp.MustCompile(`--modules-path=(\S+)`)
)

// streamModule returns the file that nginx needs for TCP, which is a package of
// its own on many systems: "" where it is compiled in.
func streamModule(program string, kind scenarios.Kind) (string, error) {
	if kind != scenarios.TCP {
		return "", nil
	}
	options, err := exec.Command(program, "-V").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s -V: %w", program, err)
	}
	how := streamOption.FindSubmatch(options)
	if how != nil && len(how[1]) == 0 {
		return "", nil
	}
	if at := modulesOption.FindSubmatch(options); how != nil && at != nil {
		file := filepath.Join(string(at[1]), "ngx_stream_module.so")
		if _, err := os.Stat(file); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("nginx has no stream module, so it forwards no TCP: run `make setup`, " +
		"or install the package libnginx-mod-stream")
}

// Nginx returns the file that runs nginx.
func Nginx(p Programs) (string, error) { return nginx("nginx-best", "").find(p) }

// OpenSSL returns the library that an nginx uses, which may be another than it
// was built with; "" where it does not say.
func OpenSSL(program string) string {
	options, err := exec.Command(program, "-V").CombinedOutput()
	if err != nil {
		return ""
	}
	line := libraryLine.FindSubmatch(options)
	switch {
	case line == nil:
		return ""
	case len(line[2]) > 0:
		return string(line[2])
	}
	return string(line[1])
}

// Origins returns the origins, the one to prefer first; only the lab's own if they
// are to wait before they answer, or to read what is sent to them.
func Origins(own bool) []Subject {
	if own {
		return origins()[1:]
	}
	return origins()
}

func origins() []Subject {
	behind := nginx("nginx-origin", "the origin: nginx serving the documents")
	behind.service = "origin"
	return []Subject{
		behind,
		{
			Name:    "go-origin",
			About:   "the origin where there is no nginx: Go's net/http from memory",
			kinds:   []scenarios.Kind{scenarios.Static},
			program: func(p Programs) (string, error) { return p.Harness, nil },
			argv: func(p place) []string {
				return []string{"serve-origin", "-listen", p.Address(), "-root", p.Root, "-delay", p.Delay.String()}
			},
		},
	}
}
