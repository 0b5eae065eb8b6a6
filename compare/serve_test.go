package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// storedRuns are three runs, of which the last is slower, and a broken one.
func storedRuns(t *testing.T) string {
	dir := t.TempDir()
	for i, slower := range []float64{1, 1, 1.2} {
		run := filepath.Join(dir, fmt.Sprintf("2026112%dT120000Z-aaaaaa%d", i, i))
		require.NoError(t, os.Mkdir(run, 0o755))
		path := filepath.Join(run, "results.bench")
		write(t, path, spec{rounds: 7 + i, subjects: withFloor, slower: slower, only: "static", commit: fmt.Sprintf("aaaaaa%d", i)})
		writeLatencies(t, path)
	}
	broken := filepath.Join(dir, "20261129T120000Z-bad")
	require.NoError(t, os.Mkdir(broken, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(broken, "results.bench"), []byte("BenchmarkLab/x 1 2\n"), 0o644))
	for name, more := range map[string]float64{"20261125T120000.000Z-gate-bbbbbbb": 1, "20261126T120000.000Z-gate-bbbbbbb": 1.06} {
		gate := filepath.Join(dir, name)
		writeDuet(t, gate, more, more)
		var stdout, stderr bytes.Buffer
		_ = run(&stdout, &stderr, []string{"gate", gate}) // which writes its verdict
	}
	writeDuet(t, filepath.Join(dir, "20261127T120000.000Z-gate-ccccccc"), 1) // without one
	return dir
}

func TestServe(t *testing.T) {
	server := httptest.NewServer(site(storedRuns(t)))
	defer server.Close()
	get := func(path string) (string, int) {
		answer, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return string(body), answer.StatusCode
	}
	for _, row := range []struct {
		name, path string
		status     int
		want       []string
	}{
		{"index", "/", 200, []string{`<a href="/run?of=20261120T120000Z-aaaaaa0">`, "20261129T120000Z-bad", "results.bench:1: "}},
		{"the gates", "/", 200, []string{`<a href="/gate?of=20261125T120000.000Z-gate-bbbbbbb">`, "<td>regression</td>", "no verdict: "}},
		{"one that passed", "/gate?of=20261125T120000.000Z-gate-bbbbbbb", 200, []string{"pass: ", "base aaaaaaa, candidate bbbbbbb"}},
		{"one that did not", "/gate?of=20261126T120000.000Z-gate-bbbbbbb",
			200, []string{"regression: ", "proxy-1k c=33"}},
		{"one without a verdict", "/gate?of=20261127T120000.000Z-gate-ccccccc", 404, []string{"file does not exist"}},
		{"a run", "/run?of=20261120T120000Z-aaaaaa0", 200, []string{"<svg", "At a glance", "Latency, static-1k-latency 2000/s"}},
		{"two alike", "/compare?old=20261120T120000Z-aaaaaa0&new=20261121T120000Z-aaaaaa1", 200,
			[]string{"pass: ", "Cost of Atlas beside nginx-best", "Cost of Atlas beside floor"}},
		{"a slower one", "/compare?old=20261120T120000Z-aaaaaa0&new=20261122T120000Z-aaaaaa2", 200,
			[]string{"regression: ", "commit: aaaaaa0 -&gt; aaaaaa2"}},
		{"the trend", "/trend", 200, []string{
			"static-1k c=100 to nginx-best, cpu-ns/req", "static-1k c=100 to floor, cpu-ns/req", "20261122T120000Z-aaaaaa2"}},
		{"no such run", "/run?of=none", 404, []string{"file does not exist"}},
		{"a way out", "/run?of=../x", 404, []string{"file does not exist"}},
		{"a broken one", "/run?of=20261129T120000Z-bad", 404, []string{"file does not exist"}},
		{"no second", "/compare?old=20261120T120000Z-aaaaaa0", 404, []string{"file does not exist"}},
		{"no such page", "/etc", 404, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			body, status := get(row.path)
			require.Equal(t, row.status, status)
			for _, want := range row.want {
				assert.True(t, strings.Contains(body, want), want)
			}
		})
	}

	request, err := http.NewRequest(http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	request.Host = "lab.example:80"
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusForbidden, answer.StatusCode, "another name that leads here")

	empty := httptest.NewServer(site(t.TempDir()))
	defer empty.Close()
	server = empty
	body, _ := get("/")
	require.Contains(t, body, "There is no run yet")
	body, _ = get("/trend")
	require.Contains(t, body, "No run has Atlas beside another server yet.")
}

// It listens on this machine alone, and ends when it is told to.
func TestServeListens(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:80", "nonsense"} {
		require.Error(t, serveRuns(t.Context(), io.Discard, address, t.TempDir()), address)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveRuns(ctx, writer, "127.0.0.1:0", t.TempDir()) }()
	line := make([]byte, 4096)
	n, err := reader.Read(line)
	require.NoError(t, err)
	answer, err := http.Get(regexp.MustCompile(`http://\S+`).FindString(string(line[:n])))
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusOK, answer.StatusCode)
	cancel()
	require.NoError(t, <-ended)
}

func TestServeInBrowser(t *testing.T) {
	skipShort(t)
	server := httptest.NewServer(site(storedRuns(t)))
	defer server.Close()
	b := browse(t)
	for _, scheme := range []string{"dark", "light"} {
		b.screen(360, 800, scheme)
		for _, path := range []string{
			"/", "/trend", "/gate?of=20261126T120000.000Z-gate-bbbbbbb",
			"/run?of=20261121T120000Z-aaaaaa1", "/compare?old=20261120T120000Z-aaaaaa0&new=20261122T120000Z-aaaaaa2",
		} {
			b.do(chromedp.Navigate(server.URL + path))
			b.inspect(scheme)
			b.picture("serve-" + scheme + "-" + regexp.MustCompile(`\W.*`).ReplaceAllString(path[1:], ""))
		}
	}
	assert.Contains(t, eval[string](b, `document.getElementById("outcome").textContent`), "regression")
	b.do(chromedp.Navigate(server.URL + "/trend"))
	charts := eval[[]string](b, `[...document.querySelectorAll("figcaption")].map((c) => c.textContent)`)
	assert.True(t, slices.Contains(charts, "static-1k c=100 to nginx-best, cpu-ns/req"), "%q", charts)
	assert.Empty(t, b.said())
}
