package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
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

// browser is a tab with the status page.
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

// said is what the console has said so far: it is asked to say one thing more, until that
// comes, as listen may not have begun.
func (b *browser) said() (lines []string) {
	b.Helper()
	b.marks++
	mark := fmt.Sprintf("mark %d", b.marks)
	say := chromedp.Evaluate[chromedp.Void](fmt.Sprintf("console.info(%q)", mark))
	require.Eventually(b, func() bool {
		if err := chromedp.Do(b.tab, say); err != nil {
			return false
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		lines = slices.Clone(b.console)
		return strings.Contains(strings.Join(lines, "\n"), mark)
	}, browserPatience, 20*time.Millisecond)
	return slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "info: mark ") })
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	require.NoError(b, chromedp.Do(b.tab, steps...))
}

// open shows a page of the listener and waits until it has figures.
func (b *browser) open(url string) {
	b.Helper()
	b.do(chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("#requests")))
}

// awaits waits until an expression is true.
func (b *browser) awaits(expression string) {
	b.Helper()
	b.do(chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingTimeout(browserPatience)))
}

// eval is the value of an expression.
func eval[T any](b *browser, expression string) T {
	b.Helper()
	value, err := chromedp.Run(b.tab, chromedp.Evaluate[T](expression))
	require.NoError(b, err)
	return value
}

// shown are the rows of a table of the page, by the texts of its columns.
func (b *browser) shown(id string) (rows []map[string]string) {
	b.Helper()
	return eval[[]map[string]string](b, fmt.Sprintf(`(() => {
		const names = [...document.querySelectorAll("#%s thead th")].map((n) => n.textContent);
		return [...document.querySelectorAll("#%s tbody tr")].map((row) =>
			Object.fromEntries([...row.cells].map((cell, i) => [names[i], cell.textContent])));
	})()`, id, id))
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

// fits holds the page to the width of the window: only tables may be scrolled.
func (b *browser) fits() {
	b.Helper()
	assert.LessOrEqual(b, eval[int](b, "document.documentElement.scrollWidth"),
		eval[int](b, "document.documentElement.clientWidth"), "the page scrolls sideways")
}

// What an operator sees is what /status says, and goes on by itself.
func TestPageInBrowser(t *testing.T) {
	skipShort(t)
	answers := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "well") }
	first, second := origin(t, answers), origin(t, answers)
	r := launch(t, looptest.ProxyConfig(loop.Netpoll, []string{first, second, "127.0.0.1:1"},
		"[upstreams.health_check]\ninterval = \"20ms\"\nfall = 1"))
	r.visit("/", "/", "/")
	require.Equal(t, 200, r.ask("POST", "/upstreams/up1/drain", "").Status)
	r.eventually("a check to fail", func() bool { return r.status().Upstreams[2].State == "down" })
	b := browse(t)
	b.screen(1280, 900, "light")
	b.open("http://" + r.Addr() + "/")
	assert.Equal(t, "Atlas: ready", eval[string](b, "document.title"))
	assert.Equal(t, "ready", eval[string](b, `document.getElementById("state").textContent`))

	// Nothing is under way now, so both say the same.
	said := r.status()
	rows := b.shown("upstreams")
	require.Len(t, rows, len(said.Upstreams))
	for i, u := range said.Upstreams {
		row := rows[i]
		assert.Equal(t, u.Name, row["name"])
		assert.Equal(t, u.Address, row["address"])
		assert.Equal(t, u.State, row["state"])
		assert.Equal(t, fmt.Sprint(u.Requests), row["requests"])
		assert.Equal(t, fmt.Sprint(u.Weight), row["weight"])
		assert.Equal(t, fmt.Sprint(u.InFlight), row["in flight"])
		assert.Equal(t, fmt.Sprint(u.Failures), row["failures"])
	}
	assert.Equal(t, []string{"up", "drained", "down"}, []string{rows[0]["state"], rows[1]["state"], rows[2]["state"]})
	assert.Contains(t, rows[2]["last check"], "refused")
	assert.Equal(t, fmt.Sprint(said.Counters["requests_total"]), eval[string](b, `document.getElementById("requests").textContent`))
	workers := b.shown("workers")
	require.Len(t, workers, len(said.Workers))
	for i, w := range said.Workers {
		assert.Equal(t, fmt.Sprint(w.Requests), workers[i]["requests"])
		assert.Equal(t, fmt.Sprint(w.Accepted), workers[i]["accepted"])
		assert.Equal(t, fmt.Sprint(w.Handed), workers[i]["handed over"])
	}
	listeners := b.shown("listeners")
	require.Len(t, listeners, 1)
	assert.Equal(t, r.server.Addr(), listeners[0]["address"])
	require.Len(t, b.shown("latency"), len(said.Latency))
	for i, l := range said.Latency {
		assert.Equal(t, fmt.Sprint(l.Count), b.shown("latency")[i]["count"], l.Of)
	}
	b.picture("wide")

	// It asks again.
	r.visit("/", "/")
	b.awaits(`document.getElementById("requests").textContent === "5"`)
	require.Equal(t, 200, r.ask("POST", "/upstreams/up1/enable", "").Status)
	b.awaits(`document.querySelectorAll("#upstreams tbody tr")[1].textContent.includes("drained") === false`)
	assert.Empty(t, b.said())

	// Atlas that has ended is said to be so.
	require.NoError(t, r.Close())
	b.awaits(`document.getElementById("problem").checkVisibility()`)
	assert.Contains(t, eval[string](b, `document.getElementById("problem").textContent`), "does not answer")
	b.picture("gone")
}

// The page is for a telephone at night as well, and names in it are text whatever
// they say.
func TestPageOnOtherScreens(t *testing.T) {
	skipShort(t)
	evil := `<img src=x onerror="document.title='cracked'"><script>document.title='cracked'</script>`
	hostile, err := json.Marshal(evil)
	require.NoError(t, err)
	long := strings.Repeat("long-", 20)
	cert, key := certificate(t, t.TempDir(), time.Now().Add(5*24*time.Hour))
	up := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") })
	text := strings.Replace(looptest.ProxyConfig(loop.Netpoll, []string{up, up}), `"up0"`, string(hostile), 1)
	text = strings.Replace(text, `"up1"`, `"`+long+`"`, 1)
	r := launch(t, text+fmt.Sprintf("[listen.tls]\ncert = %q\nkey = %q\n", cert, key))
	file := filepath.Join(t.TempDir(), "<img src=x onerror=alert(1)>.toml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "[listen]\n%q = 1\n", evil), 0o644))
	r.follow(file, nil)
	require.Error(t, r.server.Reload(evil))
	b := browse(t)
	for _, scheme := range []string{"dark", "light"} {
		b.screen(360, 740, scheme)
		b.open("http://" + r.Addr() + "/")
		b.fits()
		b.picture("narrow-" + scheme)
		paper := eval[[]int](b, `getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)`)
		require.GreaterOrEqual(t, len(paper), 3)
		assert.Equal(t, scheme == "dark", paper[0] < 128, "%s: %v", scheme, paper)
		assert.Equal(t, evil, b.shown("upstreams")[0]["name"])
		assert.Equal(t, long, b.shown("upstreams")[1]["name"])
		config := eval[string](b, `document.getElementById("config").textContent`)
		for _, text := range []string{filepath.Base(file), "asked by " + evil, "unknown key `<img src=x onerror="} {
			assert.Contains(t, config, text)
		}
		assert.Zero(t, eval[int](b, `document.querySelectorAll("main img, main script").length`))
		assert.NotContains(t, eval[string](b, "document.title"), "cracked")
		assert.Less(t, eval[float64](b, lowestContrast), 22.0)
		assert.GreaterOrEqual(t, eval[float64](b, lowestContrast), 4.5, "WCAG 2.1 AA, 1.4.3")
	}
	b.screen(1280, 900, "dark")
	b.fits()
	b.picture("wide-dark")
	assert.Empty(t, b.said())
}

// lowestContrast is that of the text which is the hardest to read (WCAG 2.1, contrast
// ratio).
const lowestContrast = `(() => {
	const luminance = (text) => {
		const c = text.match(/[\d.]+/g).map(Number).slice(0, 3).map((v) => v / 255)
			.map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
		return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
	};
	const behind = (n) => {
		for (; n; n = n.parentElement) {
			const paper = getComputedStyle(n).backgroundColor;
			if (!/^rgba\(.*, 0\)$/.test(paper) && paper !== "transparent") return paper;
		}
		return "rgb(255, 255, 255)";
	};
	let lowest = 21;
	for (const n of document.querySelectorAll("body *")) {
		if (!n.checkVisibility() || ![...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim())) continue;
		const [a, b] = [luminance(getComputedStyle(n).color), luminance(behind(n))].sort((x, y) => y - x);
		lowest = Math.min(lowest, (a + 0.05) / (b + 0.05));
	}
	return lowest;
})()`
