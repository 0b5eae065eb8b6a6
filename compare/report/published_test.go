package report

import (
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

func TestJudgeClaims(t *testing.T) {
	even := func(middle, step float64) []float64 {
		var ratios []float64
		for i := range 7 {
			ratios = append(ratios, middle+float64(i-3)*step)
		}
		return ratios
	}
	for _, row := range []struct {
		name   string
		ratios []float64
		want   string
	}{
		{"the same", even(2, 0.01), reproduced},
		{"just within", even(2.21, 0.01), reproduced},
		{"above", even(2.5, 0.01), exceeded},
		{"below", even(1.5, 0.01), notReproduced},
		{"anything", even(2, 0.3), notMeasurable},
		{"above, and wide", even(4, 0.5), exceeded},
		{"few rounds", []float64{2, 2, 2}, notMeasurable},
	} {
		t.Run(row.name, func(t *testing.T) {
			var c claim
			c.judge(2, row.ratios)
			require.Equal(t, row.want, c.outcome, "%s %s", c.interval, c.why)
			require.NotEmpty(t, c.ours)
		})
	}
}

// The README's own set-up counts where it was run, and the rates alone.
func TestClaimsOfOwnSetUp(t *testing.T) {
	published, err := results.LoadPublished()
	require.NoError(t, err)
	f := &results.File{Settings: []results.Setting{{Key: "cores", Value: "4"}}}
	for range 6 {
		for subject, rate := range map[string]float64{"atlas": 330_000, "nginx-readme": 160_000} {
			for scenario, cost := range map[string]float64{"readme-static-1k": 1e9 / rate, "static-1k": 5000} {
				f.Samples = append(f.Samples, results.Sample{
					Name:     results.Name{Scenario: scenario, Mode: "closed", Conns: 100, Subject: subject},
					Requests: 1, Values: map[string]float64{results.Throughput: rate, results.CPU: cost},
				})
			}
		}
	}
	tables := &tables{f: f}
	tables.claims(published)
	rows := tables.blocks[0].rows
	require.Len(t, rows, 1+4+1+1+6, "head, ratios, TLS, absolutes, latencies")
	require.Equal(t, []string{"2.02x", "2.06x", "2.06 to 2.06", unmeasured, reproduced, "the README's own set-up"}, rows[1][1:])
	require.Equal(t, []string{"2.07x", unmeasured, unmeasured, unmeasured, notMeasurable, "not in this run"}, rows[2][1:])
	require.Equal(t, "330,000 req/s", rows[6][2])
}

// Whatever a scenario can vary has its words.
func TestVaried(t *testing.T) {
	require.Len(t, varied, len(results.Varied))
	for _, key := range results.Varied {
		require.NotEmpty(t, varied[key].title, key)
		require.NotEmpty(t, varied[key].text("1024"), key)
	}
	for at, want := range map[string]string{"0": "0 B", "1024": "1 KB", "10240": "10 KB", "1048576": "1 MB", "1500": "1500 B"} {
		require.Equal(t, want, sizeText(at))
	}
}
