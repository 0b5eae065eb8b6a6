//go:build slowdown && linux

package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What is burnt is the share that was asked for of what was used.
func TestSlowdown(t *testing.T) {
	t.Setenv("ATLAS_SLOWDOWN", "50")
	var s slowdown
	s.spend()
	began := processCPU()
	used := time.Duration(0)
	for range 20 * slowdownEvery {
		before := processCPU()
		for processCPU() < before+20*time.Microsecond {
		}
		used += processCPU() - before
		s.spend()
	}
	all := processCPU() - began
	require.InDelta(t, 1.5, float64(all)/float64(used), 0.25)
}
