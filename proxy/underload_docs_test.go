package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/upgrade.md has what the file of results has: a row for each line.
func TestUpgradeFigures(t *testing.T) {
	results, err := os.ReadFile("../results/baseline/upgrades-epyc-2-cores.bench")
	require.NoError(t, err)
	page, err := os.ReadFile("../docs/upgrade.md")
	require.NoError(t, err)
	lines := 0
	for line := range strings.Lines(string(results)) {
		fields := strings.Fields(line)
		if len(fields) != 12 || !strings.HasPrefix(line, "BenchmarkInPlace/") {
			continue
		}
		lines++
		name := strings.Split(fields[0], "/")
		row := []string{strings.TrimPrefix(name[1], "change="), strings.TrimPrefix(name[2], "tls=")}
		for i := 2; i < len(fields); i += 2 {
			row = append(row, fields[i])
		}
		assert.Contains(t, string(page), " | "+strings.Join(row, " | ")+" |\n", line)
	}
	assert.Equal(t, 14, lines)
}
