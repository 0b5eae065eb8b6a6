package subject

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/template"

	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/results"
	"atlas/scenarios"
)

// foreign is a server that All has not: what its subject file says, or its URL.
type foreign struct {
	text    string // of the file, "" for a URL
	program string // as in the file
	argv    []string
	env     []string
	files   map[string]string
	scales  bool // it has as many workers as it is told

	url, address string // "host:port" of the URL; "" for a file
	pid          int    // behind the URL, 0 for none that is known
}

// subjectFile is what a subject file may hold. Command, env and files are templates,
// for which there are the fields and methods of a place, as in templates/.
type subjectFile struct {
	Name    string            `toml:"name"`
	Kinds   []scenarios.Kind  `toml:"kinds"`
	TLS     bool              `toml:"tls"`
	Command []string          `toml:"command"`
	Env     []string          `toml:"env"`
	Files   map[string]string `toml:"files"`
}

// ReadFile reads a subject file. Its errors begin with the file's name, and with line
// and column where those are known.
func ReadFile(path string) (Subject, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Subject{}, err
	}
	var f subjectFile
	if err := scenarios.DecodeStrict(text, &f); err != nil {
		return Subject{}, fmt.Errorf("%s:%w", path, err)
	}
	s, err := f.subject(string(text))
	if err != nil {
		return Subject{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// subject checks the file and returns what it describes.
func (f *subjectFile) subject(text string) (Subject, error) {
	if err := checkName(f.Name); err != nil {
		return Subject{}, err
	}
	if len(f.Kinds) == 0 {
		return Subject{}, fmt.Errorf("kinds is missing: list what it does, of %q", everything)
	}
	for _, kind := range f.Kinds {
		if !slices.Contains(everything, kind) {
			return Subject{}, fmt.Errorf("kinds has %q, want some of %q", kind, everything)
		}
	}
	if len(f.Command) == 0 || f.Command[0] == "" {
		return Subject{}, errors.New("command is missing: list the program and its arguments")
	}
	for name := range f.Files {
		if name != filepath.Base(name) || !filepath.IsLocal(name) || name == "log" {
			return Subject{}, fmt.Errorf("files has %q, want a plain name of a file other than log", name)
		}
	}
	s := Subject{
		Name: f.Name, About: "the server of a subject file", kinds: f.Kinds, plain: !f.TLS,
		foreign: &foreign{text: text, program: f.Command[0], argv: f.Command[1:], env: f.Env, files: f.Files},
	}
	s.program = func(Programs) (string, error) { return s.foreign.find() }
	return s, s.rehearse()
}

// checkName says whether a subject may have a name that becomes a value in benchmark
// lines, where no other subject has it.
func checkName(name string) error {
	probe := results.Name{Scenario: "x", Mode: "closed", Conns: 1, Subject: name}
	if _, err := results.ParseName(probe.String()); err != nil {
		return fmt.Errorf("name %q: want lower-case words joined by '-', the last not a bare number", name)
	}
	if slices.ContainsFunc(append(All(), Origins(false)...), func(s Subject) bool { return s.Name == name }) {
		return fmt.Errorf("name %q is that of a subject which the lab has: choose another", name)
	}
	return nil
}

// rehearse renders everything for each kind of work, plain and over TLS, and for
// several cores, so that what is wrong in a template is told before anything runs.
func (s Subject) rehearse() error {
	for _, kind := range s.kinds {
		for _, identity := range []*cert.Identity{nil, {Chain: "/chain", Key: "/key", Bundle: "/bundle"}} {
			if identity != nil && s.plain {
				continue
			}
			p := place{Dir: "/dir", Port: 1, Site: Site{
				Kind: kind, Root: "/root", Path: "/path", Length: 1, Origin: "127.0.0.1:2", Identity: identity,
			}}
			alone, err := s.foreign.render(p)
			if err != nil {
				return err
			}
			p.Share = 7
			shared, err := s.foreign.render(p)
			if err != nil {
				return err
			}
			s.foreign.scales = s.foreign.scales || alone != shared
		}
	}
	return nil
}

// render is everything of a place in one text, in an order that does not change.
func (f *foreign) render(p place) (string, error) {
	argv, env, err := f.arguments(p)
	text := fmt.Sprint(argv, env)
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		if err != nil {
			break
		}
		var file string
		file, err = expand(fmt.Sprintf("files.%q", name), f.files[name], p)
		text += file
	}
	return text, err
}

// arguments are the subject's in a place, and what is added to its environment.
func (s Subject) arguments(p place) (argv, env []string, err error) {
	if s.foreign == nil {
		return s.argv(p), s.env, nil
	}
	return s.foreign.arguments(p)
}

// arguments leaves out what comes to nothing, as in {{if .Proxy}}-p{{end}}.
func (f *foreign) arguments(p place) (argv, env []string, err error) {
	for _, list := range []struct {
		key   string
		texts []string
		into  *[]string
	}{{"command", f.argv, &argv}, {"env", f.env, &env}} {
		for _, text := range list.texts {
			got, err := expand(list.key, text, p)
			if err != nil {
				return nil, nil, err
			}
			if got != "" {
				*list.into = append(*list.into, got)
			}
		}
	}
	return argv, env, nil
}

// writeFiles writes the files to the directory of a place.
func (f *foreign) writeFiles(p place) error {
	for name, text := range f.files {
		got, err := expand(fmt.Sprintf("files.%q", name), text, p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(got), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// expand executes a template that stands under a key; line and column in its errors
// are those within the value.
func expand(key, text string, p place) (string, error) {
	t, err := template.New(key).Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, p); err != nil {
		return "", err
	}
	return out.String(), nil
}

// find returns the program's path.
func (f *foreign) find() (string, error) {
	path, err := exec.LookPath(f.program)
	if err != nil && filepath.Base(f.program) == f.program {
		path, err = host.Find(f.program) // where PATH of ordinary users does not lead
		if err != nil {
			return "", fmt.Errorf("command %q is not in PATH: install it, or give its path", f.program)
		}
	}
	if err != nil {
		return "", fmt.Errorf("command: %w", err)
	}
	return filepath.Abs(path)
}

// Foreign is what to keep of a server that All has not, so that somebody else can do
// the same; nil for those that it has.
func (s Subject) Foreign() *results.Foreign {
	f := s.foreign
	if f == nil {
		return nil
	}
	kept := &results.Foreign{File: f.text, URL: f.url, PID: f.pid}
	if f.program != "" {
		kept.Program, _ = f.find() // it was there when it was chosen
		if binary, err := os.ReadFile(kept.Program); err == nil {
			sum := sha256.Sum256(binary)
			kept.SHA256 = hex.EncodeToString(sum[:])[:12]
		}
	}
	return kept
}
