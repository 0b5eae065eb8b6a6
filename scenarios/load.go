package scenarios

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Load reads one scenario by name, "static-1k" for static-1k.toml. A key it
// does not know is an error: a misspelt "conections" would otherwise run the
// default load and store a result that looks true.
func Load(fsys fs.FS, name string) (*Scenario, error) {
	file := name + ".toml"
	text, err := fs.ReadFile(fsys, file)
	if err != nil {
		return nil, err // fs errors already carry the file name
	}
	s := Scenario{Load: Traffic{Of: Requests}}
	if err := DecodeStrict(text, &s); err != nil {
		return nil, fmt.Errorf("%s:%w", file, err)
	}
	if err := s.check(name); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &s, nil
}

// Match loads every scenario whose name matches one of the comma-separated
// glob patterns, in alphabetical order. A pattern that matches nothing is an
// error: a misspelt name must not measure less in silence.
func Match(fsys fs.FS, patterns string) ([]*Scenario, error) {
	files, err := fs.Glob(fsys, "*.toml")
	if err != nil {
		return nil, err
	}
	var chosen []string
	for pattern := range strings.SplitSeq(patterns, ",") {
		hits, err := matching(files, strings.TrimSpace(pattern))
		if err != nil {
			return nil, err
		}
		chosen = append(chosen, hits...)
	}
	slices.Sort(chosen)
	var loaded []*Scenario
	for _, name := range slices.Compact(chosen) {
		s, err := Load(fsys, name)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, s)
	}
	return loaded, nil
}

// matching returns the names of the files that one pattern selects.
func matching(files []string, pattern string) ([]string, error) {
	var names []string
	for _, file := range files {
		name := strings.TrimSuffix(file, ".toml")
		hit, err := path.Match(pattern, name)
		if err != nil {
			return nil, fmt.Errorf("scenario pattern %q: %w", pattern, err)
		}
		if hit {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no scenario matches %q; `harness list` names them", pattern)
	}
	return names, nil
}

// DecodeStrict fills what into points to from TOML, and refuses keys that it has
// not; its errors begin with "line:column: ".
func DecodeStrict(text []byte, into any) error {
	decoder := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := decoder.Decode(into)
	if unknown, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		first := &unknown.Errors[0]
		line, column := first.Position()
		return fmt.Errorf("%d:%d: unknown key %q", line, column, strings.Join(first.Key(), "."))
	}
	if wrong, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := wrong.Position()
		return fmt.Errorf("%d:%d: %w", line, column, wrong)
	}
	if err != nil {
		return fmt.Errorf("1:1: %w", err)
	}
	return nil
}

// A name becomes a value in a benchmark line, where a trailing "-1" would be
// read as GOMAXPROCS.
var (
	nameGrammar    = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	trailingDigits = regexp.MustCompile(`-[0-9]+$`)
	pathGrammar    = regexp.MustCompile(`^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
)

// check says what is wrong with a decoded scenario, naming the key.
func (s *Scenario) check(name string) error {
	if s.Name != name {
		return fmt.Errorf("name is %q, but the file is named %q", s.Name, name)
	}
	if !nameGrammar.MatchString(s.Name) || trailingDigits.MatchString(s.Name) {
		return fmt.Errorf("name %q: want lower-case words joined by '-', the last not a bare number", s.Name)
	}
	if s.About == "" {
		return errors.New("about is missing: one line for `harness list`")
	}
	if err := s.Target.check(s.Vary.Length != nil); err != nil {
		return fmt.Errorf("target.%w", err)
	}
	if err := s.Load.check(); err != nil {
		return fmt.Errorf("load.%w", err)
	}
	if n := s.Shared.Cores; n < 0 || n > sharedMax {
		return fmt.Errorf("shared.cores is %d, want at most %d, or no such key", n, sharedMax)
	}
	if s.Load.Of.Handshaking() && s.Target.TLS == Plain {
		return fmt.Errorf("load.of is %q, but target.tls is missing", s.Load.Of)
	}
	if s.Load.Handshakes != 0 && s.Target.TLS == Plain {
		return errors.New("load.handshakes is set, but target.tls is missing")
	}
	if s.Load.Of == Connections && s.Target.TLS != Plain {
		return fmt.Errorf("load.of is %q, but target.tls is set: say %q", Connections, Handshakes)
	}
	if s.Load.Shed && s.Load.Mode != Open {
		return fmt.Errorf("load.shed is for mode %q only", Open)
	}
	if err := s.checkGreedy(); err != nil {
		return fmt.Errorf("load.%w", err)
	}
	if err := s.Origin.check(s.Target.Kind); err != nil {
		return fmt.Errorf("origin.%w", err)
	}
	return s.checkVary()
}

func (s *Scenario) checkGreedy() error {
	switch greed := s.Load.Greedy; {
	case greed == "":
	case greed != Upload && greed != Download && greed != Pipeline:
		return fmt.Errorf("greedy is %q, want %q, %q, %q or no such key", greed, Upload, Download, Pipeline)
	case s.Load.Mode != Open:
		return fmt.Errorf("greedy is for mode %q only", Open)
	case s.Target.Kind == TCP || greed == Upload && s.Target.Kind != Proxy:
		return fmt.Errorf("greedy is %q, which is not for kind %q", greed, s.Target.Kind)
	case s.Target.TLS != Plain || s.Load.Shed:
		return errors.New("greedy is beside load.shed or target.tls: measure one at a time")
	}
	return nil
}

func (o Origin) check(kind Kind) error {
	switch {
	case o != Origin{} && kind != Proxy:
		return fmt.Errorf("delay and origin.connections are for kind %q only", Proxy)
	case o.Delay < 0 || time.Duration(o.Delay) > delayMax:
		return fmt.Errorf("delay is %v, want at most %v", time.Duration(o.Delay), delayMax)
	case o.Connections < 0 || o.Connections > connsMax:
		return fmt.Errorf("connections is %d, want at most %d", o.Connections, connsMax)
	}
	return nil
}

// check is for a length of its own, unless that varies.
func (t *Target) check(varies bool) error {
	if t.Kind != Static && t.Kind != Proxy && t.Kind != TCP {
		return fmt.Errorf("kind is %q, want %q, %q or %q", t.Kind, Static, Proxy, TCP)
	}
	if t.TLS != Plain && t.TLS != ECDSA && t.TLS != RSA {
		return fmt.Errorf("tls is %q, want %q, %q or no such key", t.TLS, ECDSA, RSA)
	}
	if !pathGrammar.MatchString(t.Path) {
		return fmt.Errorf("path is %q, want a plain absolute path such as /1k.html", t.Path)
	}
	if !varies && (t.Length < 1 || t.Length > lengthMax) {
		return fmt.Errorf("length is %d, want 1 to %d bytes", t.Length, lengthMax)
	}
	return nil
}

func (l *Traffic) check() error {
	switch l.Mode {
	case Closed:
		if l.Rate != 0 {
			return errors.New(`rate is set, but a load of mode "closed" has none`)
		}
		if l.Handshakes != 0 {
			return errors.New(`handshakes is set, but a load of mode "closed" has none beside it`)
		}
	case Open:
		if l.Rate < 1 || l.Rate > rateMax {
			return fmt.Errorf("rate is %d, want 1 to %d per second", l.Rate, rateMax)
		}
		if l.Handshakes < 0 || l.Handshakes > handshakesMax {
			return fmt.Errorf("handshakes is %d, want at most %d per second", l.Handshakes, handshakesMax)
		}
	default:
		return fmt.Errorf("mode is %q, want %q or %q", l.Mode, Closed, Open)
	}
	switch l.Of {
	case Requests:
	case Handshakes, Resumptions, Idle, Connections:
		if l.Mode != Closed {
			return fmt.Errorf("of is %q, which is for mode %q only", l.Of, Closed)
		}
	default:
		return fmt.Errorf("of is %q, want %q, %q, %q, %q or %q",
			l.Of, Requests, Handshakes, Resumptions, Idle, Connections)
	}
	if l.Headers < 0 || l.Headers > headersMax {
		return fmt.Errorf("headers is %d, want at most %d", l.Headers, headersMax)
	}
	return l.checkConns()
}

func (l *Traffic) checkConns() error {
	if len(l.Conns) == 0 {
		return errors.New("conns is missing: list the connection counts to measure")
	}
	for i, n := range l.Conns {
		if n < 1 || n > connsMax {
			return fmt.Errorf("conns has %d, want 1 to %d", n, connsMax)
		}
		if i > 0 && n <= l.Conns[i-1] {
			return fmt.Errorf("conns has %d after %d, want ascending counts", n, l.Conns[i-1])
		}
	}
	for _, n := range l.Quick {
		if !slices.Contains(l.Conns, n) {
			return fmt.Errorf("quick has %d, which is none of conns", n)
		}
	}
	return nil
}
