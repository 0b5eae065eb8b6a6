package main

import (
	"errors"
	"fmt"
	"io"

	"atlas/compare/report"
	"atlas/results"
)

// compareGenerators is the verb `generators`.
func compareGenerators(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "generators")
	if status, ok := parse(flags, args, 2); !ok {
		return status
	}
	a, errA := results.Open(benchPath(flags.Arg(0)))
	b, errB := results.Open(benchPath(flags.Arg(1)))
	if err := errors.Join(errA, errB); err != nil {
		fmt.Fprintf(stderr, "compare generators: %v\n", err)
		return exitInvalid
	}
	outcome, err := report.Generators(stdout, a, b)
	if err != nil {
		fmt.Fprintf(stderr, "compare generators: %v\n", err)
		return exitInvalid
	}
	return int(outcome)
}
