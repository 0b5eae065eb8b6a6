package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/compare/gate"
	"atlas/results"
)

// A goal is met, missed or unsure, by itself, beside another scenario or in its unit.
func TestGoals(t *testing.T) {
	dir := t.TempDir()
	run, few := filepath.Join(dir, "run.bench"), filepath.Join(dir, "few.bench")
	write(t, run, spec{rounds: 10, subjects: []string{"atlas", "nginx-best", "nginx-readme", "floor"}, slower: 1, commit: "aaaaaaa"})
	write(t, few, spec{rounds: 3, subjects: []string{"atlas", "nginx-best"}, slower: 1, commit: "aaaaaaa"})
	golden(t, "goals", dir, "goals", run)
	golden(t, "goals-few-rounds", dir, "goals", few)
	goals := filepath.Join(dir, "goals.toml")
	for _, row := range []struct{ name, text string }{
		{"goals-own", `
[[goal]]
about = "as many as a slow disk"
scenario = "static-1k"
conns = [100, 500, 7]
unit = "req/s"
least = [1, 10_000_000, 1]
[[goal]]
about = "little more than plain"
scenario = "tls-proxy-1k"
conns = [100]
unit = "cpu-ns/req"
beside = "proxy-1k"
most = [0.01]
[[goal]]
about = "exactly as much"
scenario = "proxy-1k"
conns = [100]
unit = "cpu-ns/req"
beside = "proxy-1k"
most = [1]
[[goal]]
about = "exactly as many"
scenario = "proxy-1k"
conns = [100]
unit = "req/s"
beside = "proxy-1k"
least = [1]
`},
		{"goals-of-nothing", "[[goal]]\nabout = \"a\"\nscenario = \"none\"\nconns = [1]\nunit = \"req/s\"\nleast = [1]\n"},
		{"goals-unknown-key", "[[goal]]\nabot = \"a\"\n"},
		{"goals-without-bound", "[[goal]]\nabout = \"a\"\nscenario = \"b\"\nconns = [1]\nunit = \"req/s\"\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(goals, []byte(row.text), 0o600))
			golden(t, row.name, dir, "goals", "-goals", goals, run)
		})
	}
	f, err := results.Open(run)
	require.NoError(t, err)
	lost := slices.IndexFunc(f.Samples, func(s results.Sample) bool {
		return s.Name.Scenario == "static-1k" && s.Name.Subject == "nginx-best"
	})
	f.Samples = slices.Delete(f.Samples, lost, lost+1)
	var text bytes.Buffer
	require.NoError(t, results.Write(&text, f))
	require.NoError(t, os.WriteFile(run, text.Bytes(), 0o600))
	golden(t, "goals-uneven", dir, "goals", run)
	golden(t, "goals-missing", dir, "goals", filepath.Join(dir, "none.bench"))
}

// The built-in goals are about what the lab can measure.
func TestGoalsBuiltIn(t *testing.T) {
	_, err := gate.ParseGoals(goalsText)
	require.NoError(t, err)
}
