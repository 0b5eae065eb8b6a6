package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"

	"atlas/compare/gate"
	"atlas/compare/report"
	"atlas/results"
)

//go:embed goals.toml
var goalsText []byte

// compareGoals is the verb `goals`.
func compareGoals(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "goals")
	file := flags.String("goals", "", "`file` with the goals, instead of the built-in ones")
	if status, ok := parse(flags, args, 1); !ok {
		return status
	}
	text, path := goalsText, "goals.toml"
	if *file != "" {
		path = *file
		var err error
		if text, err = os.ReadFile(path); err != nil {
			fmt.Fprintf(stderr, "compare goals: %v\n", err)
			return exitUsage
		}
	}
	goals, err := gate.ParseGoals(text)
	if err != nil {
		fmt.Fprintf(stderr, "compare goals: %s: %v\n", path, err)
		return exitUsage
	}
	f, err := results.Open(benchPath(flags.Arg(0)))
	if err != nil {
		fmt.Fprintf(stderr, "compare goals: %v\n", err)
		return exitInvalid
	}
	outcome, err := report.Goals(stdout, f, goals)
	if err != nil {
		fmt.Fprintf(stderr, "compare goals: %v\n", err)
		return exitInvalid
	}
	return int(outcome)
}
