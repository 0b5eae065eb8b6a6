// Package subject starts, awaits and stops the servers that the lab measures,
// and the origin behind them. It meets each of them the same way: a binary, a
// configuration file, a port. It refuses to measure, to wait for ever and to
// end a process it did not start. A Running belongs to the goroutine that
// started it.
package subject

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/template"

	"atlas/scenarios"
)

//go:embed templates
var templates embed.FS

// Subject is one server the lab can start. To add one, write a file and a
// configuration template beside the others and a line in All.
type Subject struct {
	Name  string // as in a benchmark line
	About string
	// program finds the executable; its error says how to get it.
	program func(Programs) (string, error)
	// template is the configuration's file in templates/, "" for none.
	template string
	// engine is Atlas's I/O engine.
	engine string
	// argv are the arguments after the program.
	argv func(place) []string
	// only is the one kind of work it can do, "" for both.
	only scenarios.Kind
	// version asks a program for its version; nil where that is the harness's.
	version func(program string) string
}

// Serves says whether the subject can do a kind of work.
func (s Subject) Serves(kind scenarios.Kind) bool { return s.only == "" || s.only == kind }

// Version returns what the subject's program says of itself.
func (s Subject) Version(p Programs) string {
	program, err := s.program(p)
	switch {
	case err != nil:
		return "not installed"
	case s.version == nil:
		return runtime.Version()
	}
	return s.version(program)
}

// Programs are the paths of executables, fixed for a run.
type Programs struct {
	Atlas   string // Atlas's binary, which need not exist
	Harness string // this program, which can be a Go origin and a Go peer
}

// Site is what a server is asked to serve.
type Site struct {
	Kind   scenarios.Kind
	Root   string // directory of the documents
	Origin string // "host:port" to forward to; scenarios.Proxy only
	Path   string // of the URL that tells whether the server is ready
	Length int    // bytes of the body there, which is origin.Document
}

// All returns the subjects in the order of the tables.
func All() []Subject {
	return []Subject{
		atlas("atlas", "io_uring"),
		atlas("atlas-netpoll", "netpoll"),
		nginx("nginx-best", "nginx at its best: sendfile off, open_file_cache"),
		nginx("nginx-readme", "nginx as the README's figures fit it: sendfile on, no file cache"),
		haproxy("haproxy", "HAProxy at its best: one thread, http-reuse always; it serves no files"),
		netHTTP("go-nethttp", "Go's own FileServer and ReverseProxy"),
	}
}

// Named returns the subjects with these names, in the order given.
func Named(names []string) ([]Subject, error) {
	all := All()
	var chosen []Subject
	for _, name := range names {
		at := slices.IndexFunc(all, func(s Subject) bool { return s.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("no subject is named %q; `harness list` names them", name)
		}
		if slices.ContainsFunc(chosen, func(s Subject) bool { return s.Name == name }) {
			return nil, fmt.Errorf("subject %q is named twice", name)
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

// Missing says what this machine lacks to run the subject and how to get it,
// or nil.
func (s Subject) Missing(p Programs) error {
	_, err := s.program(p)
	return err
}

// ConfigHash is short and changes with the subject's configuration, whatever
// the port and the directories of a run.
func (s Subject) ConfigHash() string {
	text := []byte("no configuration file")
	if s.template != "" {
		text, _ = templates.ReadFile("templates/" + s.template) // embedded: a test renders them all
	}
	sum := sha256.Sum256(append(text, s.engine...))
	return hex.EncodeToString(sum[:])[:12]
}

// place is what a configuration template may use.
type place struct {
	Site
	Dir       string // private to this start
	Config    string // path of the rendered configuration
	Port      int    // to listen on, at 127.0.0.1
	Engine    string
	Superuser bool
}

// Address returns where the server listens.
func (p place) Address() string { return fmt.Sprintf("127.0.0.1:%d", p.Port) }

// Proxy says whether the server forwards.
func (p place) Proxy() bool { return p.Kind == scenarios.Proxy }

// OriginHost returns the first half of Origin.
func (p place) OriginHost() (string, error) {
	host, _, err := net.SplitHostPort(p.Origin)
	return host, err
}

// OriginPort returns the second half of Origin.
func (p place) OriginPort() (string, error) {
	_, port, err := net.SplitHostPort(p.Origin)
	return port, err
}

// writeConfig renders the subject's template to p.Config.
func (s Subject) writeConfig(p place) error {
	if s.template == "" {
		return nil
	}
	t, err := template.New(s.template).Option("missingkey=error").ParseFS(templates, "templates/"+s.template)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, p); err != nil {
		return err
	}
	return os.WriteFile(p.Config, text.Bytes(), 0o644)
}

// place prepares a directory and a port for one start below scratch.
func (s Subject) place(scratch string, site Site) (place, error) {
	dir, err := os.MkdirTemp(scratch, s.Name+"-")
	if err != nil {
		return place{}, err
	}
	if strings.ContainsAny(dir+site.Root, " \"'\\;{}$\n") {
		return place{}, fmt.Errorf("%s or %s holds characters that a configuration cannot: set TMPDIR", dir, site.Root)
	}
	port, err := freePort()
	if err != nil {
		return place{}, err
	}
	return place{
		Site:      site,
		Dir:       dir,
		Config:    filepath.Join(dir, "config"+filepath.Ext(s.template)),
		Port:      port,
		Engine:    s.engine,
		Superuser: os.Geteuid() == 0,
	}, nil
}
