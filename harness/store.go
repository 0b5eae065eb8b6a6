package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/results"
	"atlas/scenarios"
)

// runLog is what happened in a run, step by step.
type runLog struct {
	session *session
	facts   []host.Fact
	began   time.Time
	entries []entry
}

// entry is one step that was tried.
type entry struct {
	step   step
	at     time.Time
	sample attack.Sample
	err    error // why the sample was refused
}

func newRunLog(s *session, facts []host.Fact) *runLog {
	return &runLog{session: s, facts: facts, began: time.Now().UTC()}
}

// add records a step; err is why it was refused, or nil.
func (l *runLog) add(st step, sample attack.Sample, err error) {
	l.entries = append(l.entries, entry{step: st, at: time.Now().UTC(), sample: sample, err: err})
}

// left says whether a subject has left a step's cell, because a sample of it
// there was refused. Going on would break the pairing by rounds.
func (l *runLog) left(st step) bool {
	for _, e := range l.entries {
		if e.err != nil && e.step.cell == st.cell && e.step.subject.Name == st.subject.Name {
			return true
		}
	}
	return false
}

// refusals returns one line for each subject that left a cell.
func (l *runLog) refusals() []string {
	var lines []string
	for _, e := range l.entries {
		if e.err != nil {
			lines = append(lines, fmt.Sprintf("%s %s, round %d: %v",
				e.step.cell, e.step.subject.Name, e.step.round+1, e.err))
		}
	}
	return lines
}

// samples returns what may be stored: the samples of every subject that stayed
// in its cell, in the order measured, so that each cell has as many of one
// subject as of another.
func (l *runLog) samples() []results.Sample {
	var samples []results.Sample
	for _, e := range l.entries {
		if !l.left(e.step) {
			samples = append(samples, results.Sample{
				Name:     e.step.cell.name(e.step.subject.Name),
				Requests: e.sample.Requests,
				Values:   e.sample.Values,
			})
		}
	}
	return samples
}

// headFacts are the facts that go into the head of the results; the manifest
// has all.
var headFacts = []string{
	"goos", "goarch", "cpu", "cores", "kernel", "hypervisor", "governor", "conntrack", "io-uring", "go",
}

// settings returns the head of the results file.
func (l *runLog) settings(commit, run string) []results.Setting {
	o := l.session.options
	settings := []results.Setting{
		{Key: "lab", Value: "1"},
		{Key: "form", Value: o.form.String()},
		{Key: "server-cores", Value: host.List(l.session.cores.Server)},
		{Key: "client-cores", Value: host.List(l.session.cores.Client)},
		{Key: "generator", Value: o.generator},
	}
	if l.session.originBy != "" {
		settings = append(settings, results.Setting{Key: "origin", Value: l.session.originBy})
	}
	for _, program := range l.programs() {
		settings = append(settings, results.Setting{Key: program.Key, Value: program.Value})
	}
	for _, key := range headFacts {
		if value := host.Value(l.facts, key); value != "" {
			settings = append(settings, results.Setting{Key: key, Value: value})
		}
	}
	return append(settings,
		results.Setting{Key: "env-hash", Value: host.EnvHash(l.facts)},
		results.Setting{Key: "commit", Value: commit},
		results.Setting{Key: "date", Value: l.began.Format(time.RFC3339)},
		results.Setting{Key: "run", Value: run},
	)
}

// programs returns what was measured and with what.
func (l *runLog) programs() []host.Fact {
	var facts []host.Fact
	if path, err := host.Find("nginx"); err == nil {
		facts = append(facts, host.Fact{Key: "nginx", Value: host.Version(path, "-v")})
	}
	for _, s := range l.session.options.subjects {
		if s.Name == "haproxy" {
			facts = append(facts, host.Fact{Key: s.Name, Value: s.Version(l.session.options.programs)})
		}
	}
	if path := l.session.generator.Wrk; path != "" {
		facts = append(facts, host.Fact{Key: "wrk", Value: host.Version(path, "-v")})
	}
	if binary, err := os.ReadFile(l.session.options.programs.Atlas); err == nil {
		facts = append(facts, host.Fact{Key: "atlas-sha256", Value: shortSum(binary)})
	}
	return facts
}

// manifest is everything else that may explain a run.
type manifest struct {
	Lab       int               `json:"lab"`
	Run       string            `json:"run"`
	Commit    string            `json:"commit"`
	Began     time.Time         `json:"began"`
	Argv      []string          `json:"argv"`
	Facts     []host.Fact       `json:"facts"`
	Programs  []host.Fact       `json:"programs"`
	EnvHash   string            `json:"env_hash"`
	Cores     host.Cores        `json:"cores"`
	Warnings  []string          `json:"warnings"`
	Scenarios map[string]string `json:"scenarios"` // hash of the file, by name
	Subjects  map[string]string `json:"subjects"`  // hash of the configuration, by name
	Order     []manifestStep    `json:"order"`
}

// manifestStep is one step in the order they were tried.
type manifestStep struct {
	At       time.Time `json:"at"`
	Round    int       `json:"round"`
	Name     string    `json:"name"`
	Requests int       `json:"requests"`
	Notes    []string  `json:"notes,omitempty"`
	Refused  string    `json:"refused,omitempty"`
}

func (l *runLog) manifest(commit, run string) (*manifest, error) {
	o := l.session.options
	m := &manifest{
		Lab: 1, Run: run, Commit: commit, Began: l.began, Argv: o.argv,
		Facts: l.facts, Programs: l.programs(), EnvHash: host.EnvHash(l.facts),
		Cores: l.session.cores, Warnings: l.session.warnings,
		Scenarios: map[string]string{}, Subjects: map[string]string{},
	}
	for _, s := range o.scenarios {
		text, err := fs.ReadFile(scenarios.Files, s.Name+".toml")
		if err != nil {
			return nil, err
		}
		m.Scenarios[s.Name] = shortSum(text)
	}
	for _, s := range o.subjects {
		m.Subjects[s.Name] = s.ConfigHash()
	}
	for _, e := range l.entries {
		s := manifestStep{
			At: e.at, Round: e.step.round,
			Name:     e.step.cell.name(e.step.subject.Name).String(),
			Requests: e.sample.Requests, Notes: e.sample.Notes,
		}
		if e.err != nil {
			s.Refused = e.err.Error()
		}
		m.Order = append(m.Order, s)
	}
	return m, nil
}

// store writes the run's directory and returns the path of its results file.
func (l *runLog) store() (string, error) {
	commit := commitID()
	run := l.began.Format("20060102T150405Z") + "-" + commit
	m, err := l.manifest(commit, run)
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", err
	}
	var bench bytes.Buffer
	f := &results.File{Settings: l.settings(commit, run), Samples: l.samples()}
	if err := results.Write(&bench, f); err != nil {
		return "", err
	}
	dir := filepath.Join(l.session.options.out, run)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "results.bench")
	return path, os.WriteFile(path, bench.Bytes(), 0o644)
}

// commitID returns the commit of the working directory, marked if it has
// changes, or "unknown".
func commitID() string {
	id, err := exec.Command("git", "rev-parse", "--short=7", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(id))
	if changes, err := exec.Command("git", "status", "--porcelain").Output(); err != nil || len(changes) > 0 {
		commit += "-dirty"
	}
	return commit
}

func shortSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])[:12]
}

// absolute returns path from the root, because children run elsewhere.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}
