package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"atlas/harness/attack"
	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/harness/subject"
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

// of says whether a step's load was made by a generator.
func (e *entry) of(by string) bool { return e.step.by == "" || e.step.by == by }

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
		same := e.step.cell == st.cell && e.step.subject.Name == st.subject.Name && e.step.counts == st.counts
		if e.err != nil && same {
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
			lines = append(lines, fmt.Sprintf("%s: %v", e.step, e.err))
		}
	}
	return lines
}

// samples returns what may be stored of a generator: the samples of every subject
// that stayed in its cell, in the order measured, so that each cell has as many of one
// subject as of another.
func (l *runLog) samples(by string) []results.Sample {
	var samples []results.Sample
	for _, e := range l.entries {
		if e.of(by) && !l.left(e.step) {
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
	"goos", "goarch", "cpu", "cores", "kernel", "hypervisor", "governor", "conntrack", "io-uring", "go", "launch",
}

// settings returns the head of the results file.
func (l *runLog) settings(commit, run, by string) []results.Setting {
	o := l.session.options
	settings := []results.Setting{
		{Key: "lab", Value: "1"},
		{Key: "form", Value: o.form.String()},
		{Key: "server-cores", Value: host.List(l.session.cores.Server)},
		{Key: "client-cores", Value: host.List(l.session.cores.Client)},
		{Key: "generator", Value: by},
	}
	if l.session.originBy != "" {
		settings = append(settings, results.Setting{Key: "origin", Value: l.session.originBy})
	}
	if keys := l.keys(); keys != "" {
		crypto := fmt.Sprintf("%s, %s, %s, %s", cert.Protocol, cert.Cipher, cert.Curve, keys)
		settings = append(settings, results.Setting{Key: "tls", Value: crypto})
	}
	for _, program := range l.programs() {
		settings = append(settings, results.Setting{Key: program.Key, Value: program.Value})
	}
	for _, key := range host.AllRoles(headFacts) {
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

// keys lists the kinds of the certificates that were served, "" for none.
func (l *runLog) keys() string {
	var kinds []string
	for kind := range l.session.identity {
		kinds = append(kinds, string(kind))
	}
	slices.Sort(kinds)
	return strings.Join(kinds, " ")
}

// programs returns what was measured and with what.
func (l *runLog) programs() []host.Fact {
	var facts []host.Fact
	if path, err := subject.Nginx(l.session.options.programs); err == nil {
		facts = append(facts, host.Fact{Key: "nginx", Value: host.Version(path, "-v")})
		if library := subject.OpenSSL(path); library != "" {
			facts = append(facts, host.Fact{Key: "openssl", Value: library})
		}
	}
	for _, s := range l.session.options.subjects {
		if s.Name == "haproxy" {
			facts = append(facts, host.Fact{Key: s.Name, Value: s.Version(l.session.options.programs)})
		}
	}
	if path := l.session.generator.Wrk; path != "" {
		facts = append(facts, host.Fact{Key: "wrk", Value: host.Version(path, "-v")})
	}
	for _, image := range l.session.hosts.images() {
		facts = append(facts, host.Fact{Key: "image-" + image.Service, Value: image.Name + " " + image.ID})
	}
	atlas := l.session.options.programs
	for _, one := range []struct{ key, path string }{{"atlas-sha256", atlas.Atlas}, {"other-sha256", atlas.Other}} {
		if binary, err := os.ReadFile(one.path); err == nil {
			facts = append(facts, host.Fact{Key: one.key, Value: shortSum(binary)})
		}
	}
	return facts
}

func (l *runLog) manifest(commit, run, by string) (*results.Manifest, error) {
	o := l.session.options
	m := &results.Manifest{
		Lab: 1, Run: run, Commit: commit, Began: l.began, Argv: o.argv,
		Facts: facts(l.facts), Programs: facts(l.programs()), EnvHash: host.EnvHash(l.facts),
		Cores: results.Cores(l.session.cores), Warnings: l.session.warnings,
		Scenarios: map[string]string{}, Subjects: map[string]string{},
		Foreign: map[string]*results.Foreign{},
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
		if foreign := s.Foreign(); foreign != nil {
			m.Foreign[s.Name] = foreign
		}
	}
	for _, e := range l.entries {
		if !e.of(by) {
			continue
		}
		s := results.Step{
			At: e.at, Round: e.step.round, Counted: e.step.counts,
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

// facts are the host's, to be stored.
func facts(of []host.Fact) []results.Fact {
	var all []results.Fact
	for _, f := range of {
		all = append(all, results.Fact(f))
	}
	return all
}

// histograms returns those of the samples that are stored.
func (l *runLog) histograms(by string) []results.Histogram {
	var all []results.Histogram
	for _, e := range l.entries {
		if !e.of(by) || l.left(e.step) {
			continue
		}
		for _, kind := range results.Latencies {
			if counts := e.sample.Histograms[kind]; counts != nil {
				name := e.step.cell.name(e.step.subject.Name)
				all = append(all, results.Histogram{Name: name, Latency: kind, At: e.at, Counts: counts})
			}
		}
	}
	return all
}

// roomMin is what a directory for results must have room for, some times the files
// of the long form.
const roomMin = 1 << 20

// checkOut says whether results can be written below a directory, which need not be
// there: better before the measurement than after it. It leaves nothing.
func checkOut(dir string) error {
	there := absolute(dir)
	for there != filepath.Dir(there) {
		if _, err := os.Stat(there); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		there = filepath.Dir(there)
	}
	file, err := os.CreateTemp(there, ".atlas-lab-")
	if err != nil {
		return fmt.Errorf("-out %s: %w", dir, err)
	}
	_, err = file.Write(make([]byte, roomMin))
	if err = errors.Join(err, file.Close(), os.Remove(file.Name())); err != nil {
		return fmt.Errorf("-out %s: there has to be room for %d KB: %w", dir, roomMin>>10, err)
	}
	return nil
}

// store writes the directory of what one generator was used for, and returns the path
// of its results file. Half of one is removed again: it would be read as a run.
func (l *runLog) store(by string) (path string, err error) {
	commit := commitID()
	run := l.began.Format("20060102T150405Z") + "-" + commit
	if len(l.session.options.generators) > 1 {
		run += "-" + by
	}
	m, err := l.manifest(commit, run, by)
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return "", err
	}
	var bench bytes.Buffer
	f := &results.File{Settings: l.settings(commit, run, by), Samples: l.samples(by)}
	if err := results.Write(&bench, f); err != nil {
		return "", err
	}
	dir := filepath.Join(l.session.options.out, run)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			path, err = "", errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "results.bench")
	if all := l.histograms(by); len(all) > 0 {
		var log bytes.Buffer
		if err := results.WriteHistograms(&log, all); err != nil {
			return "", err
		}
		if err := os.WriteFile(results.Beside(path, ".hlog"), log.Bytes(), 0o644); err != nil {
			return "", err
		}
	}
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
