package gate

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// Median returns the middle of values, which it leaves as they are; of none, 0.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Ratios divides values by the reference's of the same round. It returns nil
// where the two do not pair.
func Ratios(values, reference []float64) []float64 {
	if len(values) != len(reference) {
		return nil
	}
	var ratios []float64
	for i, v := range values {
		if reference[i] <= 0 {
			return nil
		}
		ratios = append(ratios, v/reference[i])
	}
	return ratios
}

// Interval returns the 95 % interval of the median, between order statistics;
// it is not ok for samples too few to have one.
func Interval(values []float64) (low, high float64, ok bool) {
	// NewSample sorts in place.
	sample := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	s := benchmath.AssumeNothing.Summary(sample, confidence)
	return s.Lo, s.Hi, !math.IsInf(s.Lo, 0) && !math.IsInf(s.Hi, 0)
}

const confidence = 0.95
