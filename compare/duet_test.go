package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// writeDuet makes the files of a duet whose candidate costs so much more in each stage.
func writeDuet(t *testing.T, dir string, stages ...float64) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	random := rand.New(rand.NewPCG(5, 5))
	settings := []results.Setting{
		{Key: "base", Value: "aaaaaaa"}, {Key: "candidate", Value: "bbbbbbb"}, {Key: "slice", Value: "250ms"},
		{Key: results.Slices, Value: "12"}, {Key: results.Restarts, Value: "6"},
	}
	var samples [3][]results.Sample
	for _, scenario := range []string{"static-1k", "proxy-1k"} {
		name := results.Name{Scenario: scenario, Mode: "closed", Conns: 33, Subject: "atlas"}
		for _, factor := range stages {
			if scenario == "static-1k" {
				factor = 1
			}
			for range 6 * 12 {
				cost := 5000 * (1 + 0.1*random.Float64())
				for arm, more := range []float64{1, 1, factor} {
					samples[arm] = append(samples[arm], results.Sample{
						Name: name, Requests: 1000,
						Values: map[string]float64{results.CPU: cost * more * (1 + 0.01*random.NormFloat64())},
					})
				}
			}
		}
	}
	for arm, file := range []string{"base.bench", "control.bench", "candidate.bench"} {
		out, err := os.Create(filepath.Join(dir, file))
		require.NoError(t, err)
		require.NoError(t, results.Write(out, &results.File{Settings: settings, Samples: samples[arm]}))
		require.NoError(t, out.Close())
	}
}

func TestGate(t *testing.T) {
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	for _, row := range []struct {
		name   string
		stages []float64
		args   []string
	}{
		{"gate-pass", []float64{1}, []string{"gate", run}},
		{"gate-suspects", []float64{1.06}, []string{"gate", "-suspects", run}},
		{"gate-inconclusive", []float64{1.06}, []string{"gate", run}},
		{"gate-regression", []float64{1.06, 1.05}, []string{"gate", run}},
		{"gate-missing", nil, []string{"gate", filepath.Join(dir, "none")}},
		{"gate-no-directory", nil, []string{"gate"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.stages != nil {
				writeDuet(t, run, row.stages...)
			}
			golden(t, row.name, dir, row.args...)
		})
	}
	text, err := os.ReadFile(filepath.Join(run, "verdict.json"))
	require.NoError(t, err)
	var verdict duetVerdict
	require.NoError(t, json.Unmarshal(text, &verdict))
	require.Equal(t, 1, verdict.Status)
	require.Equal(t, "regression", verdict.Cells[1].Verdict)
}
