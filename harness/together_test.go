package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"atlas/results"
)

// The subjects of a cell at once: as many samples of each, with what a request costs
// and nothing that they leave each other.
func TestRunTogether(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "static-1k", "-count", "2", "-duration", "500ms",
		"-subject", "atlas,go-nethttp", "-atlas", l.peerAtlas(), "-together")
	require.Zero(t, status, stderr)
	require.Regexp(t, `round 1/2  static-1k c=100: atlas \S+ us, go-nethttp \S+ us`, stderr)
	require.Regexp(t, `round 2/2  static-1k c=500: go-nethttp \S+ us, atlas \S+ us`, stderr)
	f, _ := l.stored()
	require.Len(t, f.Names(), 4)
	for _, name := range f.Names() {
		require.Len(t, f.Values(name, results.CPU), 2, name)
		require.Empty(t, f.Values(name, results.Throughput), name)
	}
	require.Contains(t, f.Setting("form"), ", together: 2 rounds of 500ms")
	require.Equal(t, "vegeta", f.Setting("generator"))
}

// By several generators every cell is measured once a round by each, and what they
// found is stored apart.
func TestRunTogetherByTwo(t *testing.T) {
	requireInstalled(t, "wrk")
	l := newLab(t)
	stdout, stderr, status := l.run("-scenario", "static-1k", "-count", "2", "-duration", "250ms",
		"-subject", "atlas,go-nethttp", "-atlas", l.peerAtlas(), "-together", "-generator", "wrk,vegeta")
	require.Zero(t, status, stderr)
	require.Contains(t, stderr, "closed loop by wrk and vegeta")
	require.Equal(t, 4, strings.Count(stderr, "static-1k c=100: "), stderr)
	paths := regexp.MustCompile(`(?m)^results: (.*)$`).FindAllStringSubmatch(stdout, -1)
	require.Len(t, paths, 2)
	for i, by := range []string{"wrk", "vegeta"} {
		f, err := results.Open(paths[i][1])
		require.NoError(t, err)
		require.Equal(t, by, f.Setting("generator"))
		require.True(t, strings.HasSuffix(f.Setting("run"), "-"+by))
		require.Len(t, f.Names(), 4)
		for _, name := range f.Names() {
			require.Len(t, f.Values(name, results.CPU), 2, name)
		}
	}
}

// With an open loop the subjects take turns, so that each has a latency of its own.
func TestRunTogetherInTurns(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "proxy-1k-latency", "-count", "2", "-duration", "250ms",
		"-subject", "atlas,go-nethttp", "-atlas", l.peerAtlas(), "-together")
	if strings.Contains(stderr, "rate missed") { // a busy machine: to refuse it is right
		require.Contains(t, []int{exitPass, exitInvalid}, status, stderr)
		return
	}
	require.Zero(t, status, stderr)
	require.Regexp(t, `round 1/2  proxy-1k-latency 2000/s: atlas \S+ us p99 \S+ ms, go-nethttp \S+ us p99 \S+ ms`, stderr)
	f, _ := l.stored()
	require.Len(t, f.Names(), 2)
	for _, name := range f.Names() {
		for _, unit := range []string{results.P99, results.RawP99, results.CPU, results.OriginCPU} {
			require.Len(t, f.Values(name, unit), 2, name)
		}
	}
}

// One that answers wrongly spoils what all of them do.
func TestRunTogetherRefuses(t *testing.T) {
	l := newLab(t)
	_, stderr, status := l.run("-scenario", "static-1k", "-count", "2",
		"-subject", "atlas,go-nethttp", "-atlas", l.wrongAtlas(1), "-together")
	require.Equal(t, exitInvalid, status, stderr)
	require.Contains(t, stderr, "refused: static-1k c=100 atlas, round 1: atlas: ")
	require.Contains(t, stderr, "refused: static-1k c=100 go-nethttp, round 1: atlas: ")
	require.Contains(t, stderr, "Content-Length 1000, want 1024")
	require.Contains(t, stderr, "nothing is stored")
	for _, row := range []struct {
		want string
		args []string
	}{
		{`static-1k-connections: several servers at once take loads of mode "closed"`,
			[]string{"-scenario", "static-1k-connections"}},
		{"tls-static-1k: of several servers at once wrk does closed loops only",
			[]string{"-scenario", "*static-1k", "-generator", "wrk,vegeta"}},
		{"there: -together starts every server anew",
			[]string{"-scenario", "static-1k", "-url", "there=http://127.0.0.1:1"}},
	} {
		_, stderr, status := l.run(append(row.args, "-together")...)
		require.Equal(t, exitUsage, status, stderr)
		require.Contains(t, stderr, row.want)
	}
}
