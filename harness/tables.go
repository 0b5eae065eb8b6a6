package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// showTables has compare print the README's tables and write the page: there
// is one printer. It is the binary next to this one, or the sources in the
// working directory.
func showTables(ctx context.Context, stdout, stderr io.Writer, self, path string) error {
	sibling := filepath.Join(filepath.Dir(self), "compare")
	program := []string{sibling}
	if _, err := os.Stat(sibling); err != nil {
		if _, err := os.Stat("compare/main.go"); err != nil {
			fmt.Fprintf(stderr, "no tables: %s is missing; run `make build`, then `bin/compare table %s`\n",
				sibling, path)
			return nil
		}
		program = []string{"go", "run", "./compare"}
	}
	for _, verb := range []string{"table", "report"} {
		args := append(slices.Clone(program[1:]), verb, path)
		cmd := exec.CommandContext(ctx, program[0], args...)
		cmd.Stdout, cmd.Stderr = stdout, stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("compare %s: %w", verb, err)
		}
	}
	return nil
}
