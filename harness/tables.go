package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// showTables has compare print the README's tables: there is one printer. It
// is the binary next to this one, or the sources in the working directory.
func showTables(ctx context.Context, stdout, stderr io.Writer, self, path string) error {
	sibling := filepath.Join(filepath.Dir(self), "compare")
	var cmd *exec.Cmd
	if _, err := os.Stat(sibling); err == nil {
		cmd = exec.CommandContext(ctx, sibling, "table", path)
	} else if _, err := os.Stat("compare/main.go"); err == nil {
		cmd = exec.CommandContext(ctx, "go", "run", "./compare", "table", path)
	} else {
		fmt.Fprintf(stderr, "no tables: %s is missing; run `make build`, then `bin/compare table %s`\n", sibling, path)
		return nil
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compare table: %w", err)
	}
	return nil
}
