package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// patience bounds what has to happen; nothing here is measured.
const patience = 20 * time.Second

// TestMain runs the tests and looks whether they left something open. A child
// process of a test begins here as well.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		os.Exit(playRole(role))
	}
	drainQuiet = 500 * time.Millisecond
	looptest.KeepThread()
	fds, goroutines := descriptors(), runtime.NumGoroutine()
	status := m.Run()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		nowFds, nowGoroutines := descriptors(), runtime.NumGoroutine()
		if nowFds <= fds && nowGoroutines <= goroutines {
			break
		}
		if time.Now().After(end) {
			stacks := make([]byte, 1<<16)
			stacks = stacks[:runtime.Stack(stacks, true)]
			fmt.Fprintf(os.Stderr, "leak: %d descriptors, were %d; %d goroutines, were %d\n%s\n",
				nowFds, fds, nowGoroutines, goroutines, stacks)
			os.Exit(1)
		}
	}
	os.Exit(status)
}

// descriptors counts the open ones, but for those that Go's poller makes when
// it is first used and keeps for ever.
func descriptors() (n int) {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		target, _ := os.Readlink("/dev/fd/" + entry.Name())
		if !strings.Contains(target, "eventpoll") && !strings.Contains(target, "[eventfd]") {
			n++
		}
	}
	return n
}

// skipShort skips what takes seconds.
func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("go test -short")
	}
}

// logBook is a log that can be read while it is written.
type logBook struct{ looptest.Printed }

// lines are the records that have a text in them.
func (b *logBook) lines(with string) (found []string) {
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, with) {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}

func (b *logBook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// running is a server under test.
type running struct {
	*Server
	t    testing.TB
	log  *logBook
	once sync.Once
}

func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	cfg, _, err := config.Parse("atlas.toml", []byte(text))
	require.NoError(t, err)
	return cfg
}

// launch starts a server, which ends with the test.
func launch(t testing.TB, text string, wrap func(exchange.Handler) exchange.Handler) *running {
	t.Helper()
	return launchWith(t, text, wrap, Estate{})
}

func launchWith(t testing.TB, text string, wrap func(exchange.Handler) exchange.Handler, e Estate) *running {
	t.Helper()
	if wrap == nil {
		wrap = func(h exchange.Handler) exchange.Handler { return h }
	}
	r := &running{t: t, log: new(logBook)}
	cfg := parse(t, text)
	if !strings.Contains(text, "[access_log]") {
		cfg.AccessLog.Format = "off" // or the test's output is full of it
	}
	s, err := startWith(cfg, r.log.logger(), wrap, e)
	require.NoError(t, err)
	r.Server = s
	t.Cleanup(func() { r.shutdown(patience) })
	return r
}

// listeners are those of now.
func (r *running) listeners() []*loop.Listener { return r.now.Load().door.listeners }

// shutdown ends the server once and reports whether everything ended by itself.
func (r *running) shutdown(within time.Duration) (clean bool) {
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		clean = r.Shutdown(ctx)
	})
	return clean
}

// origin is an upstream of net/http.
func origin(t testing.TB, handler http.HandlerFunc) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &http.Server{Handler: handler}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln) // it ends when it is closed
	}()
	t.Cleanup(func() {
		assert.NoError(t, s.Close())
		<-served
	})
	return ln.Addr().String()
}

// client is a connection to a server that speaks bytes.
type client struct {
	*net.TCPConn
	t  testing.TB
	in *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // many tests have closed it
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return &client{c.(*net.TCPConn), t, bufio.NewReader(c)}
}

func (r *running) dial() *client {
	r.t.Helper()
	return dial(r.t, r.Addr())
}

func (c *client) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(c.t, err)
}

// receive reads one response with its body.
func (c *client) receive() (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	require.NoError(c.t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return resp, string(body)
}

// get asks for a path and wants 200.
func (c *client) get(path string) (body string) {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, body := c.receive()
	require.Equal(c.t, 200, resp.StatusCode, body)
	return body
}

// ends asserts that the server ends the connection, in order, with nothing more.
func (c *client) ends() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	assert.NoError(c.t, err)
	assert.Empty(c.t, string(rest))
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestStatic(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, looptest.StaticConfig(t, engine), nil)
		assert.Equal(t, engine, s.Engine())
		for range 8 { // workers share the connections
			assert.Equal(t, "hello", s.dial().get("/a"))
		}
		lines := s.log.lines("")
		require.Len(t, lines, 1, "one line says all: %q", lines)
		assert.Contains(t, lines[0], `level=INFO msg=listening address=`+s.Addr()+` mode=static workers=2 engine=`+string(engine))
		assert.True(t, s.shutdown(patience))
		_, err := net.Dial("tcp", s.Addr())
		assert.Error(t, err, "the port is free again")
		assert.Len(t, s.log.lines(""), 1)
	})
}

func TestProxy(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s %s for %s", r.Method, r.URL.Path, r.Header.Get("X-Forwarded-For"))
		})
		for _, strategy := range []string{"round_robin", "random", "least_connections"} {
			s := launch(t, looptest.ProxyConfig(engine, []string{up, up}, "[routing]", fmt.Sprintf("strategy = %q", strategy)), nil)
			c := s.dial()
			for range 4 {
				assert.Equal(t, "GET /x for 127.0.0.1", c.get("/x"))
			}
			assert.True(t, s.shutdown(patience))
		}
	})
}

// An upstream that is named and one behind IPv6 are found.
func TestProxyToNamedUpstream(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })
		_, port, _ := net.SplitHostPort(up)
		s := launch(t, looptest.ProxyConfig(engine, []string{"localhost:" + port}), nil)
		assert.Equal(t, "hello", s.dial().get("/"))
	})
}
