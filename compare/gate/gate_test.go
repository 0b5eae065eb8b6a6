package gate

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// builtin is the policy the program uses.
func builtin(t *testing.T) *Policy {
	text, err := os.ReadFile("../policy.toml")
	require.NoError(t, err)
	p, err := ParsePolicy(text)
	require.NoError(t, err)
	return p
}

func TestJudge(t *testing.T) {
	p := &Policy{Alpha: 0.05, SamplesMin: 6}
	clear := Change{N1: 10, N2: 10, P: 0.001, PMin: 0.0001, Loss: 0, LossMost: 0.01, Tolerance: 0.05}
	for _, row := range []struct {
		name  string
		spoil func(*Change)
		want  Verdict
	}{
		{"no difference", func(c *Change) { c.P = 0.8 }, Same},
		{"worse", func(c *Change) { c.Loss, c.LossMost = 0.08, 0.1 }, Worse},
		{"better", func(c *Change) { c.Loss, c.LossMost = -0.08, -0.02 }, Better},
		{"real but small", func(c *Change) { c.Loss, c.LossMost = 0.03, 0.04 }, Same},
		{"exactly the tolerance", func(c *Change) { c.Loss, c.LossMost = 0.05, 0.05 }, Same},
		{"real and small, maybe not", func(c *Change) { c.Loss, c.LossMost = 0.04, 0.07 }, Unknown},
		{"looks worse, may be noise", func(c *Change) { c.P, c.Loss, c.LossMost = 0.2, 0.08, 0.2 }, Unknown},
		{"looks equal, in wide noise", func(c *Change) { c.P, c.LossMost = 0.9, 0.3 }, Unknown},
		{"looks better, may be noise", func(c *Change) { c.P, c.Loss, c.LossMost = 0.2, -0.08, 0.01 }, Same},
		{"few old samples", func(c *Change) { c.N1 = 5 }, Unknown},
		{"few new samples", func(c *Change) { c.N2 = 0 }, Unknown},
		{"a test that cannot fail", func(c *Change) { c.PMin = 0.05 }, Unknown},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := clear
			row.spoil(&c)
			require.Equal(t, row.want, p.Judge(c))
		})
	}
}

// lab makes a results file: n rounds of nginx-best, nginx-readme and atlas in
// some cells, with a drift that all share, noise of their own, and a factor on
// Atlas's cost.
func lab(seed uint64, n int, noise, factor float64) *results.File {
	random := rand.New(rand.NewPCG(seed, 1))
	f := &results.File{Settings: []results.Setting{{Key: "env-hash", Value: "abc"}}}
	for range n {
		drift := 1 + 0.2*random.Float64()
		for _, conns := range []int{100, 500} {
			for _, one := range []struct {
				subject string
				cost    float64
			}{{"nginx-best", 8500}, {"nginx-readme", 17000}, {"atlas", 7300 * factor}} {
				v := one.cost * drift * (1 + noise*random.NormFloat64())
				f.Samples = append(f.Samples, results.Sample{
					Name:     results.Name{Scenario: "static-1k", Mode: "closed", Conns: conns, Subject: one.subject},
					Requests: 1000,
					Values:   map[string]float64{results.CPU: v, results.Throughput: 1e9 / v, results.P99: 20 * v},
				})
			}
		}
	}
	return f
}

func conclude(t *testing.T, old, new *results.File) Outcome {
	rows := Compare(old, new, builtin(t))
	require.NotEmpty(t, rows)
	outcome, reason := Conclude(rows)
	require.NotEmpty(t, reason)
	return outcome
}

// The drift of 20 % hides everything from a plain test of absolutes.
func TestCompareFindsWhatItShould(t *testing.T) {
	for seed := range uint64(20) {
		old := lab(seed, 10, 0.01, 1)
		require.Equal(t, Pass, conclude(t, old, lab(seed+1000, 10, 0.01, 1)), "the same twice, seed %d", seed)
		require.Equal(t, Regression, conclude(t, old, lab(seed+1000, 10, 0.01, 1.10)), "+10 %%, seed %d", seed)
		require.Equal(t, Pass, conclude(t, old, lab(seed+1000, 10, 0.01, 0.9)), "-10 %%, seed %d", seed)
		require.NotEqual(t, Pass, conclude(t, old, lab(seed+1000, 10, 0.2, 1)), "wide noise, seed %d", seed)
		require.Equal(t, Inconclusive, conclude(t, old, lab(seed+1000, 5, 0.01, 1)), "five rounds, seed %d", seed)
	}
}

func TestCompareRows(t *testing.T) {
	old := lab(1, 10, 0.01, 1)
	rows := Compare(old, lab(2, 10, 0.01, 1), builtin(t))
	require.Len(t, rows, 2*2*3, "cells times subjects other than the reference times units")
	for _, row := range rows {
		require.True(t, row.Relative)
		require.NotEqual(t, "nginx-best", row.Name.Subject)
		require.Equal(t, row.Name.Subject == "nginx-readme", row.Control)
		require.Equal(t, row.Unit != results.CPU, row.ReportOnly)
	}
}

// remove drops samples from a file.
func remove(f *results.File, drop func(results.Sample) bool) *results.File {
	kept := &results.File{Settings: f.Settings}
	for _, s := range f.Samples {
		if !drop(s) {
			kept.Samples = append(kept.Samples, s)
		}
	}
	return kept
}

func of(subject string) func(results.Sample) bool {
	return func(s results.Sample) bool { return s.Name.Subject == subject }
}

func TestCompareWhatIsMissing(t *testing.T) {
	old, new := lab(1, 10, 0.01, 1), lab(2, 10, 0.01, 1)
	require.Equal(t, Inconclusive, conclude(t, old, remove(new, of("atlas"))), "a subject that vanished is no pass")
	young := remove(old, func(s results.Sample) bool { return s.Name.Conns == 500 })
	require.Equal(t, Pass, conclude(t, young, new), "a new cell has no past")

	// Without the reference, absolutes are compared, but only on one machine.
	rows := Compare(remove(old, of("nginx-best")), new, builtin(t))
	require.False(t, rows[0].Relative)
	elsewhere := remove(new, of("nginx-best"))
	elsewhere.Settings = []results.Setting{{Key: "env-hash", Value: "other"}}
	rows = Compare(old, elsewhere, builtin(t))
	require.Equal(t, "other machine, and no nginx-best beside it", rows[0].Note)
	require.Equal(t, Unknown, rows[0].Verdict)

	// Other machine with the reference beside it: ratios compare.
	new.Settings = elsewhere.Settings
	require.Equal(t, Pass, conclude(t, old, new))
}

func TestConcludeInvalid(t *testing.T) {
	outcome, reason := Conclude(nil)
	require.Equal(t, Invalid, outcome)
	require.Equal(t, "nothing was compared", reason)

	outcome, reason = Conclude([]Row{{Control: true, Verdict: Same}})
	require.Equal(t, Invalid, outcome, "only a control: %s", reason)

	outcome, reason = Conclude([]Row{{Verdict: Worse}, {Control: true, Verdict: Better, Name: results.Name{Subject: "nginx-readme"}}})
	require.Equal(t, Invalid, outcome)
	require.Contains(t, reason, "the control nginx-readme moved")

	outcome, _ = Conclude([]Row{{Verdict: Same}, {Verdict: Worse, ReportOnly: true}})
	require.Equal(t, Pass, outcome)
	outcome, _ = Conclude([]Row{{Verdict: Unknown}, {Verdict: Worse}})
	require.Equal(t, Regression, outcome)
}

func TestCorrect(t *testing.T) {
	rows := []Row{
		{Change: Change{P: 0.04, PMin: 0.001}},
		{Change: Change{P: 0.01, PMin: 0.001}},
		{Change: Change{P: 0.0001, PMin: 0.001}, ReportOnly: true},
		{Change: Change{P: 0.03, PMin: 0.001}},
		{Change: Change{P: 0.5}, Note: "missing"},
	}
	correct(rows)
	var got []float64
	for _, row := range rows {
		got = append(got, row.Change.P)
	}
	require.InDeltaSlice(t, []float64{0.06, 0.03, 0.0001, 0.06, 0.5}, got, 1e-12)
	require.InDelta(t, 0.003, rows[0].Change.PMin, 1e-12)
}

func TestPMin(t *testing.T) {
	// What full separation gives, to the samples at which a level is reachable.
	require.Greater(t, pMin(3, 3), 0.05)
	require.Less(t, pMin(4, 4), 0.05)
	require.Less(t, pMin(5, 5), 0.01)
	require.Less(t, pMin(7, 7), 0.001)
	require.InDelta(t, 2.0/924, pMin(6, 6), 1e-12)
	require.EqualValues(t, 1, pMin(0, 6))

	low, high := []float64{1, 2, 3, 4, 5, 6}, []float64{11, 12, 13, 14, 15, 16}
	require.InDelta(t, pMin(6, 6), change(low, high, -1).P, 1e-9, "the test itself agrees")
	require.Equal(t, []float64{1, 2, 3, 4, 5, 6}, low, "samples keep their order")
}

func TestLoss(t *testing.T) {
	before, after := []float64{100, 100, 100}, []float64{110, 110, 110}
	estimate, most := loss(before, after, -1)
	require.InDelta(t, 0.10, estimate, 1e-9, "lower is better: 110 is 10 % worse")
	require.InDelta(t, 0.10, most, 1e-9)
	estimate, _ = loss(before, after, +1)
	require.InDelta(t, 100.0/110-1, estimate, 1e-9, "higher is better: a gain")
	_, most = loss([]float64{90, 100, 110}, []float64{90, 100, 110}, -1)
	require.Greater(t, most, 0.1, "noise widens the interval")
}

func TestStats(t *testing.T) {
	require.Zero(t, Median(nil))
	require.InDelta(t, 2, Median([]float64{3, 1, 2}), 0)
	require.InDelta(t, 2.5, Median([]float64{4, 1, 2, 3}), 0)
	require.Equal(t, []float64{2, 0.5}, Ratios([]float64{2, 1}, []float64{1, 2}))
	require.Nil(t, Ratios([]float64{1}, []float64{1, 2}))
	require.Nil(t, Ratios([]float64{1}, []float64{0}))
	require.False(t, math.IsNaN(Median(Ratios([]float64{1}, []float64{0}))))
}

func TestInterval(t *testing.T) {
	values := []float64{6, 1, 5, 2, 4, 3}
	low, high, ok := Interval(values)
	require.True(t, ok)
	require.InDelta(t, 1, low, 0)
	require.InDelta(t, 6, high, 0)
	require.Equal(t, []float64{6, 1, 5, 2, 4, 3}, values, "left as they are")
	_, _, ok = Interval(values[:5])
	require.False(t, ok)
	_, _, ok = Interval(nil)
	require.False(t, ok)
}

func TestParsePolicyRefuses(t *testing.T) {
	text, err := os.ReadFile("../policy.toml")
	require.NoError(t, err)
	deciding := string(text[bytes.Index(text, []byte("[[unit]]")):bytes.Index(text, []byte("# The rest"))])
	for _, row := range []struct{ name, old, new, want string }{
		{"unknown key", "alpha =", "alfa =", `unknown key "alfa"`},
		{"no alpha", "alpha = 0.05", "", "alpha is 0"},
		{"alpha nobody means", "alpha = 0.05", "alpha = 5", "alpha is 5"},
		{"samples", "samples_min = 6", "samples_min = 2", "samples_min is 2"},
		{"no reference", `reference = "nginx-best"`, "", "reference is missing"},
		{"control is the reference", `control = "nginx-readme"`, `control = "nginx-best"`, "both"},
		{"unit without direction", `"cpu-ns/req"`, `"server-busy"`, "no direction"},
		{"unknown unit", `"cpu-ns/req"`, `"cpu"`, `unit "cpu"`},
		{"percent for a share", "0.05\n\n# The same", "5\n\n# The same", "tolerance is 5"},
		{"nothing decides", deciding, "", "could never fail"},
		{"syntax", "[[unit]]", "[[unit", "toml"},
	} {
		t.Run(row.name, func(t *testing.T) {
			spoilt := strings.Replace(string(text), row.old, row.new, 1)
			require.NotEqual(t, string(text), spoilt)
			p, err := ParsePolicy([]byte(spoilt))
			require.ErrorContains(t, err, row.want)
			require.Nil(t, p)
		})
	}
}
