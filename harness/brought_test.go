package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/harness/origin"
	"atlas/results"
)

// subjectFile writes one of a server that runs a program of the test binary.
func (l lab) subjectFile(name string, command ...string) string {
	file := filepath.Join(l.t.TempDir(), name+".toml")
	text := fmt.Sprintf("name = %q\nkinds = [\"static\", \"tcp\"]\ncommand = [\"%s\"]\nenv = [\"GO_WRONG=end\"]\n"+
		"[files]\nconfig = \"port = {{.Port}}\\n\"\n", name, strings.Join(command, `", "`))
	require.NoError(l.t, os.WriteFile(file, []byte(text), 0o644))
	return file
}

// stored is the run that a lab has made, and the manifest of it.
func (l lab) stored() (*results.File, results.Manifest) {
	runs, err := filepath.Glob(filepath.Join(l.out, "*"))
	require.NoError(l.t, err)
	require.Len(l.t, runs, 1)
	f, err := results.Open(filepath.Join(runs[0], "results.bench"))
	require.NoError(l.t, err)
	text, err := os.ReadFile(filepath.Join(runs[0], "manifest.json"))
	require.NoError(l.t, err)
	var m results.Manifest
	require.NoError(l.t, json.Unmarshal(text, &m))
	return f, m
}

// Servers that the lab has not, beside one that it has: what is started has every
// figure, what runs already those that can be had.
func TestRunBrought(t *testing.T) {
	l := newLab(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lengths := map[string]int{"/1k.html": 1024, "/10k.html": 10_240}
		w.Header().Set("Content-Length", fmt.Sprint(lengths[r.URL.Path]))
		_, _ = w.Write(origin.Document(lengths[r.URL.Path]))
	}))
	defer server.Close()
	file := l.subjectFile("mine", l.harness, "serve-peer", "-listen", "{{.Address}}",
		"{{if .TCP}}-tunnel{{else}}-root{{end}}", "{{if .TCP}}{{.Origin}}{{else}}{{.Root}}{{end}}")
	_, stderr, status := l.run("-scenario", "static-10k,tcp-1k,tls-tcp-1k", "-count", "1",
		"-subject", "go-nethttp,known", "-subject-file", file,
		"-url", "there="+server.URL, "-url", fmt.Sprintf("known=%s,pid=%d", server.URL, os.Getpid()))
	require.Zero(t, status, stderr)
	require.Contains(t, stderr, "note: there takes no part in tls-tcp-1k: it speaks no TLS")
	require.Contains(t, stderr, "note: there has no figures of CPU time: ")
	require.NotContains(t, stderr, "known has no figures")
	require.Regexp(t, `round 1/1  static-10k c=100: go-nethttp \S+ us .*, known \S+ us .*, mine \S+ us .*, there \S+k/s`, stderr)

	f, m := l.stored()
	subjects := map[string]int{}
	for _, name := range f.Names() {
		subjects[name.Subject]++
		require.NotZero(t, f.Values(name, results.Throughput), name)
		require.NotZero(t, f.Values(name, results.P99), name)
		require.NotZero(t, f.Values(name, results.ClientCPU), name)
		require.Equal(t, name.Subject != "there", len(f.Values(name, results.CPU)) > 0, name)
		ours := name.Scenario != "static-10k" && (name.Subject == "go-nethttp" || name.Subject == "mine")
		require.Equal(t, ours, len(f.Values(name, results.OriginCPU)) > 0, name)
	}
	require.Equal(t, map[string]int{"go-nethttp": 3, "mine": 2, "known": 2, "there": 2}, subjects)

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(text), m.Foreign["mine"].File)
	require.Equal(t, l.harness, m.Foreign["mine"].Program)
	require.Equal(t, results.Foreign{URL: server.URL}, *m.Foreign["there"])
	require.Equal(t, results.Foreign{URL: server.URL, PID: os.Getpid()}, *m.Foreign["known"])
	require.Len(t, m.Foreign, 3)
	require.Len(t, m.Subjects, 4)
}

// What goes wrong with them is refused as with any other, and leaves nothing.
func TestRunBroughtRefuses(t *testing.T) {
	var served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		body := origin.Document(1024)
		if served.Add(1) > 1 {
			body[0]++
		}
		_, _ = w.Write(body)
	}))
	defer server.Close()
	l := newLab(t)
	wrong := func(after string) []string {
		file := l.subjectFile("mine", l.harness, "go-wrong", after, "{{.Dir}}/config")
		return []string{"-subject", "mine", "-subject-file", file, "-scenario", "static-1k-latency", "-duration", "100ms"}
	}
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"does not start", []string{"-subject", "mine", "-subject-file",
			l.subjectFile("mine", "/bin/sh", "-c", "echo no such key >&2; exit 3")},
			"mine: ended before it served anything (exit status 3)\n    | no such key"},
		{"ends in the warm-up", wrong("2"), "mine ended while it was measured (exit status 4)\n    | out of luck"},
		{"ends when it is measured", wrong("50"), "mine ended while it was measured (exit status 4)\n    | out of luck"},
		{"nobody is there", []string{"-subject", "there", "-url", "there=http://127.0.0.1:1"},
			"static-1k c=100 there: Get \"http://127.0.0.1:1/1k.html\": "},
		{"answers wrongly", []string{"-subject", "there", "-url", "there=" + server.URL}, "body of the right length with other bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, stderr, status := l.run(append([]string{"-scenario", "static-1k", "-count", "1"}, row.args...)...)
			require.Equal(t, exitInvalid, status, stderr)
			require.Contains(t, stderr, row.want)
			require.Contains(t, stderr, "nothing is stored")
			require.NoDirExists(t, l.out)
		})
	}
}

// The command line is answered before anything is started.
func TestBroughtCommandLine(t *testing.T) {
	l := newLab(t)
	file := l.subjectFile("mine", "/no/server")
	broken := filepath.Join(t.TempDir(), "broken.toml")
	require.NoError(t, os.WriteFile(broken, []byte("name = \"x\"\nkind = \"static\"\n"), 0o644))
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"no such command", []string{"-subject-file", file}, `subject mine: command: exec: "/no/server"`},
		{"no such file", []string{"-subject-file", "/no/mine.toml"}, "/no/mine.toml"},
		{"a key that is none", []string{"-subject-file", broken}, `broken.toml:2:1: unknown key "kind"`},
		{"a name of the lab's", []string{"-url", "atlas=http://127.0.0.1:1"}, `name "atlas" is that of a subject which the lab has`},
		{"a name twice", []string{"-subject-file", file, "-url", "mine=http://127.0.0.1:1", "-scenario", "static-1k"},
			`name "mine": give each`},
		{"no scenario", []string{"-url", "there=http://127.0.0.1:1"}, "-url wants -scenario"},
		{"TLS", []string{"-url", "there=http://127.0.0.1:1", "-scenario", "tls-static-1k"},
			"there takes no part in tls-static-1k: it speaks no TLS"},
		{"a kind that it has not", []string{"-subject-file", l.subjectFile("other", "/bin/true"), "-scenario", "proxy-1k"},
			`other takes no part in proxy-1k: it does no work of kind "proxy"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, stderr, status := l.run(row.args...)
			require.Equal(t, exitUsage, status, stderr)
			require.Contains(t, stderr, row.want)
		})
	}
}

func TestDocumentsVerb(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there")
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(&stdout, &stderr, []string{"documents", "-o", dir, "-scenario", "static-1k,static-10k"}), &stderr)
	require.Equal(t, 2, strings.Count(stdout.String(), "\n"))
	text, err := os.ReadFile(filepath.Join(dir, "10k.html"))
	require.NoError(t, err)
	require.Equal(t, origin.Document(10_240), text)
	require.Equal(t, exitUsage, run(&stdout, &stderr, []string{"documents"}))
	require.Contains(t, stderr.String(), "-o is missing")
	require.Equal(t, exitUsage, run(&stdout, &stderr, []string{"documents", "-o", dir, "-scenario", "statik"}))
	require.Contains(t, stderr.String(), `no scenario matches "statik"`)
}
