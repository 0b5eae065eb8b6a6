package main

import (
	"cmp"
	"path/filepath"
	"testing"
)

// Runs by two generators agree on a ratio, differ, or do not tell.
func TestGenerators(t *testing.T) {
	dir := t.TempDir()
	wrk, vegeta := filepath.Join(dir, "wrk.bench"), filepath.Join(dir, "vegeta.bench")
	by := func(s spec, subjects ...string) spec {
		s.subjects, s.slower, s.only, s.commit = append(subjects, "nginx-best"), cmp.Or(s.slower, 1), "static-1k", "aaaaaaa"
		return s
	}
	write(t, wrk, by(spec{rounds: 10}, "atlas"))
	for _, row := range []struct {
		name string
		spec spec
	}{
		{"generators-agree", by(spec{rounds: 10, generator: "vegeta"}, "atlas")},
		{"generators-limited", by(spec{rounds: 10, generator: "vegeta", starved: true}, "atlas")},
		{"generators-differ", by(spec{rounds: 10, generator: "vegeta", slower: 1.1}, "atlas")},
		{"generators-few-rounds", by(spec{rounds: 3, generator: "vegeta", slower: 1.1}, "atlas")},
		{"generators-unsure", by(spec{rounds: 10, generator: "vegeta", slower: 1.05}, "atlas")},
		{"generators-same", by(spec{rounds: 10}, "atlas")},
		{"generators-without-atlas", by(spec{rounds: 10, generator: "vegeta"}, "caddy")},
	} {
		t.Run(row.name, func(t *testing.T) {
			write(t, vegeta, row.spec)
			golden(t, row.name, dir, "generators", wrk, vegeta)
		})
	}
	golden(t, "generators-missing", dir, "generators", wrk, filepath.Join(dir, "none"))
}
