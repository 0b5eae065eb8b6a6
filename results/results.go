// Package results is the lab's memory: the grammar of a benchmark line, the
// units with their direction, and the reader and writer of result files in Go
// benchmark format, so that benchstat reads them too. It refuses to judge
// (compare does) and to repair: a line it does not understand is an error.
// A File owns its memory and may be read from several goroutines.
package results

import (
	"slices"
	"strings"
)

// File is one results file: what was true of the whole run, and its samples.
type File struct {
	Settings []Setting
	Samples  []Sample // in the order measured; round r of a cell is its r-th sample of every subject
}

// Setting is one "key: value" line that holds for every sample of the file.
type Setting struct {
	Key   string // lower case, words joined by '-'
	Value string
}

// Sample is one repetition: one measured phase of one subject under one load.
type Sample struct {
	Name     Name
	Requests int                // completed in the measured phase
	Values   map[string]float64 // by unit
}

// Setting returns the value of a key, or "" where the file has none.
func (f *File) Setting(key string) string {
	for _, s := range f.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// Together says whether all subjects of a load ran at once.
func Together(f *File) bool { return strings.Contains(f.Setting("form"), FormTogether) }

// Names returns the distinct names of the samples in order of appearance.
func (f *File) Names() []Name {
	var names []Name
	for _, s := range f.Samples {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Counts says whether the sample is of the pass that counts system calls, in which
// nothing else was measured.
func (s Sample) Counts() bool {
	_, counts := s.Values[Syscalls]
	return counts
}

// Values returns one unit of every repetition under a name, in the order
// measured. It is empty if any repetition lacks the unit, so that two results
// of one cell always pair round by round. The repetitions of system calls are
// others than those of everything else.
func (f *File) Values(name Name, unit string) []float64 {
	var values []float64
	for _, s := range f.Samples {
		if s.Name != name || s.Counts() != (unit == Syscalls || unit == Enters) {
			continue
		}
		v, ok := s.Values[unit]
		if !ok {
			return nil
		}
		values = append(values, v)
	}
	return values
}
