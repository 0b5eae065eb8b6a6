package server

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// askers load a server until they are stopped. One request that fails, or a
// connection that ends before its time, is a failure of the test.
type askers struct {
	t      testing.TB
	dial   func() (net.Conn, error)
	asked  atomic.Int64
	ending atomic.Bool
	all    sync.WaitGroup
}

// ask makes requests on one connection after the other, so many on each.
func (a *askers) ask(path string, size, each int) {
	a.all.Go(func() {
		for !a.ending.Load() {
			c, err := a.dial()
			if !assert.NoError(a.t, err) {
				return
			}
			in := bufio.NewReader(c)
			for range each {
				if !a.get(c, in, path, size) {
					return
				}
			}
			_ = c.Close()
		}
	})
}

func (a *askers) get(c net.Conn, in *bufio.Reader, path string, size int) bool {
	_ = c.SetDeadline(time.Now().Add(patience)) // it would show below
	_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	if !assert.NoError(a.t, err) {
		return false
	}
	resp, err := http.ReadResponse(in, nil)
	if !assert.NoError(a.t, err) {
		return false
	}
	n, err := io.Copy(io.Discard, resp.Body)
	a.asked.Add(1)
	return assert.NoError(a.t, err) && assert.Equal(a.t, 200, resp.StatusCode) && assert.EqualValues(a.t, size, n)
}

// stop waits until the last of them has its answer.
func (a *askers) stop() {
	a.ending.Store(true)
	a.all.Wait()
}

const small, large = 1 << 10, 1 << 20

// loaded asks for small and large answers, on connections that are kept and new ones.
func loaded(t testing.TB, dial func() (net.Conn, error)) *askers {
	a := &askers{t: t, dial: dial}
	for _, each := range []int{1, 50} {
		a.ask("/small", small, each)
		a.ask("/small", small, each)
		a.ask("/large", large, each)
	}
	return a
}

func sized(w http.ResponseWriter, r *http.Request) {
	size := small
	if r.URL.Path == "/large" {
		size = large
	}
	_, _ = io.WriteString(w, strings.Repeat("x", size))
}

// Reloads in a row, of all that can change, and not one request is lost. Fifty of
// them have their place in make upgrades.
func TestReloadUnderLoad(t *testing.T) {
	reloads := 20
	if testing.Short() {
		reloads = 10 // each configuration twice
	}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		root := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(root, "small"), make([]byte, small), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(root, "large"), make([]byte, large), 0o644))
		ups := []string{origin(t, sized), origin(t, sized), origin(t, sized)}
		static := looptest.StaticConfig(t, engine)
		static = static[:strings.Index(static, "root = ")] + fmt.Sprintf("root = %q\n", root)
		configs := func(port string) (texts []string) {
			for i, text := range []string{
				looptest.ProxyConfig(engine, ups[:1]),
				looptest.ProxyConfig(engine, ups, "[routing]\nstrategy = \"least_connections\"\nretries = 1\n"),
				static,
				looptest.ProxyConfig(engine, ups[1:], "[timeouts]\nidle = \"9s\"\nheader = \"9s\"\n[limits]\nheader_bytes = 2048\n"),
				looptest.ProxyConfig(engine, ups[:2], "[routing]\nstrategy = \"ip_hash\"\n"),
			} {
				text = strings.Replace(text, "workers = 2", fmt.Sprintf("workers = 2\nbacklog = %d", 500+i), 1)
				texts = append(texts, strings.Replace(text, "port = 0", "port = "+port, 1))
			}
			return texts
		}
		for _, row := range []struct {
			name, more string
			wrap       func(net.Conn) net.Conn
		}{
			{"plain", "", func(c net.Conn) net.Conn { return c }},
			{"TLS", "\n[listen.tls]\n" + k.pair("a", "a.test"), func(c net.Conn) net.Conn {
				return tls.Client(c, &tls.Config{RootCAs: k.Pool, ServerName: "a.test"})
			}},
		} {
			t.Run(row.name, func(t *testing.T) {
				texts := configs("0")
				s := launch(t, texts[0]+row.more, nil)
				a := loaded(t, func() (net.Conn, error) {
					c, err := net.DialTimeout("tcp", s.Addr(), patience)
					if err != nil {
						return nil, err
					}
					return row.wrap(c), nil
				})
				for i := range reloads {
					before := a.asked.Load()
					require.NoError(t, s.use(texts[(i+1)%len(texts)]+row.more))
					eventually(t, "requests", func() bool { return a.asked.Load() >= before+10 || t.Failed() })
				}
				a.stop()
				assert.EqualValues(t, reloads, s.Reloads().Applied)
				assert.Empty(t, s.log.lines("exchange failed"))
				assert.Empty(t, s.log.lines("level=ERROR"))
			})
		}
	})
}

// Reloads leave nothing behind: no descriptor, no goroutine, no memory.
func TestReloadLeaks(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		k := newKeys(t)
		up := origin(t, sized)
		check := "[upstreams.health_check]\ninterval = \"50ms\"\n"
		secure := "[listen.tls]\n" + k.pair("a", "a.test")
		texts := []string{
			looptest.ProxyConfig(engine, []string{up}, check, secure),
			looptest.StaticConfig(t, engine),
			looptest.ProxyConfig(engine, []string{strings.Replace(up, "127.0.0.1", "localhost", 1), up}, check),
			strings.Replace(looptest.StaticConfig(t, engine), "precompressed", "", 1) + secure,
		}
		s := launch(t, texts[0], nil)
		c := s.client(k)
		reload := func(times int) (heap uint64) {
			for i := range times {
				require.NoError(t, s.use(texts[i%len(texts)]))
				if i%50 == 0 {
					require.NoError(t, c(i%len(texts)))
				}
			}
			require.NoError(t, s.use(texts[1]))
			var memory runtime.MemStats
			for range 3 {
				runtime.GC()
			}
			runtime.ReadMemStats(&memory)
			return memory.HeapAlloc
		}
		times := 500
		if testing.Short() {
			times = 100
		}
		heap := reload(20)
		running := func() int { // but for tasks, some of which a worker keeps for later
			n := runtime.NumGoroutine()
			for _, w := range s.workers {
				n -= int(w.Counters().Tasks.Load())
			}
			return n
		}
		fds, goroutines := descriptors(), running()
		after := reload(times)
		eventually(t, "everything to be released", func() bool {
			return descriptors() <= fds && running() <= goroutines
		})
		assert.Less(t, after, heap+4<<20, "it was %d", heap)
	})
}

// client asks once, of a configuration of TestReloadLeaks.
func (r *running) client(k *keys) func(i int) error {
	return func(i int) error {
		client, scheme := k.client("a.test"), "http://"
		defer client.CloseIdleConnections()
		if i == 0 || i == 3 {
			scheme = "https://"
		}
		resp, err := client.Get(scheme + r.Addr() + "/a")
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
}
