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

	"atlas/harness/cert"
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
	// kinds are the kinds of work it can do.
	kinds []scenarios.Kind
	// module returns the file that a program must load to do a kind of work,
	// "" for none; its error says how to get it. It may be nil.
	module func(program string, kind scenarios.Kind) (string, error)
	// version asks a program for its version; nil where that is the harness's.
	version func(program string) string
}

// The kinds of work that a subject may be able to do.
var (
	everything = []scenarios.Kind{scenarios.Static, scenarios.Proxy, scenarios.TCP}
	forwarding = []scenarios.Kind{scenarios.Proxy, scenarios.TCP}
)

// Serves says whether the subject can do a kind of work.
func (s Subject) Serves(kind scenarios.Kind) bool { return slices.Contains(s.kinds, kind) }

// Here returns the subject without the kinds of work for which this machine
// lacks a part of it; the error says which part and how to get it.
func (s Subject) Here(p Programs) (Subject, error) {
	program, err := s.program(p)
	if err != nil || s.module == nil {
		return s, err
	}
	var kinds []scenarios.Kind
	var missing error
	for _, kind := range s.kinds {
		if _, err := s.module(program, kind); err != nil {
			missing = err
			continue
		}
		kinds = append(kinds, kind)
	}
	s.kinds = kinds
	return s, missing
}

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
	Other   string // another Atlas to compare it with, "" for none
	Harness string // this program, which can be a Go origin and a Go peer
}

// Site is what a server is asked to serve.
type Site struct {
	Kind   scenarios.Kind
	Root   string // directory of the documents
	Origin string // "host:port" to forward to, where Kind forwards
	Path   string // of the URL that tells whether the server is ready
	Length int    // bytes of the body there, which is origin.Document
	Conns  int    // connections that the load will open; 0 for a usual number
	// Identity is what to terminate TLS with, nil for plain connections.
	Identity *cert.Identity
}

// All returns the subjects in the order of the tables.
func All() []Subject {
	return []Subject{
		atlas("atlas", "io_uring"),
		atlas("atlas-netpoll", "netpoll"),
		other("atlas-other", "io_uring"),
		other("atlas-netpoll-other", "netpoll"),
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
	Module    string // file to load, "" for none
	Superuser bool
}

// What templates ask for beside the fields: the cryptography that everybody
// uses, and so many connections on one side that no load meets a limit.
const (
	clientsUsual  = 2048
	clientsSpared = 1024 // beyond those of the load
)

// Protocol is a version of TLS, as OpenSSL names it.
func (place) Protocol() string { return cert.Protocol }

// Cipher is a cipher suite of TLS 1.3.
func (place) Cipher() string { return cert.Cipher }

// Curve is the group of the key exchange.
func (place) Curve() string { return cert.Curve }

// Clients returns how many connections of clients there may be.
func (p place) Clients() int { return max(clientsUsual, p.Conns+clientsSpared) }

// Sockets returns how many connections there may be on both sides.
func (p place) Sockets() int { return p.Clients() + clientsUsual }

// Files returns how many files may be open.
func (p place) Files() int { return p.Sockets() + 2*clientsUsual }

// Address returns where the server listens.
func (p place) Address() string { return fmt.Sprintf("127.0.0.1:%d", p.Port) }

// Proxy says whether the server forwards requests.
func (p place) Proxy() bool { return p.Kind == scenarios.Proxy }

// TCP says whether the server forwards bytes.
func (p place) TCP() bool { return p.Kind == scenarios.TCP }

// bulkMin is the length of answers that are many bytes rather than a message.
const bulkMin = 100_000

// Bulk says whether answers are large.
func (p place) Bulk() bool { return p.Length >= bulkMin }

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
func (s Subject) place(scratch, program string, site Site) (place, error) {
	module := ""
	if s.module != nil {
		var err error
		if module, err = s.module(program, site.Kind); err != nil {
			return place{}, err
		}
	}
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
		Module:    module,
		Superuser: os.Geteuid() == 0,
	}, nil
}
