package gate

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/results"
)

// duet is a made-up run: a machine whose speed wanders by a tenth from slice to
// slice, with noise of each arm's own.
type duet struct {
	seed      uint64
	scenarios int
	stages    []float64 // factor on the candidate's cost, stage by stage
	control   float64   // factor on the control's
	noise     float64   // of a slice
	restart   float64   // of a restart
}

const testSlices, testRestarts = 12, 6

// write stores the run below a directory of the test's.
func (d duet) write(t *testing.T) string {
	t.Helper()
	random := rand.New(rand.NewPCG(d.seed, 3))
	settings := []results.Setting{
		{Key: "lab", Value: "1"}, {Key: "base", Value: "aaaaaaa"}, {Key: "candidate", Value: "bbbbbbb"},
		{Key: results.Slices, Value: strconv.Itoa(testSlices)}, {Key: results.Restarts, Value: strconv.Itoa(testRestarts)},
	}
	arms := [3]*results.File{{Settings: settings}, {Settings: settings}, {Settings: settings}}
	for scenario := range d.scenarios {
		name := results.Name{Scenario: "load-" + string(rune('a'+scenario)), Mode: "closed", Conns: 33, Subject: "atlas"}
		for _, factor := range d.stages {
			for range testRestarts {
				factors := [3]float64{1, d.control, factor}
				for i := range factors {
					factors[i] *= 1 + d.restart*random.NormFloat64()
				}
				for range testSlices {
					cost := 5000 * (1 + 0.1*random.Float64())
					for i, f := range arms {
						value := cost * factors[i] * (1 + d.noise*random.NormFloat64())
						f.Samples = append(f.Samples, results.Sample{
							Name: name, Requests: 1000, Values: map[string]float64{results.CPU: value},
						})
					}
				}
			}
		}
	}
	dir := t.TempDir()
	for i, file := range []string{baseFile, controlFile, candidateFile} {
		out, err := os.Create(filepath.Join(dir, file))
		require.NoError(t, err)
		require.NoError(t, results.Write(out, arms[i]))
		require.NoError(t, out.Close())
	}
	return dir
}

func (d duet) judge(t *testing.T) []Duet {
	t.Helper()
	arms, err := OpenArms(d.write(t))
	require.NoError(t, err)
	return builtin(t).JudgeDuets(arms)
}

func TestJudgeDuets(t *testing.T) {
	for _, row := range []struct {
		name    string
		of      duet
		want    Outcome
		suspect bool
		why     string // part of it
	}{
		{"the same", duet{stages: []float64{1}, control: 1, noise: 0.01}, Pass, false, "within 2.5 %"},
		{"a little worse", duet{stages: []float64{1.012}, control: 1, noise: 0.01}, Pass, false, "within"},
		{"better", duet{stages: []float64{0.9}, control: 1, noise: 0.01}, Pass, false, "within"},
		{"worse, once", duet{stages: []float64{1.05}, control: 1, noise: 0.01}, Inconclusive, true, "in one stage only"},
		{"worse, again", duet{stages: []float64{1.05, 1.05}, control: 1, noise: 0.01}, Regression, false, "in both stages"},
		{"worse, not again", duet{stages: []float64{1.08, 1}, control: 1, noise: 0.01}, Inconclusive, false, "not in each stage"},
		{"hardly worse, not again", duet{stages: []float64{1.03, 1}, control: 1, noise: 0.01}, Pass, false, "within"},
		{"noisy", duet{stages: []float64{1}, control: 1, restart: 0.04}, Inconclusive, true, ""},
		{"noisy, again", duet{stages: []float64{1, 1}, control: 1, restart: 0.05, seed: 2}, Inconclusive, false, ""},
		{"the control moved", duet{stages: []float64{1}, control: 1.04, noise: 0.01}, Invalid, true, "the control"},
		{"the control moved, again", duet{stages: []float64{1, 1}, control: 1.04, noise: 0.01}, Invalid, false, "the control"},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.of.scenarios = 1
			all := row.of.judge(t)
			require.Len(t, all, 1)
			assert.Equal(t, row.want, all[0].outcome, all[0].Why)
			assert.Equal(t, row.suspect, all[0].Suspect)
			assert.Contains(t, all[0].Why, row.why)
			outcome, reason := ConcludeDuets(all)
			assert.Equal(t, row.want, outcome)
			assert.NotEmpty(t, reason)
			suspects := Suspects(all)
			assert.Equal(t, row.suspect, len(suspects) == 1)
		})
	}
}

// The interval holds what is true nearly always, and the gate fails what is worse
// and not what is the same: sixty made-up runs of six scenarios each.
func TestJudgeDuetsOften(t *testing.T) {
	skipShort(t)
	held, runs := 0, 60
	for seed := range runs {
		same := duet{seed: uint64(seed), scenarios: 6, stages: []float64{1, 1}, control: 1, noise: 0.012, restart: 0.006}
		outcome, reason := ConcludeDuets(same.judge(t))
		require.NotEqual(t, Regression, outcome, "seed %d: %s", seed, reason)
		worse := same
		worse.scenarios, worse.stages = 1, []float64{1.05, 1.05}
		all := worse.judge(t)
		require.Equal(t, Regression, all[0].outcome, "seed %d: %s", seed, all[0].Why)
		if all[0].Change.Low < 0.05 && 0.05 < all[0].Change.High {
			held++
		}
	}
	require.Greater(t, held, runs*85/100, "a 95 %% interval")
	require.Less(t, held, runs, "an interval that always holds is too wide")
}

// skipShort skips seconds of arithmetic, under the race detector most of a minute.
func skipShort(t *testing.T) {
	if testing.Short() {
		t.Skip("go test -short")
	}
}

// More scenarios ask more of each.
func TestHolm(t *testing.T) {
	all := []Duet{{P: 0.02}, {P: 0.001}, {P: 0.3}, {P: 0.9}}
	holm(all)
	for i, want := range []float64{0.06, 0.004, 0.6, 0.9} {
		require.InDelta(t, want, all[i].P, 1e-12)
	}
}

func TestBlocks(t *testing.T) {
	require.Equal(t, []float64{3, 20}, blocks([]float64{1, 2, 1000, 3, 4, 10, 20, 30, 40, -1000}, 5, 0.2))
}

// One regression decides, whatever else could not be told.
func TestConcludeDuets(t *testing.T) {
	of := func(outcomes ...Outcome) []Duet {
		var all []Duet
		for i, o := range outcomes {
			all = append(all, Duet{Name: results.Name{Scenario: fmt.Sprintf("load-%c", 'a'+i)}, outcome: o, Why: "because", Sees: 0.03})
		}
		return all
	}
	for _, row := range []struct {
		all  []Duet
		want Outcome
		why  string
	}{
		{of(), Invalid, "Nothing was compared"},
		{of(Pass, Pass), Pass, "a change of 3.0 % for the worse would have been caught"},
		{of(Pass, Inconclusive), Inconclusive, "load-b: because. This is no pass"},
		{of(Inconclusive, Invalid), Invalid, "load-b: because. The measurement moved"},
		{of(Invalid, Pass, Regression), Regression, "load-c: because. Profile"},
	} {
		outcome, why := ConcludeDuets(row.all)
		assert.Equal(t, row.want, outcome)
		assert.Contains(t, why, row.why)
	}
}

// Files that do not pair are no duet.
func TestOpenArmsRefuses(t *testing.T) {
	whole := duet{scenarios: 1, stages: []float64{1}, control: 1}
	for _, row := range []struct {
		name, file, from, to, want string
	}{
		{"another run", candidateFile, "base: aaaaaaa", "base: ccccccc", "differ in setting base"},
		{"another scenario", controlFile, "scenario=load-a", "scenario=load-b", "slice 0 is of"},
		{"no count", baseFile, "slices: 12", "slices: many", `setting slices is "many"`},
		{"a cost of nothing", candidateFile, " cpu-ns/req", "0e-9 cpu-ns/req", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := whole.write(t)
			path := filepath.Join(dir, row.file)
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Contains(t, string(text), row.from)
			if row.want == "" { // the first sample's value becomes 0
				lines := strings.Split(string(text), "\n")
				for i, line := range lines {
					if strings.HasPrefix(line, "BenchmarkLab") {
						lines[i] = strings.Join(strings.Fields(line)[:2], " ") + " 0 cpu-ns/req"
						break
					}
				}
				text, row.want = []byte(strings.Join(lines, "\n")), "with a cost in each"
			} else {
				text = []byte(strings.ReplaceAll(string(text), row.from, row.to))
			}
			require.NoError(t, os.WriteFile(path, text, 0o600))
			_, err = OpenArms(dir)
			require.ErrorContains(t, err, row.want)
		})
	}
	dir := whole.write(t)
	require.NoError(t, os.Remove(filepath.Join(dir, controlFile)))
	_, err := OpenArms(dir)
	require.ErrorIs(t, err, os.ErrNotExist)

	dir = whole.write(t)
	path := filepath.Join(dir, candidateFile)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines[:len(lines)-1], "\n")+"\n"), 0o600))
	_, err = OpenArms(dir)
	require.ErrorContains(t, err, "have 72 and 71 slices")
}

// What the gate prints of benchstat is what benchstat prints of the stored files.
func TestStatIsBenchstats(t *testing.T) {
	for _, of := range []duet{
		{scenarios: 3, stages: []float64{1}, control: 1, noise: 0.01},
		{scenarios: 2, stages: []float64{1.1, 1.1}, control: 1, noise: 0.02, seed: 9},
	} {
		dir := of.write(t)
		arms, err := OpenArms(dir)
		require.NoError(t, err)
		cmd := exec.Command("go", "tool", "benchstat", "-format", "csv", "-filter", ".unit:cpu-ns/req",
			filepath.Join(dir, baseFile), filepath.Join(dir, candidateFile))
		out, err := cmd.Output()
		require.NoError(t, err)
		reader := csv.NewReader(strings.NewReader(string(out)))
		reader.FieldsPerRecord = -1
		lines, err := reader.ReadAll()
		require.NoError(t, err)
		rows := map[string][]string{}
		for _, line := range lines {
			rows[line[0]] = line
		}
		for _, d := range builtin(t).JudgeDuets(arms) {
			row := rows[d.Name.String()]
			require.Len(t, row, 7, "%s", out)
			for i, ns := range map[int]float64{1: d.Stat.Old, 3: d.Stat.New} {
				seconds, err := strconv.ParseFloat(row[i], 64)
				require.NoError(t, err)
				require.InEpsilon(t, ns/1e9, seconds, 1e-12)
			}
			require.Equal(t, []string{d.Stat.OldRange, d.Stat.NewRange, d.Stat.Delta, d.Stat.P}, []string{row[2], row[4], row[5], row[6]})
		}
	}
}
