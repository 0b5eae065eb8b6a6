package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/harness/subject"
)

const corpusDir = "../proxy/h1/testdata"

// requireInstalled skips without a program, but never where CI promises it.
func requireInstalled(t *testing.T, name string) {
	if _, err := host.Find(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// buildAtlas builds what the verb checks, so that no stale binary is. It looks
// at the sources, because a result is cached unless a file changes that the
// test itself has looked at.
func buildAtlas(t *testing.T) string {
	sources, err := filepath.Glob("../proxy/*/*.go")
	require.NoError(t, err)
	for _, file := range sources {
		_, err := os.Stat(file)
		require.NoError(t, err)
	}
	file, err := atlasOnce()
	require.NoError(t, err)
	return file
}

// atlasOnce builds it for all tests.
var atlasOnce = sync.OnceValues(func() (file string, err error) {
	file = filepath.Join(scratch, "atlas")
	if out, err := goBuild(file, "../proxy"); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return file, nil
})

// goBuild builds a program as the Makefile does, whose packages are compiled then.
func goBuild(file, folder string) (out []byte, err error) {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, folder)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return cmd.CombinedOutput()
}

// runConformance runs the verb in a temporary directory that it must leave empty.
func runConformance(t *testing.T, args ...string) (stdout, stderr string, status int) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	// The race detector's exit would add a second to every server's end.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	var out, err bytes.Buffer
	status = checkConformance(t.Context(), &out, &err, append([]string{"-corpus", corpusDir}, args...))
	left, readErr := os.ReadDir(tmp)
	require.NoError(t, readErr)
	require.Empty(t, left, "temporary files")
	return out.String(), err.String(), status
}

// Atlas keeps the rules for requests over sockets, on both engines as far as they are;
// make conformance has the others as well.
func TestConformance(t *testing.T) {
	skipShort(t)
	subjects := "atlas,atlas-netpoll"
	if host.IOURing() != "available" {
		subjects = "atlas-netpoll"
	}
	page := filepath.Join(t.TempDir(), "conformance.md")
	stdout, stderr, status := runConformance(t, "-atlas", buildAtlas(t), "-subject", subjects, "-rule", "request/*", "-o", page)
	require.Equal(t, exitPass, status, stderr)
	require.Empty(t, stdout, "the page is in its file")
	require.Contains(t, stderr, "Atlas (netpoll): ")
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	require.Contains(t, string(text), "testdata/request/obs-fold.txtar)")
	require.Contains(t, string(text), "\nAtlas (netpoll): none.\n")
	require.NotContains(t, string(text), "✗** |")
}

// HAProxy and nginx do what they do, which differs; that is no failure.
func TestConformanceOfOthers(t *testing.T) {
	skipShort(t)
	requireInstalled(t, "nginx")
	requireInstalled(t, "haproxy")
	stdout, stderr, status := runConformance(t, "-subject", "nginx-best,haproxy,go-nethttp", "-rule", "request/length*", "-json")
	require.Equal(t, exitPass, status, stderr)
	require.Contains(t, stdout, `{"case":"request/length/five","wanted":"forwards","outcomes":{"HAProxy":{"verdict":"forwards"}`)
	require.Contains(t, stdout, `"nginx":{"verdict":"refuses","status":400}`)
	require.NotContains(t, stdout, "obs-fold")
}

// A proxy that passes for Atlas and is not as strict fails, by name of the case.
func TestConformanceDiffers(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	atlas := filepath.Join(t.TempDir(), "atlas")
	script := `#!/bin/sh
case "$1" in version) echo lenient; exit ;; esac
port=$(sed -n 's/^port *= //p' "$1")
set -- $port
exec ` + self + ` serve-peer -listen 127.0.0.1:$1 -upstream 127.0.0.1:$2
`
	require.NoError(t, os.WriteFile(atlas, []byte(script), 0o755))
	stdout, stderr, status := runConformance(t, "-atlas", atlas, "-subject", "atlas-netpoll", "-rule", "request/host-invalid")
	require.Equal(t, exitDiffers, status, stderr)
	require.Contains(t, stderr, "Atlas (netpoll) differs from its corpus: request/host-invalid/path: ")
	require.Contains(t, stdout, "- Atlas (netpoll): lenient\n")
	require.Contains(t, stdout, " **✗** |")
}

func TestConformanceCommandLine(t *testing.T) {
	noAtlas := []string{"-atlas", "/no/atlas"}
	for _, row := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"help", []string{"-h"}, exitPass, "-rule glob"},
		{"flag", []string{"-x"}, exitUsage, "not defined: -x"},
		{"argument", []string{"x"}, exitUsage, `unexpected argument "x"`},
		{"no corpus", []string{"-corpus", "/no/corpus"}, exitUsage, "corpus /no/corpus: "},
		{"no rule", []string{"-rule", "request/x"}, exitUsage, `no rule matches "request/x"`},
		{"a broken glob", []string{"-rule", "["}, exitUsage, "syntax error in pattern"},
		{"unknown subject", []string{"-subject", "apache"}, exitUsage, `no subject is named "apache"`},
		{"no Atlas", noAtlas, exitUsage, "/no/atlas is missing: run `make build`"},
		{"no Atlas asked for", append([]string{"-subject", "atlas"}, noAtlas...), exitUsage, "/no/atlas is missing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, stderr, status := runConformance(t, row.args...)
			require.Equal(t, row.status, status, stderr)
			require.Contains(t, stderr, row.want)
		})
	}
}

// What is not installed is named and left out, unless it was promised.
func TestConformanceMissing(t *testing.T) {
	subjects, err := subject.Named(proxies)
	require.NoError(t, err)
	only := func(name string) func(subject.Subject) error {
		return func(s subject.Subject) error {
			if s.Name == name {
				return nil
			}
			return errors.New("not here")
		}
	}
	var notes bytes.Buffer
	there, err := present(&notes, subjects, only("atlas"), false)
	require.NoError(t, err)
	require.Len(t, there, 1)
	require.Equal(t, "note: nginx is left out: not here\nnote: HAProxy is left out: not here\n", notes.String())
	_, err = present(&notes, subjects, only("atlas"), true)
	require.ErrorContains(t, err, "subject nginx-best: not here")
	_, err = present(&notes, subjects, only("haproxy"), false)
	require.ErrorContains(t, err, "subject atlas: not here")
}
