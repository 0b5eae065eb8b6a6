package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/results"
	"atlas/scenarios"
)

// requirePerf skips where counting is not allowed, which root always is in CI.
func requirePerf(t *testing.T) {
	if err := host.CallsCounted(); err != nil {
		if os.Getenv("CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// count runs `harness count` and returns its results.
func (l lab) count(args ...string) *results.File {
	cmd := exec.Command(l.harness, append([]string{verbCount, "-out", l.out, "-duration", "300ms"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+l.tmp)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(l.t, cmd.Run(), &stderr)
	l.requireClean()
	require.Contains(l.t, stderr.String(), "counting the system calls of ")
	path, _, _ := strings.Cut(strings.TrimPrefix(stdout.String(), "results: "), "\n")
	require.Contains(l.t, stdout.String(), "compare table "+path)
	f, err := results.Open(path)
	require.NoError(l.t, err)
	return f
}

// What servers really call for a request of 1 KB. A client may have a server do much at
// once or nothing, so the bounds are those of both. There are at least as many requests
// as connections: on a machine that has no time for the server the timers of Go's
// runtime go on, and they are calls, too.
func TestCount(t *testing.T) {
	skipShort(t)
	requirePerf(t)
	requireInstalled(t, "nginx")
	l := newLab(t)
	subjects := "nginx-best,nginx-readme"
	if host.IOURing() == "available" {
		subjects += ",atlas,floor"
		out, err := goBuild(filepath.Dir(l.harness)+"/floor", "../proxy/floor")
		require.NoError(t, err, "%s", out)
	} else {
		require.Empty(t, os.Getenv("REQUIRE_URING"), "io_uring is %s", host.IOURing())
	}
	f := l.count("-scenario", "static-1k", "-subject", subjects, "-atlas", buildAtlas(t))
	counted := func(subject, unit string) float64 {
		values := f.Values(results.Name{Scenario: "static-1k", Mode: "closed", Conns: 500, Subject: subject}, unit)
		require.Len(t, values, 1, "%s %s", subject, unit)
		return values[0]
	}
	best, readme := counted("nginx-best", results.Syscalls), counted("nginx-readme", results.Syscalls)
	require.GreaterOrEqual(t, best, 2.0, "it reads and writes")
	require.LessOrEqual(t, best, 6.0, "it waits, reads, writes, and looks whether there is more")
	require.Greater(t, readme, best+1, "it opens, looks at and closes the file as well")
	require.LessOrEqual(t, readme, 14.0)
	require.Zero(t, counted("nginx-best", results.Enters))
	require.Empty(t, f.Values(f.Names()[0], results.CPU), "what is counted is not timed")
	if !strings.Contains(subjects, "atlas") {
		return
	}
	for _, subject := range []string{"atlas", "floor"} {
		enters, all := counted(subject, results.Enters), counted(subject, results.Syscalls)
		require.Positive(t, enters, subject)
		require.LessOrEqual(t, enters, 2.0, "%s: one that brings the request, one that brings what became of the answer", subject)
		require.Greater(t, all, enters, subject)
		require.Less(t, all, best, subject)
	}
}

// A server that runs already is counted by its process, and only by that.
func TestCountBrought(t *testing.T) {
	l := newLab(t)
	said := func(url string) (string, int) {
		cmd := exec.Command(l.harness, verbCount, "-out", l.out, "-duration", "50ms", "-warmup", "10ms",
			"-scenario", "static-1k", "-subject", "there", "-url", "there="+url)
		cmd.Env = append(os.Environ(), "TMPDIR="+l.tmp)
		out, _ := cmd.CombinedOutput() // the status tells
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, status := said("http://127.0.0.1:1")
	require.Equal(t, exitUsage, status, out)
	require.Contains(t, out, "the system calls of there cannot be counted, as its process is not known: "+
		"add it to -url, as in there=http://host:port,pid=N")

	requirePerf(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(origin.Document(1024))
	}))
	defer server.Close()
	out, status = said(fmt.Sprintf("%s,pid=%d", server.URL, os.Getpid()))
	require.Zero(t, status, out)
	require.Regexp(t, `static-1k c=500: there \d+\.\d+ calls`, out)

	ended := exec.Command("true")
	require.NoError(t, ended.Run())
	out, status = said(fmt.Sprintf("%s,pid=%d", server.URL, ended.Process.Pid))
	require.Equal(t, exitInvalid, status, out)
	require.Contains(t, out, "there is no such process")
}

func TestCountsOf(t *testing.T) {
	all := testPlanOf(t, "static-1k,static-1k-latency,tls-handshake-full,tcp-1k,idle-conns", false, 2)
	var got []string
	for _, st := range countsOf(all) {
		require.True(t, st.counts)
		got = append(got, st.String())
	}
	require.Equal(t, []string{
		"static-1k c=100 atlas, counting", "static-1k c=100 nginx-best, counting",
		"static-1k c=500 atlas, counting", "static-1k c=500 nginx-best, counting",
		"tcp-1k c=100 atlas, counting", "tcp-1k c=100 nginx-best, counting",
	}, got[:6])
	require.Len(t, got, 12)
	for _, st := range all {
		require.False(t, st.counts, "the plan is as it was")
	}
}

// A run counts where it may, at its end, and says where it may not.
func TestSettleCounts(t *testing.T) {
	matching := func(pattern string, what counts) *options {
		o := &options{form: quickForm, counts: what}
		var err error
		o.scenarios, err = scenarios.Match(scenarios.Files, pattern)
		require.NoError(t, err)
		o.subjects = testSubjects(t)
		return o
	}
	may := func() error { return nil }
	forbidden := errors.New("system calls cannot be counted: run it as root")
	mayNot := func() error { return forbidden }

	o := matching("static-1k,static-1k-latency", countsNothing)
	require.NoError(t, o.settleCounts(may))
	plan := o.plan()
	require.Len(t, plan, 6*6+4)
	require.Empty(t, countedIn(plan[:36]))
	require.Len(t, countedIn(plan[36:]), 4)
	require.Equal(t, countingMax, (&session{options: o}).load(plan[36]).Measured)
	require.Equal(t, quickForm.measured, (&session{options: o}).load(plan[35]).Measured)

	o = matching("static-1k,static-1k-latency", countsNothing)
	require.NoError(t, o.settleCounts(mayNot))
	require.Len(t, o.plan(), 36)
	require.Equal(t, []string{forbidden.Error()}, o.notes)

	o = matching("tls-handshake-full", countsNothing)
	require.NoError(t, o.settleCounts(mayNot))
	require.Empty(t, o.notes, "there is nothing to count")

	require.ErrorIs(t, matching("static-1k", countsOnly).settleCounts(mayNot), forbidden)
	require.ErrorContains(t, matching("idle-conns", countsOnly).settleCounts(may), "none of these is one")
}
