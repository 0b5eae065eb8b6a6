// Package subject starts, awaits and stops the servers that the lab measures,
// and the origin behind them. It meets each of them the same way: a binary, a
// configuration file, a port. It refuses to measure, to wait for ever and to
// end a process it did not start. A Running belongs to the goroutine that
// started it.
package subject

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"atlas/harness/cert"
	"atlas/harness/host"
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
	// service is that of ComposeFile and executable the program there, "" for one
	// that runs outside of containers only.
	service, executable string
	// template is the configuration's file in templates/, "" for none.
	template string
	// engine is Atlas's I/O engine.
	engine string
	// logged is an Atlas that writes an access log, observed one with an admin
	// listener.
	logged, observed bool
	// argv are the arguments after the program.
	argv func(place) []string
	// kinds are the kinds of work it can do.
	kinds []scenarios.Kind
	// plain is one that speaks no TLS.
	plain bool
	// constant is one that does not read what it answers, unless it forwards it.
	constant bool
	// module returns the file that a program must load to do a kind of work,
	// "" for none; its error says how to get it. It may be nil.
	module func(program string, kind scenarios.Kind) (string, error)
	// env is added to the environment of the process.
	env []string
	// version asks a program for its version; nil where that is the harness's.
	version func(program string) string
	// foreign is what is known of a server that All has not; nil for those it has.
	foreign *foreign
}

// The kinds of work that a subject may be able to do.
var (
	everything = []scenarios.Kind{scenarios.Static, scenarios.Proxy, scenarios.TCP}
	forwarding = []scenarios.Kind{scenarios.Proxy, scenarios.TCP}
)

// Serves says whether the subject can do a kind of work.
func (s Subject) Serves(kind scenarios.Kind) bool { return slices.Contains(s.kinds, kind) }

// Declines says why the subject takes no part in a scenario, or nil.
func (s Subject) Declines(of *scenarios.Scenario) error {
	switch {
	case !s.Serves(of.Target.Kind):
		return fmt.Errorf("it does no work of kind %q", of.Target.Kind)
	case s.plain && of.Target.TLS != scenarios.Plain:
		return errors.New("it speaks no TLS")
	case of.Shared.Cores > 1 && !s.Scales():
		return fmt.Errorf("it has one worker, and %d cores are shared", of.Shared.Cores)
	case of.Origin.Connections > 0 && !s.Bounds():
		return errors.New("it has no bound on its connections to the origin that the lab knows to set")
	case of.Load.Of == scenarios.Connections && !s.Closes(of.Target.Kind):
		return errors.New("it does not end a connection whose client asks for that")
	case of.Load.Greedy != "" && s.constant && !of.Target.Kind.Forwards():
		return errors.New("it has one answer, one for each time that it receives")
	case of.Load.Of == scenarios.Idle && s.ByURL() && s.foreign.pid == 0:
		return errors.New("it takes the memory of a process, and none is named: add ,pid=N to -url")
	}
	return nil
}

// Scales says whether the subject can have more than one worker.
func (s Subject) Scales() bool { return s.template != "" || s.foreign != nil && s.foreign.scales }

// Bounds says whether the subject can have a bound on its connections to the
// origin, and refuse what that leaves no room for with status 503.
func (s Subject) Bounds() bool { return s.template != "" }

// Closes says whether the subject ends a connection whose client asks for that.
func (s Subject) Closes(kind scenarios.Kind) bool { return !s.constant || kind.Forwards() }

// Here returns the subject without the kinds of work for which this machine
// lacks a part of it; the error says which part and how to get it.
func (s Subject) Here(p Programs) (Subject, error) {
	program, err := s.find(p)
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
	program, err := s.find(p)
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
	Floor   string // the program of proxy/floor, which need not exist
	Harness string // this program, which can be a Go origin and a Go peer
	// Compose runs all of them in containers; nil runs processes.
	Compose *Compose
}

// Site is what a server is asked to serve.
type Site struct {
	Kind   scenarios.Kind
	Listen string        // IP address to listen on; "" is 127.0.0.1
	Root   string        // directory of the documents
	Origin string        // "host:port" to forward to, where Kind forwards
	Path   string        // of the URL that tells whether the server is ready
	Length int           // bytes of the body there, which is origin.Document
	Conns  int           // connections that the load will open; 0 for a usual number
	Delay  time.Duration // of an origin's answer
	Bound  int           // connections to Origin at once, 0 for no bound
	Greedy bool          // one client has large bodies, or many requests at a time
	Share  int           // cores that it shares with everybody, a worker for each; 0 is one worker
	// Identity is what to terminate TLS with, nil for plain connections.
	Identity *cert.Identity
}

// All returns the subjects in the order of the tables.
func All() []Subject {
	return []Subject{
		atlas("atlas", "io_uring"),
		atlas("atlas-netpoll", "netpoll"),
		logged("atlas-logged", "io_uring"),
		metered("atlas-metered", "io_uring"),
		observed("atlas-observed", "io_uring"),
		logged("atlas-netpoll-logged", "netpoll"),
		observed("atlas-netpoll-observed", "netpoll"),
		other("atlas-other", "io_uring"),
		other("atlas-netpoll-other", "netpoll"),
		nginx("nginx-best", "nginx at its best: sendfile off, open_file_cache"),
		nginx("nginx-readme", "nginx as the README's figures fit it: sendfile on, no file cache"),
		haproxy("haproxy", "HAProxy at its best: one thread, http-reuse always; it serves no files"),
		floor("floor", "a constant answer, or a blind relay, on a bare ring: what the kernel costs; no TLS"),
		netHTTP("go-nethttp", "Go's own FileServer and ReverseProxy"),
	}
}

// Named returns the subjects with these names, in the order given, out of All and
// of others.
func Named(names []string, others ...Subject) ([]Subject, error) {
	all := append(All(), others...)
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
	_, err := s.find(p)
	return err
}

// find returns the file that runs the subject's program, "" for one that runs already.
func (s Subject) find(p Programs) (string, error) {
	if s.ByURL() {
		return "", nil
	}
	if p.Compose != nil {
		return p.Compose.program(s)
	}
	return s.program(p)
}

// ConfigHash is short and changes with the subject's configuration, whatever
// the port and the directories of a run.
func (s Subject) ConfigHash() string {
	text := []byte("no configuration file")
	if s.foreign != nil {
		text = []byte(s.foreign.text + s.foreign.url)
	}
	if s.template != "" {
		text, _ = templates.ReadFile("templates/" + s.template) // embedded: a test renders them all
	}
	text = append(text, s.engine...)
	if s.logged {
		text = append(text, "logged"...)
	}
	if s.observed {
		text = append(text, "observed"...)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:12]
}

// place is what a configuration template may use.
type place struct {
	Site
	Dir       string // private to this start
	Config    string // path of the rendered configuration
	Port      int    // to listen on, at Host
	Engine    string
	Module    string // file to load, "" for none
	Superuser bool
	Log       string // file for the access log, "" for none
	Admin     string // Unix socket for operators, "" for none
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

// Threads returns how many workers there are.
func (p place) Threads() int { return max(1, p.Share) }

// Clients returns how many connections of clients there may be.
func (p place) Clients() int { return max(clientsUsual, p.Conns+clientsSpared) }

// Sockets returns how many connections there may be on both sides.
func (p place) Sockets() int {
	if p.Kind.Forwards() {
		return 2 * p.Clients()
	}
	return p.Clients() + clientsUsual
}

// Files returns how many files may be open, no more than the machine lets.
func (p place) Files() int {
	_, most := host.Limits()
	return int(min(uint64(p.Sockets()+2*clientsUsual), most))
}

// Host returns the address that the server listens on.
func (p place) Host() string { return cmp.Or(p.Listen, loopback) }

// Address returns where the server listens.
func (p place) Address() string { return net.JoinHostPort(p.Host(), strconv.Itoa(p.Port)) }

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

// writeConfig renders the subject's template to p.Config, or its files to p.Dir.
func (s Subject) writeConfig(p place) error {
	if s.foreign != nil {
		return s.foreign.writeFiles(p)
	}
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
	port, err := freePort(cmp.Or(site.Listen, loopback))
	if err != nil {
		return place{}, err
	}
	p, err := s.placeIn(dir, port, site)
	p.Module = module
	return p, err
}

// placeIn is a place in a directory of its own, at a port.
func (s Subject) placeIn(dir string, port int, site Site) (place, error) {
	if strings.ContainsAny(dir+site.Root, " \"'\\;{}$\n") {
		return place{}, fmt.Errorf("%s or %s holds characters that a configuration cannot: set TMPDIR", dir, site.Root)
	}
	log := ""
	if s.logged {
		log = filepath.Join(dir, "access.log")
	}
	admin := ""
	if s.observed {
		admin = filepath.Join(dir, "admin.sock")
	}
	return place{
		Log:       log,
		Admin:     admin,
		Site:      site,
		Dir:       dir,
		Config:    filepath.Join(dir, "config"+filepath.Ext(s.template)),
		Port:      port,
		Engine:    s.engine,
		Superuser: os.Geteuid() == 0,
	}, nil
}
