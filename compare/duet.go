package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"atlas/compare/gate"
	"atlas/compare/report"
)

// duetVerdict is verdict.json in the directory of a duet.
type duetVerdict struct {
	Outcome string      `json:"outcome"`
	Status  int         `json:"status"`
	Reason  string      `json:"reason"`
	Cells   []gate.Duet `json:"cells"`
}

// judgeDuet is the verb `gate`.
func judgeDuet(stdout, stderr io.Writer, args []string) int {
	flags := newFlags(stderr, "gate")
	policyFile := flags.String("policy", "", "`file` with the limits, instead of the built-in ones")
	suspects := flags.Bool("suspects", false, "only name the scenarios that want a second stage")
	if status, ok := parse(flags, args, 1); !ok {
		return status
	}
	policy, err := loadPolicy(*policyFile)
	if err != nil {
		fmt.Fprintf(stderr, "compare gate: %v\n", err)
		return exitUsage
	}
	dir := flags.Arg(0)
	arms, err := gate.OpenArms(dir)
	if err != nil {
		fmt.Fprintf(stderr, "compare gate: %v\n", err)
		return exitInvalid
	}
	cells := policy.JudgeDuets(arms)
	if *suspects {
		for _, name := range gate.Suspects(cells) {
			fmt.Fprintln(stdout, name)
		}
		return exitPass
	}
	outcome, reason := gate.ConcludeDuets(cells)
	report.Duets(stdout, arms, cells, outcome, reason)
	text, err := json.MarshalIndent(duetVerdict{outcome.String(), int(outcome), reason, cells}, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "verdict.json"), append(text, '\n'), 0o644)
	}
	if err != nil {
		fmt.Fprintf(stderr, "compare gate: %v\n", err)
		return exitUsage
	}
	return int(outcome)
}
