package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// build makes the binaries that were not named: the base from its commit, in a
// worktree that is removed again, and the candidate from the tree.
func (o *gateOptions) build(ctx context.Context, stderr io.Writer, scratch string) (all error) {
	base, candidate := &o.binaries[0], &o.binaries[1]
	base.commit, candidate.commit = "binary", "binary"
	if base.path == "" {
		commit, err := git(ctx, "rev-parse", "--verify", "--short=7", o.base+"^{commit}")
		if err != nil {
			return fmt.Errorf("-base %s names no commit here (a shallow clone has few; git fetch gets more): %w",
				o.base, err)
		}
		fmt.Fprintf(stderr, "building base %s (%s)\n", o.base, commit)
		tree := filepath.Join(scratch, "base")
		remove, err := addWorktree(ctx, tree, commit)
		defer func() { all = errors.Join(all, remove()) }()
		if err != nil {
			return err
		}
		*base = built{filepath.Join(scratch, "atlas-base"), commit}
		if err := buildTree(ctx, tree, base.path, ""); err != nil {
			return err
		}
	}
	if candidate.path == "" {
		*candidate = built{filepath.Join(scratch, "atlas-candidate"), commitID()}
		fmt.Fprintf(stderr, "building candidate %s\n", candidate.commit)
		if err := buildTree(ctx, ".", candidate.path, ""); err != nil {
			return err
		}
	}
	for i := range o.binaries {
		o.binaries[i].path = absolute(o.binaries[i].path)
		if _, err := os.Stat(o.binaries[i].path); err != nil {
			return err
		}
	}
	return nil
}

// addWorktree makes a worktree of a commit. An interruption waits for that: git that
// is ended in the middle leaves a worktree behind, locked. remove undoes it, also
// after an interruption or an error.
func addWorktree(ctx context.Context, tree, commit string) (remove func() error, err error) {
	whole := context.WithoutCancel(ctx)
	remove = func() error {
		if _, err := os.Stat(tree); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		_, err := git(whole, "worktree", "remove", "--force", "--force", tree) // twice for a locked one
		return err
	}
	if _, err = git(whole, "worktree", "add", "--detach", tree, commit); err == nil {
		err = ctx.Err()
	}
	return remove, err
}

// buildTree builds the tree in a directory as `make build` does, but without a
// version in it: the same sources give the same bytes.
func buildTree(ctx context.Context, tree, out, tags string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", tags, "-o", out, "./proxy")
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	// Interrupted, it removes its files; killed, it does not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = buildEnd
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./proxy in %s: %w\n%s", tree, err, bytes.TrimSpace(text))
	}
	return nil
}

// buildEnd is how long the go command has for that.
const buildEnd = 10 * time.Second

// git runs git in the working directory. An interrupt from the terminal is for us.
func git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if text := bytes.TrimSpace(said.Bytes()); err != nil && len(text) > 0 {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, text)
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err) // it did not start
	}
	return strings.TrimSpace(string(out)), nil
}

func sameFiles(a, b string) (bool, error) {
	one, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	other, err := os.ReadFile(b)
	return bytes.Equal(one, other), err
}

// compare is the judging program on a duet's directory.
func (o *gateOptions) compare(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if o.policy != "" {
		args = append([]string{"-policy", o.policy}, args...)
	}
	// Not through `go run`, which turns every failure into status 1.
	sibling := filepath.Join(filepath.Dir(o.programs.Harness), "compare")
	if _, err := os.Stat(sibling); err != nil {
		return nil, fmt.Errorf("%s is missing: run `make build`, and bin/harness", sibling)
	}
	return exec.CommandContext(ctx, sibling, append([]string{"gate"}, args...)...), nil
}
