package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// gateLab is a lab with a judge: the real one, or a script.
func gateLab(t *testing.T, compare string) lab {
	l := newLab(t)
	path := filepath.Join(filepath.Dir(l.harness), "compare")
	require.NoError(t, os.Remove(path))
	if compare != "" {
		require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+compare+"\n"), 0o755))
		return l
	}
	out, err := goBuild(path, "atlas/compare")
	require.NoError(t, err, "%s", out)
	return l
}

// gate runs `harness gate` with tiny slices.
func (l lab) gate(args ...string) *exec.Cmd {
	cmd := exec.Command(l.harness, append([]string{
		"gate", "-scenario", "static-1k", "-restarts", "2", "-slices", "3", "-slice", "20ms", "-out", l.out,
	}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+l.tmp, "GORACE=atexit_sleep_ms=0")
	return cmd
}

func (l lab) runGate(args ...string) (stdout, stderr string, status int) {
	cmd := l.gate(args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	_ = cmd.Run() // the status tells
	l.requireClean()
	return out.String(), said.String(), cmd.ProcessState.ExitCode()
}

// A duet of two servers that are the same, with the real judge. Two restarts are too
// few for any verdict but this one.
func TestGate(t *testing.T) {
	l := gateLab(t, "")
	stdout, stderr, status := l.runGate("-anyway", "-base-binary", l.peerAtlas(), "-candidate-binary", l.peerAtlas())
	require.Contains(t, []int{exitInvalid, 4}, status, stdout+stderr)
	require.Regexp(t, `verdict: (inconclusive|invalid)\. static-1k: `, stdout)
	dir := strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: ")

	stages := 0
	for _, arm := range armNames {
		f, err := results.Open(filepath.Join(dir, arm+".bench"))
		require.NoError(t, err)
		require.Len(t, f.Names(), 1)
		require.Equal(t, 33, f.Names()[0].Conns, "the arms share the connections")
		costs := f.Values(f.Names()[0], results.CPU)
		stages = len(costs) / 6
		require.Len(t, costs, stages*2*3)
		require.Equal(t, "3", f.Setting(results.Slices))
		require.NotEmpty(t, f.Setting("candidate-sha256"))
	}
	text, err := os.ReadFile(filepath.Join(dir, "verdict.json"))
	require.NoError(t, err)
	var verdict struct{ Status int }
	require.NoError(t, json.Unmarshal(text, &verdict))
	require.Equal(t, status, verdict.Status)

	text, err = os.ReadFile(filepath.Join(dir, "manifest.json"))
	require.NoError(t, err)
	var m duetManifest
	require.NoError(t, json.Unmarshal(text, &m))
	require.Len(t, m.Order, 2*stages)
	require.NotEqual(t, m.Order[0].First, m.Order[1].First, "each restart has another order")
}

// The judge is asked which scenarios want a second stage, and only those have one;
// its exit status is the gate's.
func TestGateStages(t *testing.T) {
	l := gateLab(t, `[ "$2" = -suspects ] && { echo tcp-1k; exit 0; }; echo "verdict: regression"; exit 1`)
	stdout, stderr, status := l.runGate("-anyway", "-scenario", "static-1k,tcp-1k",
		"-base-binary", l.peerAtlas(), "-candidate-binary", l.peerAtlas())
	require.Equal(t, exitDiffers, status, stdout+stderr)
	f, err := results.Open(filepath.Join(strings.TrimPrefix(strings.SplitN(stdout, "\n", 2)[0], "results: "), "base.bench"))
	require.NoError(t, err)
	for _, name := range f.Names() {
		want := 6
		if name.Scenario == "tcp-1k" {
			want = 12
		}
		require.Len(t, f.Values(name, results.CPU), want)
	}
}

func TestGateOfEqualBinaries(t *testing.T) {
	l := gateLab(t, "exit 99")
	stdout, stderr, status := l.runGate("-base-binary", l.peerAtlas(), "-candidate-binary", l.peerAtlas())
	require.Equal(t, exitPass, status, stderr)
	require.Contains(t, stdout, "verdict: pass. Base and candidate are the same binary")
	require.NoDirExists(t, l.out)
}

// An arm that answers wrongly or does not start is invalid and no regression.
func TestGateInvalid(t *testing.T) {
	l := gateLab(t, "exit 99")
	stdout, stderr, status := l.runGate("-base-binary", l.peerAtlas(), "-candidate-binary", l.wrongAtlas(1))
	require.Equal(t, exitInvalid, status, stderr)
	require.Contains(t, stdout, "verdict: invalid. static-1k: candidate: ")
	require.Contains(t, stdout, "Content-Length 1000, want 1024")

	broken := filepath.Join(t.TempDir(), "atlas")
	require.NoError(t, os.WriteFile(broken, []byte("#!/bin/sh\necho no such key >&2; exit 1\n"), 0o755))
	stdout, stderr, status = l.runGate("-base-binary", broken, "-candidate-binary", l.peerAtlas())
	require.Equal(t, exitInvalid, status, stderr)
	require.Contains(t, stdout, "verdict: invalid. static-1k: base: ")
	require.Contains(t, stdout, "no such key")
}

func TestGateInterrupted(t *testing.T) {
	l := gateLab(t, "exit 99")
	cmd := l.gate("-base-binary", l.peerAtlas(), "-candidate-binary", l.wrongAtlas(1<<40), "-slice", "1h")
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(l.processes()) >= 4 }, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait() // the status tells
	require.Equal(t, exitUsage, cmd.ProcessState.ExitCode())
	l.requireClean()
}

func TestGateCommandLine(t *testing.T) {
	l := gateLab(t, "exit 99")
	for _, row := range []struct {
		want string
		args []string
	}{
		{"name a -base", nil},
		{"name a -base", []string{"-base", "main", "-base-binary", "x"}},
		{"no scenario matches", []string{"-base", "HEAD", "-scenario", "statik"}},
		{"closed", []string{"-base", "HEAD", "-scenario", "static-1k-latency"}},
		{"cannot be negative", []string{"-base", "HEAD", "-slices", "-1"}},
		{"-base no-such-ref", []string{"-base", "no-such-ref"}},
		{"no such file", []string{"-base-binary", "/no/atlas", "-candidate-binary", "/no/atlas"}},
	} {
		_, stderr, status := l.runGate(row.args...)
		require.Equal(t, exitUsage, status, stderr)
		require.Contains(t, stderr, row.want)
	}
}

// The base is built from its commit in a worktree, of which nothing stays.
func TestGateBuild(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	program := func(text string) {
		require.NoError(t, os.MkdirAll("proxy", 0o755))
		require.NoError(t, os.WriteFile("go.mod", []byte("module x\n\ngo 1.26\n"), 0o644))
		require.NoError(t, os.WriteFile("proxy/main.go", fmt.Appendf(nil, "package main\n\nfunc main() { println(%q) }\n", text), 0o644))
	}
	run := func(args ...string) {
		cmd := exec.Command("git", args...)
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	program("old")
	run("init", "-q")
	run("add", ".")
	run("commit", "-q", "-m", "old")
	program("new")
	o := newGateOptions(nil)
	o.base = "HEAD"
	scratch := t.TempDir()
	require.NoError(t, o.build(t.Context(), io.Discard, scratch))
	for i, want := range []string{"old\n", "new\n"} {
		out, err := exec.Command(o.binaries[i].path).CombinedOutput()
		require.NoError(t, err)
		require.Equal(t, want, string(out))
	}
	require.True(t, strings.HasSuffix(o.binaries[1].commit, "-dirty"))
	require.NoDirExists(t, filepath.Join(scratch, "base"))
	out, err := exec.Command("git", "worktree", "list").Output()
	require.NoError(t, err)
	require.Len(t, strings.Split(strings.TrimSpace(string(out)), "\n"), 1)

	require.NoError(t, os.WriteFile("proxy/main.go", []byte("package main\n"), 0o644))
	o = newGateOptions(nil)
	o.base = "HEAD"
	require.ErrorContains(t, o.build(t.Context(), io.Discard, t.TempDir()), "go build ./proxy in .")
}

// A study can be cut short and taken up again, and does what it says in the end.
func TestStudy(t *testing.T) {
	names := []string{"static-1k", "proxy-1k"}
	whole := plannedTrials(names, 0, nil)
	require.Len(t, whole, 80)
	count := map[trial]int{}
	for _, one := range whole {
		count[one]++
	}
	require.Equal(t, map[trial]int{
		{Scenario: "static-1k"}: 20, {Scenario: "proxy-1k"}: 20,
		{Scenario: "static-1k", Percent: 5}: 10, {Scenario: "proxy-1k", Percent: 5}: 10,
		{Scenario: "static-1k", Percent: 10}: 10, {Scenario: "proxy-1k", Percent: 10}: 10,
	}, count)
	require.Len(t, plannedTrials(names, 4, nil), 8)

	file := filepath.Join(t.TempDir(), "runs", "study.jsonl")
	done, err := readTrials(file)
	require.NoError(t, err)
	require.Empty(t, done)
	for i, one := range whole {
		one.Run = fmt.Sprint(i)
		if one.Percent > 0 {
			one.Status = exitDiffers
		}
		require.NoError(t, appendTrial(file, one))
	}
	done, err = readTrials(file)
	require.NoError(t, err)
	require.Equal(t, whole[50:], plannedTrials(names, 0, done[:50]))
	require.Empty(t, plannedTrials(names, 0, done))
	var said bytes.Buffer
	require.Equal(t, exitPass, concludeStudy(&said, 0, done))
	require.Contains(t, said.String(), "+5 %: 20 trials: 0 pass, 20 regression, 0 inconclusive, 0 invalid; as promised")
	require.Equal(t, exitDiffers, concludeStudy(&said, 0, done[:50]), "not all are caught yet")
	for i := range done {
		done[i].Status = exitDiffers
	}
	require.Equal(t, exitDiffers, concludeStudy(&said, 0, done), "false alarms")

	require.NoError(t, os.WriteFile(file, []byte("{}\nx\n"), 0o644))
	_, err = readTrials(file)
	require.ErrorContains(t, err, "study.jsonl:2: ")
}

// A worktree for the base is gone after an interruption, too, and a locked one, as
// git leaves it where it is ended in the middle.
func TestAddWorktree(t *testing.T) {
	t.Chdir(t.TempDir())
	run := func(args ...string) string {
		out, err := git(t.Context(), append([]string{"-c", "user.name=lab", "-c", "user.email=lab@localhost"}, args...)...)
		require.NoError(t, err)
		return out
	}
	run("init")
	run("commit", "--allow-empty", "--message", "one")
	tree := filepath.Join(t.TempDir(), "base")
	remove, err := addWorktree(t.Context(), tree, "HEAD")
	require.NoError(t, err)
	run("worktree", "lock", tree)
	require.NoError(t, remove())
	require.Len(t, strings.Split(run("worktree", "list"), "\n"), 1)

	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	remove, err = addWorktree(interrupted, tree, "HEAD")
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, remove())
	require.Len(t, strings.Split(run("worktree", "list"), "\n"), 1)
	require.NoError(t, remove(), "there is none")
}

// Arms of one file would share its text in the processor's caches.
func TestGateArmsAreFilesOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	o := &gateOptions{options: &options{}}
	for i, text := range []string{"base", "candidate"} {
		o.binaries[i].path = filepath.Join(dir, text+".bin")
		require.NoError(t, os.WriteFile(o.binaries[i].path, []byte(text), 0o600))
	}
	_, err := o.arms(dir)
	require.NoError(t, err)
	var infos []os.FileInfo
	for at, want := range []string{"base", "base", "candidate"} {
		path := filepath.Join(dir, armNames[at])
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
		info, err := os.Stat(path)
		require.NoError(t, err)
		for _, other := range infos {
			require.False(t, os.SameFile(info, other), "%s", path)
		}
		infos = append(infos, info)
	}
}
