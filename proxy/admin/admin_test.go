package admin

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/config"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/server"
)

func TestHealthAndReadiness(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		hold, asked := make(chan struct{}), make(chan struct{})
		up := origin(t, func(http.ResponseWriter, *http.Request) { close(asked); <-hold })
		cfg := parse(t, looptest.ProxyConfig(engine, []string{up}))
		r := prepare(t, cfg)
		ready := func(status int, text string) {
			t.Helper()
			got := r.get("/readyz")
			assert.Equal(t, status, got.Status)
			assert.Equal(t, text+"\n", got.Text)
		}
		ready(503, "starting")
		assert.Equal(t, "starting\n", r.get("/healthz").Text)
		assert.Equal(t, "starting", r.status().State)
		assert.Equal(t, 503, r.ask("POST", "/upstreams/up0/drain", "").Status)

		s, err := server.Start(cfg, r.options.Log)
		require.NoError(t, err)
		r.server = s
		r.Attach(s)
		ready(200, "ready")
		assert.Equal(t, reply{200, nil, "ok\n"}, bare(r.get("/healthz")))

		served := make(chan struct{})
		go func() {
			defer close(served)
			r.visit("/")
		}()
		<-asked
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.shutdown()
		}()
		r.eventually("it to be unready", func() bool { return r.get("/readyz").Status == 503 })
		ready(503, "draining")
		assert.Equal(t, 200, r.get("/healthz").Status, "it is alive while it drains")
		assert.Equal(t, "draining", r.status().State)
		assert.Zero(t, r.scrape()["atlas_ready"])
		close(hold)
		<-served
		<-ended
		assert.Equal(t, 200, r.get("/healthz").Status, "workers that have ended are no sick ones")
		ready(503, "draining")
	})
}

func bare(r reply) reply {
	r.Header = nil
	return r
}

// sick is a server with a worker that does not answer.
type sick struct{ *server.Server }

func (sick) Silent(ctx context.Context) []int {
	<-ctx.Done()
	return []int{1}
}

func TestHealthOfAWorkerThatHangs(t *testing.T) {
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll))
	r.Attach(sick{r.server})
	assert.Equal(t, reply{503, nil, "workers that do not answer: [1]\n"}, bare(r.get("/healthz")))
}

func TestReadinessOfUpstreams(t *testing.T) {
	r := launch(t, looptest.ProxyConfig(loop.Netpoll, []string{"127.0.0.1:1"}))
	assert.Equal(t, 200, r.get("/readyz?upstreams").Status)
	assert.Equal(t, 200, r.ask("POST", "/upstreams/up0/drain", "").Status)
	assert.Equal(t, reply{503, nil, "no upstream is up\n"}, bare(r.get("/readyz?upstreams")))
	assert.Equal(t, 200, r.get("/readyz").Status)
	files := launch(t, looptest.StaticConfig(t, loop.Netpoll))
	assert.Equal(t, 200, files.get("/readyz?upstreams").Status)
}

func TestMethodsAndPaths(t *testing.T) {
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll))
	for _, row := range []struct {
		method, target string
		status         int
		allow          string
	}{
		{"POST", "/metrics", 405, "GET, HEAD"},
		{"DELETE", "/status", 405, "GET, HEAD"},
		{"POST", "/healthz", 405, "GET, HEAD"},
		{"PUT", "/", 405, "GET, HEAD"},
		{"GET", "/upstreams/a/drain", 405, "POST"},
		{"GET", "/upstreams/a/enable", 405, "POST"},
		{"DELETE", "/log/level", 405, "GET, HEAD, POST, PUT"},
		{"GET", "/nothing", 404, ""},
		{"GET", "/page/index.html", 404, ""},
		{"GET", "/debug/pprof/nothing", 404, ""},
		{"POST", "/upstreams/a/drain", 404, ""},
		{"POST", "/upstreams/a/b/drain", 404, ""},
		{"HEAD", "/status", 200, ""},
	} {
		got := r.ask(row.method, row.target, "")
		assert.Equal(t, row.status, got.Status, "%s %s", row.method, row.target)
		assert.Equal(t, row.allow, got.Header.Get("Allow"), "%s %s", row.method, row.target)
	}
	assert.Equal(t, "\"/log/level\" takes GET, HEAD, POST, PUT, not \"DELETE\"\n", r.ask("DELETE", "/log/level", "").Text)
	unknown := r.get("/nothing").Text
	assert.Contains(t, unknown, `there is no "/nothing"; there are GET /, GET /metrics, `)
	assert.Contains(t, unknown, "POST /upstreams/{name}/drain, ")
	assert.Equal(t, 400, r.ask("PUT", "/log/level", strings.Repeat("x", bodyBytesMax+1)).Status)
}

// Pages from elsewhere get nothing done, and read nothing.
func TestGuard(t *testing.T) {
	r := launch(t, looptest.ProxyConfig(loop.Netpoll, []string{"127.0.0.1:1"},
		"[admin]\naddress = \"127.0.0.1:0\"\nhost = \"atlas.example.com\""))
	port := r.Addr()[strings.LastIndexByte(r.Addr(), ':'):]
	const act = "/upstreams/up0/drain"
	for _, row := range []struct {
		name, method, target string
		fields               []string
		status               int
	}{
		{"a program", "POST", act, nil, 200},
		{"this page", "POST", act, []string{"Host", "localhost" + port, "Origin", "http://localhost" + port}, 200},
		{"this page, said by the browser", "POST", act, []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"IPv6", "GET", "/status", []string{"Host", "[::1]" + port}, 200},
		{"the configured name", "GET", "/status", []string{"Host", "Atlas.example.com" + port}, 200},
		{"a name that was made to resolve to us", "GET", "/status", []string{"Host", "evil.example" + port}, 403},
		{"and one without a port", "POST", act, []string{"Host", "evil.example"}, 403},
		{"another origin", "POST", act, []string{"Origin", "https://evil.example"}, 403},
		{"another port of this machine", "POST", act, []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"a page in a sandbox", "POST", act, []string{"Origin", "null"}, 403},
		{"another site, said by the browser", "PUT", "/log/level?level=debug", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"an image of another site", "GET", "/debug/pprof/profile", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a link of another site", "GET", "/", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200},
	} {
		got := r.ask(row.method, row.target, "", row.fields...)
		assert.Equal(t, row.status, got.Status, "%s: %s", row.name, got.Text)
		assert.Equal(t, "nosniff", got.Header.Get("X-Content-Type-Options"))
	}
}

func TestLogLevel(t *testing.T) {
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll))
	assert.Equal(t, "INFO\n", r.get("/log/level").Text)
	r.options.Log.Debug("hidden")
	assert.Equal(t, reply{200, nil, "DEBUG\n"}, bare(r.ask("PUT", "/log/level", "debug\n")))
	r.options.Log.Debug("shown")
	assert.Equal(t, "DEBUG\n", r.get("/log/level").Text)
	assert.Equal(t, reply{200, nil, "ERROR\n"}, bare(r.ask("POST", "/log/level?level=error", "")))
	r.options.Log.Warn("hidden again")
	got := r.ask("PUT", "/log/level", "loud")
	assert.Equal(t, 400, got.Status)
	assert.Contains(t, got.Text, `"loud" is no level: use debug, info, warn or error`)
	assert.NotContains(t, r.log.String(), "hidden")
	assert.Contains(t, r.log.String(), "shown")
	assert.Contains(t, r.log.String(), `msg="log level changed" from=INFO to=DEBUG`)
	assert.Contains(t, r.log.String(), `msg="log level changed" from=DEBUG to=ERROR`)
}

// An upstream is taken out and put back while requests go on.
func TestDrainUpstream(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		named := func(name string) string {
			return origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
		}
		r := launch(t, looptest.ProxyConfig(engine, []string{named("first"), named("second")}))
		answers := func() map[string]int {
			got := make(map[string]int)
			for range 8 {
				response, err := http.Get("http://" + r.server.Addr())
				require.NoError(t, err)
				text, err := io.ReadAll(response.Body)
				require.NoError(t, err)
				require.NoError(t, response.Body.Close())
				got[string(text)]++
			}
			return got
		}
		assert.Len(t, answers(), 2)
		got := r.ask("POST", "/upstreams/up0/drain", "")
		assert.Equal(t, reply{200, nil, "up0 is drained: it gets no new requests\n"}, bare(got))
		assert.Equal(t, map[string]int{"second": 8}, answers())
		assert.Equal(t, "drained", r.status().Upstreams[0].State)
		assert.EqualValues(t, 1, r.scrape().sum("atlas_upstream_state{address=\""+r.status().Upstreams[0].Address+"\",state=\"drained\""))
		assert.Equal(t, 200, r.ask("POST", "/upstreams/up1/drain", "").Status)
		assert.Contains(t, answers(), "503 Service Unavailable: no upstream is eligible\n")
		assert.Equal(t, reply{200, nil, "up0 is enabled\n"}, bare(r.ask("POST", "/upstreams/up0/enable", "")))
		assert.Equal(t, map[string]int{"first": 8}, answers())
		got = r.ask("POST", "/upstreams/none/enable", "")
		assert.Equal(t, reply{404, nil, "there is no upstream \"none\"\n"}, bare(got))
		r.eventually("the log", func() bool {
			return strings.Contains(r.log.String(), `msg="upstream put back by an operator" upstream=up0`)
		})
		assert.Contains(t, r.log.String(), `msg="upstream taken out by an operator" upstream=up0`)
	})
}

// /status says what /metrics says.
func TestStatus(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		up := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") })
		r := launch(t, looptest.ProxyConfig(engine, []string{up},
			"[upstreams.health_check]\ninterval = \"10ms\"\n[routing]\nstrategy = \"least_connections\""))
		r.visit("/", "/", "/")
		r.eventually("no connection", func() bool { return r.scrape().sum("atlas_connections_open{") == 0 })
		said, got := r.status(), r.scrape()
		assert.Equal(t, "v1.2.3", said.Version)
		assert.Equal(t, os.Getpid(), said.PID)
		assert.Equal(t, "ready", said.State)
		assert.WithinDuration(t, time.Now(), said.Started, patience)
		assert.Positive(t, said.Uptime)
		assert.Equal(t, string(engine), said.Engine.Name)
		assert.Equal(t, "the configuration asks for it", said.Engine.Reason)
		assert.Equal(t, "atlas.toml", said.Config.File)
		assert.Equal(t, []ListenerReport{{Address: r.server.Addr(), Mode: "http"}}, said.Listeners)
		require.Len(t, said.Workers, 2)
		assert.EqualValues(t, 3, said.Workers[0].Requests+said.Workers[1].Requests)
		assert.EqualValues(t, 3, said.Counters["requests_total"])
		assert.EqualValues(t, 3, said.By["responses_total"]["2xx"])
		for name, count := range said.Counters {
			assert.EqualValues(t, got[prefix+name], count, name)
		}
		for name, counts := range said.By {
			assert.EqualValues(t, got.sum(prefix+name+"{"), total(counts), name)
		}
		require.Len(t, said.Upstreams, 1)
		u := said.Upstreams[0]
		assert.Equal(t, UpstreamReport{
			Name: "up0", Address: up, State: "up", Weight: 1, Requests: 3, Idle: u.Idle, Check: u.Check,
		}, u)
		assert.Positive(t, u.Idle)
		r.eventually("a check", func() bool { return r.status().Upstreams[0].Check != nil })
		check := r.status().Upstreams[0].Check
		assert.Empty(t, check.Error)
		assert.Positive(t, check.Passed)
		assert.WithinDuration(t, time.Now(), check.At, patience)
	})
}

func total(counts map[string]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestStatusOfCertificates(t *testing.T) {
	dir := t.TempDir()
	until := time.Now().Add(100*24*time.Hour + time.Hour).Truncate(time.Second)
	cert, key := certificate(t, dir, until)
	r := launch(t, looptest.StaticConfig(t, loop.Netpoll, fmt.Sprintf("[listen.tls]\ncert = %q\nkey = %q", cert, key)))
	said := r.status()
	require.Len(t, said.Certificates, 1)
	c := said.Certificates[0]
	assert.Equal(t, []string{"atlas.test", "127.0.0.1"}, c.Names)
	assert.Equal(t, 100, c.DaysLeft)
	assert.True(t, c.NotAfter.Equal(until))
	assert.True(t, said.Listeners[0].TLS)
	assert.EqualValues(t, until.Unix(), r.scrape()[fmt.Sprintf("atlas_certificate_not_after_timestamp_seconds{file=%q}", cert)])
}

func TestProfiles(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := launch(t, looptest.StaticConfig(t, engine))
		assert.Contains(t, r.get("/debug/pprof/goroutine?debug=1").Text, "goroutine profile:")
		assert.Contains(t, r.get("/debug/pprof/").Text, "heap")
		for _, target := range []string{"/debug/pprof/profile?seconds=1", "/debug/trace?seconds=0.1", "/debug/pprof/trace?seconds=0.1"} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				r.visit("/a", "/a", "/a") // a worker that gets signals goes on
			}()
			got := r.get(target)
			assert.Equal(t, 200, got.Status, target)
			assert.Greater(t, len(got.Text), 100, target)
			<-done
		}
		assert.Equal(t, 400, r.get("/debug/pprof/profile?seconds=0.5").Status)
		for _, seconds := range []string{"x", "-1", "301", "NaN"} {
			assert.Equal(t, 400, r.get("/debug/pprof/profile?seconds="+seconds).Status)
			assert.Equal(t, 400, r.get("/debug/pprof/heap?seconds="+seconds).Status)
		}
	})
}

func TestUnixSocket(t *testing.T) {
	for mode, want := range map[string]fs.FileMode{"0600": 0o600, "0660": 0o660} {
		path := filepath.Join(t.TempDir(), "admin.sock")
		cfg := parse(t, looptest.StaticConfig(t, loop.Netpoll, fmt.Sprintf("[admin]\naddress = \"unix:%s\"\nsocket_mode = %q", path, mode)))
		r := prepare(t, cfg)
		stat, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want|fs.ModeSocket, stat.Mode())
		assert.Equal(t, "starting\n", r.ask("GET", "/readyz", "", "Host", "any.example").Text)
		assert.Equal(t, "unix:"+path, r.Addr())
		assert.NotContains(t, r.log.String(), "no password")

		_, err = Start(r.options)
		assert.EqualError(t, err, "[admin] unix:"+path+" is in use by another program: stop it or choose another address")

		next := r.options
		next.Takeover = true
		heir, err := Start(next)
		require.NoError(t, err)
		assert.Equal(t, "starting\n", r.get("/readyz").Text)
		require.NoError(t, heir.Close())
		assert.Equal(t, "starting\n", r.get("/readyz").Text, "an heir that does not come so far takes nothing away")
		heir, err = Start(next)
		require.NoError(t, err)
		require.NoError(t, heir.Claim())
		require.NoError(t, r.Leave())
		require.NoError(t, r.Close())
		r.Admin = heir
		assert.Equal(t, "starting\n", r.get("/readyz").Text, "the heir's socket stays when the old process ends")
		require.NoError(t, heir.Close())
		assert.NoFileExists(t, path)
		assert.NoFileExists(t, path+"~")
	}
}

// What a process that was killed has left is no obstacle; what is no socket is.
func TestUnixSocketLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	require.FileExists(t, path)
	options := Options{
		Config: config.Admin{Address: "unix:" + path, SocketMode: "0600"},
		Log:    slog.New(slog.DiscardHandler),
	}
	a, err := Start(options)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = Start(options)
	assert.ErrorContains(t, err, "there is a file that is no socket")
	assert.FileExists(t, path)
}

func TestAddressInUse(t *testing.T) {
	r := prepare(t, parse(t, looptest.StaticConfig(t, loop.Netpoll)))
	o := r.options
	o.Config.Address = r.Addr()
	_, err := Start(o)
	assert.EqualError(t, err, "[admin] "+r.Addr()+" is in use by another program: stop it or choose another address")
	o.Takeover = true
	heir, err := Start(o)
	require.NoError(t, err)
	assert.Empty(t, heir.Addr())
	require.NoError(t, heir.Claim(), "two of one user share it, while one takes the other's place")
	require.NoError(t, r.Leave())
	r.Admin = heir
	assert.Equal(t, "starting\n", r.get("/readyz").Text)
	o.Takeover, o.Config.Address = false, "192.0.2.1:9000"
	_, err = Start(o)
	assert.EqualError(t, err, "[admin] 192.0.2.1:9000: this machine has no such address")
}

func TestRemoteAddressWarns(t *testing.T) {
	const table = "[admin]\naddress = \"0.0.0.0:0\"\n"
	r := prepare(t, parse(t, looptest.StaticConfig(t, loop.Netpoll, table)))
	assert.Contains(t, r.log.String(), "level=WARN msg=\"the admin address can be reached by others, and has no password")
	r = prepare(t, parse(t, looptest.StaticConfig(t, loop.Netpoll, table+"allow_remote = true")))
	assert.NotContains(t, r.log.String(), "WARN")
	r = prepare(t, parse(t, looptest.StaticConfig(t, loop.Netpoll)))
	assert.NotContains(t, r.log.String(), "WARN")
}

// Clients that keep connections open leave room for others after a while, and
// those that are gone at once.
func TestConnectionsAreBounded(t *testing.T) {
	r := prepare(t, parse(t, looptest.StaticConfig(t, loop.Netpoll)))
	guests := r.desk.Load().listener.guests
	inside := func() int {
		guests.mu.Lock()
		defer guests.mu.Unlock()
		return len(guests.open)
	}
	var open []net.Conn
	for range guests.max {
		c, err := net.Dial("tcp", r.Addr())
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "GET /healthz HTTP/1.1\r\n") // and never more
		require.NoError(t, err)
		open = append(open, c)
	}
	r.eventually("all to be accepted", func() bool { return inside() == guests.max })
	require.Equal(t, 200, r.get("/healthz").Status, "one that is slow makes room")
	require.NoError(t, open[0].SetReadDeadline(time.Now().Add(patience)))
	_, err := open[0].Read(make([]byte, 1))
	require.False(t, os.IsTimeout(err), "that was the one that had waited for longest: %v", err)
	require.LessOrEqual(t, inside(), guests.max)
}

// Requests that are being answered are not cut for others, which wait until one has
// been.
func TestGuestsWhoAreServedStay(t *testing.T) {
	g := newGuests(2)
	client, server := net.Pipe()
	defer client.Close()
	first, second, third := &conn{Conn: server, guests: g}, &conn{Conn: server, guests: g}, &conn{Conn: server, guests: g}
	require.True(t, g.enter(first))
	require.True(t, g.enter(second))
	g.note(first, http.StateActive)
	g.note(second, http.StateActive)
	_, room := g.tryEnter(third)
	require.NotNil(t, room)
	g.note(second, http.StateIdle)
	<-room
	slowest, _ := g.tryEnter(third)
	require.Same(t, second, slowest)
	require.NoError(t, second.Close())
	require.True(t, g.enter(third))
	require.Equal(t, []*conn{first, third}, g.open)
	_, room = g.tryEnter(second)
	require.Nil(t, room)
	close(g.closed)
	g.note(third, http.StateActive)
	require.False(t, g.enter(second), "the listener is closed")
}

func TestGuestsMax(t *testing.T) {
	for descriptors, want := range map[int]int{16: 4, 64: 8, 1024: 64, math.MaxInt: 64} {
		assert.Equal(t, want, guestsMax(descriptors), descriptors)
	}
}
