package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"atlas/harness/attack"
	"atlas/harness/host"
	"atlas/harness/subject"
	"atlas/results"
	"atlas/scenarios"
)

// duetRun is what a gate measures, stage by stage.
type duetRun struct {
	options *gateOptions
	session *session
	arms    [armCount]subject.Subject
	facts   []host.Fact
	stderr  io.Writer
	began   time.Time
	run     string // its name
	dir     string // of the results
	samples [armCount][]results.Sample
	order   []duetStep
}

// duetStep is one restart, for the manifest.
type duetStep struct {
	At       time.Time `json:"at"`
	Stage    int       `json:"stage"`
	Scenario string    `json:"scenario"`
	Restart  int       `json:"restart"`
	First    []string  `json:"order"` // of the arms
	Refused  string    `json:"refused,omitempty"`
}

func newDuetRun(o *gateOptions, s *session, facts []host.Fact, stderr io.Writer) *duetRun {
	began := time.Now().UTC()
	run := began.Format("20060102T150405.000Z") + "-gate-" + o.binaries[1].commit
	return &duetRun{
		options: o, session: s, facts: facts, stderr: stderr, began: began,
		run: run, dir: filepath.Join(o.out, run),
	}
}

func (r *duetRun) head() {
	o := r.options
	fmt.Fprintf(r.stderr, "gate: base %s, the same as control, candidate %s, engine %s; "+
		"%d restarts a stage of %d slices of %v\n",
		o.binaries[0].commit, o.binaries[1].commit, o.engine, o.duet.restarts, o.duet.slices, o.duet.slice)
	fmt.Fprintf(r.stderr, "servers on core %s, load on core %s\n",
		host.List(r.session.cores.Server), host.List(r.session.cores.Client))
	for _, text := range r.session.warnings {
		fmt.Fprintf(r.stderr, "note: %s\n", text)
	}
}

// stage measures every one of some scenarios once.
func (r *duetRun) stage(ctx context.Context, stage int, all []*scenarios.Scenario) error {
	began := time.Now()
	for i, s := range all {
		c := duetCell(s)
		for restart := range r.options.duet.restarts {
			// The second stage has the orders backwards.
			order := orders[restart%len(orders)]
			if stage > 0 {
				order = orders[len(orders)-1-restart%len(orders)]
			}
			if err := r.try(ctx, stage, c, restart, order); err != nil {
				return err
			}
		}
		spent := time.Since(began)
		left := spent / time.Duration(i+1) * time.Duration(len(all)-i-1)
		fmt.Fprintf(r.stderr, "stage %d  %s  %d of %d scenarios, %v left of the stage\n",
			stage+1, s.Name, i+1, len(all), left.Round(time.Second))
	}
	return nil
}

// duetCell is a scenario's first load; the arms share its connections, so that
// all of them together are the load that the scenario names.
func duetCell(s *scenarios.Scenario) cell {
	return cell{scenario: s, conns: max(1, s.Load.Conns[0]/armCount)}
}

// try measures one restart, once more if the first is refused.
func (r *duetRun) try(ctx context.Context, stage int, c cell, restart int, order [armCount]int) error {
	var failed error
	for range attempts {
		step := duetStep{At: time.Now().UTC(), Stage: stage + 1, Scenario: c.scenario.Name, Restart: restart + 1}
		for _, at := range order {
			step.First = append(step.First, armNames[at])
		}
		slices, err := r.restart(ctx, c, order)
		if err == nil {
			r.order = append(r.order, step)
			return r.add(c, slices)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		step.Refused = err.Error()
		r.order = append(r.order, step)
		failed = err
	}
	return fmt.Errorf("%s: %w", c.scenario.Name, failed)
}

// add takes the slices of a restart.
func (r *duetRun) add(c cell, slices [][]attack.Slice) error {
	for at, all := range slices {
		for _, s := range all {
			if s.CPU <= 0 {
				return fmt.Errorf("%s: the CPU clock of %s does not go on: slices of %v are too short here",
					c.scenario.Name, armNames[at], r.options.duet.slice)
			}
			r.samples[at] = append(r.samples[at], results.Sample{
				Name:     c.name("atlas"),
				Requests: s.Requests,
				Values:   map[string]float64{results.CPU: float64(s.CPU) / float64(s.Requests), results.Errors: 0},
			})
		}
	}
	return nil
}

// settings are the head of each arm's file: the same of all, as benchstat compares
// nothing across files that differ in one.
func (r *duetRun) settings() []results.Setting {
	o := r.options
	settings := []results.Setting{
		{Key: "lab", Value: "1"},
		{Key: "form", Value: "duet"},
		{Key: results.Restarts, Value: strconv.Itoa(o.duet.restarts)},
		{Key: results.Slices, Value: strconv.Itoa(o.duet.slices)},
		{Key: "slice", Value: o.duet.slice.String()},
		{Key: "engine", Value: o.engine},
		{Key: "server-cores", Value: host.List(r.session.cores.Server)},
		{Key: "client-cores", Value: host.List(r.session.cores.Client)},
	}
	if r.session.originBy != "" {
		settings = append(settings, results.Setting{Key: "origin", Value: r.session.originBy})
	}
	for _, key := range headFacts {
		if value := host.Value(r.facts, key); value != "" {
			settings = append(settings, results.Setting{Key: key, Value: value})
		}
	}
	for i, key := range []string{"base", "candidate"} {
		settings = append(settings, results.Setting{Key: key, Value: o.binaries[i].commit})
		if binary, err := os.ReadFile(o.binaries[i].path); err == nil {
			settings = append(settings, results.Setting{Key: key + "-sha256", Value: shortSum(binary)})
		}
	}
	return append(settings,
		results.Setting{Key: "env-hash", Value: host.EnvHash(r.facts)},
		results.Setting{Key: "date", Value: r.began.Format(time.RFC3339)},
		results.Setting{Key: "run", Value: r.run},
	)
}

// duetManifest is everything else that may explain a gate's run.
type duetManifest struct {
	Lab      int         `json:"lab"`
	Run      string      `json:"run"`
	Began    time.Time   `json:"began"`
	Argv     []string    `json:"argv"`
	Facts    []host.Fact `json:"facts"`
	EnvHash  string      `json:"env_hash"`
	Cores    host.Cores  `json:"cores"`
	Warnings []string    `json:"warnings"`
	Changed  []string    `json:"candidate_env,omitempty"`
	Order    []duetStep  `json:"order"`
}

// store writes what was measured so far.
func (r *duetRun) store() error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	for at, name := range armNames {
		var bench bytes.Buffer
		if err := results.Write(&bench, &results.File{Settings: r.settings(), Samples: r.samples[at]}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.dir, name+".bench"), bench.Bytes(), 0o644); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(duetManifest{
		Lab: 1, Run: r.run, Began: r.began, Argv: r.options.argv, Facts: r.facts, EnvHash: host.EnvHash(r.facts),
		Cores: r.session.cores, Warnings: r.session.warnings, Changed: r.options.candidate, Order: r.order,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "manifest.json"), append(text, '\n'), 0o644)
}
