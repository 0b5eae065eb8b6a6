package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// skipShort skips what takes seconds.
func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("go test -short")
	}
}

// changesInRow is how many reloads, or upgrades, a test makes in a row.
func changesInRow(t testing.TB) int {
	if n, err := strconv.Atoi(os.Getenv("ATLAS_UPGRADES")); err == nil {
		return n
	}
	return 3
}

// workersInTurn are those of each process after the first, which has 2.
func workersInTurn(i int) int { return []int{3, 1, 4, 2}[i%4] }

// shore is what the clients of these tests need: files, an authority, and two
// certificates of it.
type shore struct {
	t           testing.TB
	root, other string // with the same files
	bodies      map[string][]byte
	certs       [2]string
	keys        [2]string
	tls         *tls.Config
}

func newShore(t testing.TB) *shore {
	s := &shore{t: t}
	s.root, s.bodies = files(t)
	s.other, _ = files(t)
	authority := looptest.NewAuthority(t)
	for i := range s.certs {
		leaf := authority.Issue(t, looptest.Leaf{Names: []string{"a.test"}})
		s.certs[i], s.keys[i] = looptest.WritePair(t, t.TempDir(), "a", leaf)
	}
	s.tls = &tls.Config{
		RootCAs: authority.Pool, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
	return s
}

// either calls f without TLS, and with it.
func (s *shore) either(t *testing.T, f func(t *testing.T, secure *tls.Config)) {
	t.Run("plain", func(t *testing.T) { f(t, nil) })
	t.Run("tls", func(t *testing.T) { f(t, s.tls) })
}

// text is the i-th configuration: other files, another certificate, other bounds.
func (s *shore) text(engine loop.Engine, workers, i int, secure bool) string {
	more := fmt.Sprintf("[timeouts]\nidle = \"%ds\"\n[limits]\nheader_bytes = %d\n", 60+i, 8192+i)
	if secure {
		more += fmt.Sprintf("[listen.tls]\ncert = %q\nkey = %q\n", s.certs[i%2], s.keys[i%2])
	}
	root := []string{s.root, s.other}[i/2%2]
	text := staticText(engine, root, workers, more)
	return strings.Replace(text, "[listen]\n", fmt.Sprintf("[listen]\nbacklog = %d\n", 500+i), 1)
}

// Reload after reload, and upgrade after upgrade, with more workers and fewer, by
// signal and by command, while clients ask: no request fails, none is reset.
func TestUpgradeUnderLoad(t *testing.T) {
	skipShort(t)
	if os.Getenv("ATLAS_UPGRADES") == "" { // else it is compared with others, and wants the machine alone
		t.Parallel()
	}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := newShore(t)
		s.either(t, func(t *testing.T, secure *tls.Config) {
			for _, row := range []struct {
				what   string
				change func(l *lineage, i int)
			}{
				{"reload", func(l *lineage, i int) {
					l.configure(s.text(engine, 2, i, secure != nil))
					l.reload()
				}},
				{"upgrade", func(l *lineage, i int) {
					l.configure(s.text(engine, workersInTurn(i), i, secure != nil))
					l.upgrade(i%3 == 2)
				}},
			} {
				t.Run(row.what, func(t *testing.T) {
					l := startLineage(t, s.text(engine, 2, 1, secure != nil))
					p := press(l.address, secure, s.bodies)
					for i := range changesInRow(t) {
						row.change(l, i)
						p.another(t)
					}
					p.end()
					p.record(t, row.what, secure != nil, "atlas-"+strings.ReplaceAll(string(engine), "_", "-"))
					assert.Zero(t, p.failures.Load(), "the first: %v", p.first)
					assert.Zero(t, p.resets.Load())
					l.ends()
					assert.NotContains(t, l.log(), "msg=\"no upgrade")
					assert.NotContains(t, l.log(), "cut what had not ended")
					left, err := filepath.Glob(l.path("s*"))
					require.NoError(t, err)
					assert.Empty(t, left, "the socket is gone with the last process")
				})
			}
		})
	})
}

// another waits until clients have asked between times, which they do in vain of a
// server that fails.
func (p *pressure) another(t testing.TB) {
	t.Helper()
	before := p.requests.Load() + p.failures.Load()
	for end := time.Now().Add(3 * patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if p.requests.Load()+p.failures.Load() >= before+between {
			return
		}
	}
	t.Error("clients wait in vain")
}

// between is how often clients ask from one change to the next.
const between = 10 * pressing

// recordOnce is whether this run has begun its file of results.
var recordOnce sync.Once

// record logs what became of a load, and keeps it in the file of ATLAS_UPGRADES_FILE
// in the format of Go's benchmarks.
func (p *pressure) record(t testing.TB, what string, secure bool, subject string) {
	t.Helper()
	with := "off"
	if secure {
		with = "on"
	}
	line := fmt.Sprintf("BenchmarkInPlace/change=%s/tls=%s/subject=%s %d %d requests %d connections %d failures %d stale %d resets",
		what, with, subject, changesInRow(t),
		p.requests.Load(), p.connections.Load(), p.failures.Load(), p.stale.Load(), p.resets.Load())
	t.Log(line)
	if p.first != nil {
		t.Log("the first failure:", p.first)
	}
	file := os.Getenv("ATLAS_UPGRADES_FILE")
	if file == "" {
		return
	}
	recordOnce.Do(func() { require.NoError(t, os.WriteFile(file, []byte(recordHead(t)), 0o644)) })
	out, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = fmt.Fprintln(out, line)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

// recordHead is what is true of the whole file.
func recordHead(t testing.TB) string {
	var name syscall.Utsname
	require.NoError(t, syscall.Uname(&name))
	var kernel []byte
	for _, c := range name.Release {
		if c != 0 {
			kernel = append(kernel, byte(c))
		}
	}
	head := "Unit requests better=higher\nUnit failures better=lower assume=exact\n" +
		"Unit stale better=lower assume=exact\nUnit resets better=lower assume=exact\n"
	for _, setting := range [][2]string{
		{"goos", runtime.GOOS}, {"goarch", runtime.GOARCH}, {"cpu", processor(t)},
		{"cores", strconv.Itoa(runtime.NumCPU())}, {"kernel", string(kernel)}, {"go", runtime.Version()},
		{"nginx", nginxVersion()}, {"commit", os.Getenv("ATLAS_COMMIT")},
		{"date", time.Now().UTC().Format(time.RFC3339)},
	} {
		if setting[1] != "" {
			head += setting[0] + ": " + setting[1] + "\n"
		}
	}
	return head + "\n"
}

// processor is the model of the first core.
func processor(t testing.TB) string {
	text, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if key, value, is := strings.Cut(line, ":"); is && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// nginxVersion is empty where there is none.
func nginxVersion() string {
	out, err := exec.Command("nginx", "-v").CombinedOutput()
	_, version, is := strings.Cut(strings.TrimSpace(string(out)), "nginx/")
	if err != nil || !is {
		return ""
	}
	return version
}
