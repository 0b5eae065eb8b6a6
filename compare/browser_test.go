package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/results"
)

// browserPatience is for a browser that starts on a busy machine.
const browserPatience = 180 * time.Second

// requireInstalled skips where there is no such program, and fails where CI has to
// have it.
func requireInstalled(t testing.TB, program string) {
	t.Helper()
	if path, _ := exec.LookPath(program); path != "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI is set, and %s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
}

func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short")
	}
}

// browser is a tab.
type browser struct {
	*testing.T
	tab context.Context

	marks int

	mu      sync.Mutex
	console []string
}

// browse opens a browser without a window, and a tab in it.
func browse(t *testing.T) *browser {
	t.Helper()
	skipShort(t)
	requireInstalled(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(browserPatience),
		chromedp.NoSandbox, // root has none, and the page is ours
		chromedp.DisableGPU,
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("disable-dev-shm-usage", true), // which containers have little of
	)
	within, cancel := context.WithTimeout(context.Background(), browserPatience)
	t.Cleanup(cancel)
	allocated, cancel := chromedp.NewExecAllocator(within, options...)
	t.Cleanup(cancel)
	b := &browser{T: t}
	b.tab, cancel = chromedp.NewContext(allocated)
	t.Cleanup(cancel)
	b.do() // which starts it
	go b.listen()
	b.said()
	return b
}

// listen keeps what the console says.
func (b *browser) listen() {
	for message, err := range chromedp.Console(b.tab) {
		if err != nil {
			return // the tab is closed
		}
		b.mu.Lock()
		b.console = append(b.console, fmt.Sprintf("%s: %s %s", message.Type, message.Text, message.URL))
		b.mu.Unlock()
	}
}

// said is what the console has said so far: it is asked to say one thing more.
func (b *browser) said() (lines []string) {
	b.Helper()
	b.marks++
	mark := fmt.Sprintf("mark %d", b.marks)
	b.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("console.info(%q)", mark)))
	require.Eventually(b, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		lines = slices.Clone(b.console)
		return strings.Contains(strings.Join(lines, "\n"), mark)
	}, browserPatience, 5*time.Millisecond)
	return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "info: mark ") })
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	require.NoError(b, chromedp.Do(b.tab, steps...))
}

// eval is the value of an expression.
func eval[T any](b *browser, expression string) T {
	b.Helper()
	value, err := chromedp.Run(b.tab, chromedp.Evaluate[T](expression))
	require.NoError(b, err)
	return value
}

// picture is kept where somebody wants to look at the page: SCREENSHOTS=folder.
func (b *browser) picture(name string) {
	b.Helper()
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(b.tab, chromedp.FullScreenshot(100))
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644))
}

// screen is a window of a size, and the colours that its user likes.
func (b *browser) screen(width, height int64, scheme string) {
	b.Helper()
	b.do(chromedp.EmulateViewport(width, height))
	_, err := chromedp.Call(b.tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(b, err)
}

// inspect holds the page that is shown to what every page must be.
func (b *browser) inspect(scheme string) {
	b.Helper()
	assert.LessOrEqual(b, eval[int](b, "document.documentElement.scrollWidth"),
		eval[int](b, "document.documentElement.clientWidth"), "the page scrolls sideways")
	// Every chart has a size and something of a subject in it, and no text of it is cut off.
	assert.Empty(b, eval[[]string](b, `[...document.querySelectorAll("figure")].filter((f) => {
		const svg = f.querySelector("svg"), box = svg && svg.getBoundingClientRect();
		const drawn = svg && [...svg.querySelectorAll("path")].some((p) => {
			const r = p.getBoundingClientRect();
			return /--s\d/.test(p.getAttribute("style")) && r.width + r.height > 1;
		});
		const cut = svg && [...svg.querySelectorAll("text")].some((t) => {
			const r = t.getBoundingClientRect();
			return r.left < box.left - 1 || r.right > box.right + 1;
		});
		return !drawn || cut || box.width < 200 || box.height < 50;
	}).map((f) => f.querySelector("figcaption").textContent)`))
	paper := eval[[]int](b, `getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)`)
	letters := eval[[]int](b, `(() => { const t = document.querySelector("svg text");
		return t ? getComputedStyle(t).fill.match(/\d+/g).map(Number) : [] })()`)
	assert.Equal(b, scheme == "dark", paper[0] < 128, "paper %v", paper)
	if len(letters) > 0 {
		assert.Equal(b, scheme == "dark", letters[0] > 128, "letters of the charts: %v", letters)
	}
	assert.Zero(b, eval[int](b, `performance.getEntriesByType("resource").filter((r) => !r.name.startsWith("data:")).length`),
		"the page fetches something")
}

// shown finds a figure by its load, its subject and the head of its column.
func (b *browser) shown(section string, cells map[string]string, head string) string {
	b.Helper()
	var tests []string
	for column, text := range cells {
		tests = append(tests, fmt.Sprintf(`cell(%q) === %q`, column, text))
	}
	slices.Sort(tests)
	return eval[string](b, fmt.Sprintf(`(() => {
		for (const table of document.querySelectorAll("#%s table")) {
			const heads = [...table.tHead.rows[0].cells].map((c) => c.textContent);
			for (const row of table.tBodies[0].rows) {
				const cell = (head) => heads.includes(head) ? row.cells[heads.indexOf(head)].textContent : null;
				if (%s && cell(%q) !== null) return cell(%[3]q);
			}
		}
		return "nothing";
	})()`, section, strings.Join(tests, " && "), head))
}

// writeLatencies puts histograms beside a made-up run.
func writeLatencies(t *testing.T, bench string) {
	f, err := results.Open(bench)
	require.NoError(t, err)
	var all []results.Histogram
	for _, s := range f.Samples {
		if s.Name.Mode != "open" {
			continue
		}
		for kind, unit := range map[results.Latency]string{results.Corrected: results.Mean, results.Raw: results.RawMean} {
			counts := hdrhistogram.New(1000, int64(time.Minute), 3)
			for i := range 2000 {
				slow := 1 + 0.01/(1-float64(i)/2000)
				require.NoError(t, counts.RecordValue(int64(s.Values[unit]*slow)))
			}
			all = append(all, results.Histogram{Name: s.Name, Latency: kind, At: time.Unix(1764000000, 0), Counts: counts})
		}
	}
	var text bytes.Buffer
	require.NoError(t, results.WriteHistograms(&text, all))
	require.NoError(t, os.WriteFile(results.Beside(bench, ".hlog"), text.Bytes(), 0o644))
}

// middle is computed here as well, so that the page is not held to itself.
func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// The page is a file, which a browser shows without a word on its console, with
// every chart, on a phone and in the dark, and with the figures of the results.
func TestReportInBrowser(t *testing.T) {
	skipShort(t)
	dir := t.TempDir()
	bench := filepath.Join(dir, "results.bench")
	write(t, bench, spec{rounds: 7, subjects: withFloor, slower: 1, counted: true, commit: "aaaaaaa"})
	writeLatencies(t, bench)
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(&stdout, &stderr, []string{"report", bench}), &stderr)
	page := filepath.Join(dir, "report.html")
	require.Equal(t, "report: "+page+"\n", stdout.String())
	f, err := results.Open(bench)
	require.NoError(t, err)

	b := browse(t)
	address := (&url.URL{Scheme: "file", Path: page}).String()
	for _, scheme := range []string{"dark", "light"} {
		for _, width := range []int64{360, 1280} {
			b.screen(width, 800, scheme)
			b.do(chromedp.Navigate(address))
			b.inspect(scheme)
			b.picture(fmt.Sprintf("report-%s-%d", scheme, width))
		}
	}
	assert.Empty(t, b.said())
	b.requireFigures(f)
	b.requireDots(f)
}

// requireFigures compares tables with the file.
func (b *browser) requireFigures(f *results.File) {
	sections := map[string]string{"static-1k": "static-file-serving--1kb-file", "static-1m": "static-1m"}
	for _, name := range f.Names() {
		section, ok := sections[name.Scenario]
		if !ok {
			continue
		}
		cells := map[string]string{"Connections": fmt.Sprint(name.Conns), "Subject": name.Subject}
		assert.Equal(b, fmt.Sprintf("%.1f us", middle(f.Values(name, results.CPU))/1e3), b.shown(section, cells, "CPU/request"), name)
		assert.Equal(b, fmt.Sprintf("%.2f ms", middle(f.Values(name, results.P99))/1e6), b.shown(section, cells, "p99"), name)
		if name.Scenario == "static-1k" {
			counted := fmt.Sprintf("%.2f", f.Values(name, results.Syscalls)[0])
			assert.Equal(b, counted, b.shown(section, cells, "Syscalls/request"), name)
		}
		rate := strings.ReplaceAll(b.shown(section, cells, "Requests/s"), ",", "")
		assert.Equal(b, strconv.FormatFloat(middle(f.Values(name, results.Throughput)), 'f', 0, 64), rate, name)
		var ratios []float64
		best := f.Values(name.Of("nginx-best"), results.CPU)
		for i, v := range f.Values(name, results.CPU) {
			ratios = append(ratios, v/best[i])
		}
		assert.Equal(b, fmt.Sprintf("%.2fx", middle(ratios)), b.shown(section, cells, "to nginx-best"), name)
	}
	assert.Equal(b, f.Setting("kernel"), b.shown("machine", map[string]string{"Fact": "kernel"}, "Value"))
}

// requireDots compares where the dots of a chart are with the file: on one
// scale, as far from the left as the measurement is from nothing.
func (b *browser) requireDots(f *results.File) {
	const inFigure = `[...document.querySelectorAll("#static-file-serving--1kb-file figure")]
		.find((f) => f.querySelector("figcaption").textContent === "CPU per request, 100 connections")`
	dots := eval[[][2]float64](b, `(() => { const svg = `+inFigure+`.querySelector("svg");
		return [...svg.querySelectorAll("path")].filter((p) => / ?A/.test(p.getAttribute("d"))).map((p) => {
			const r = p.getBoundingClientRect();
			return [r.left + r.width / 2, r.top + r.height / 2];
		}); })()`)
	var values []float64
	for _, name := range f.Names() {
		if name.Scenario == "static-1k" && name.Conns == 100 {
			values = append(values, f.Values(name, results.CPU)...)
		}
	}
	require.Len(b, dots, len(values), "a dot for each sample")
	low, high := slices.Index(values, slices.Min(values)), slices.Index(values, slices.Max(values))
	scale := (dots[high][0] - dots[low][0]) / (values[high] - values[low])
	for i, v := range values {
		assert.InDelta(b, dots[low][0]+scale*(v-values[low]), dots[i][0], 0.5, "dot %d", i)
	}
	assert.Greater(b, math.Abs(scale*values[high]), 50.0, "pixels from left to right")
}
