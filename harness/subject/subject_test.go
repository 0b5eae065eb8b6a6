package subject

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/harness/cert"
	"atlas/harness/host"
	"atlas/harness/origin"
	"atlas/scenarios"
)

// TestMain lets the test binary be the child processes, as the harness is.
func TestMain(m *testing.M) {
	// The race detector's exit would add a second to every server's end.
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	if len(os.Args) < 2 {
		os.Exit(m.Run())
	}
	switch os.Args[1] {
	case "serve-origin": // -listen address -root dir -delay 0s
		exit(origin.Serve(context.Background(), os.Args[3], os.Args[5], nil))
	case "serve-peer": // pairs of a flag and its value
		var p Peer
		fields := map[string]*string{
			"-listen": &p.Address, "-root": &p.Root, "-upstream": &p.Upstream, "-tunnel": &p.Tunnel, "-cert": &p.Cert, "-key": &p.Key,
		}
		for i := 2; i < len(os.Args); i += 2 {
			*fields[os.Args[i]] = os.Args[i+1]
		}
		exit(p.Serve(context.Background()))
	case "serve-meter": // pid
		pid, err := strconv.Atoi(os.Args[2])
		if err == nil {
			err = ServeMeter(os.Stdin, os.Stdout, pid)
		}
		exit(err)
	case "answer": // status body config
		exit(answer(os.Args[2], os.Args[3], os.Args[4]))
	}
	os.Exit(m.Run())
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// answer serves one wrong answer on the port of an Atlas configuration.
func answer(status, body, config string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	port := regexp.MustCompile(`(?m)^port += (\d+)$`).FindSubmatch(text)[1]
	return http.ListenAndServe("127.0.0.1:"+string(port), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == "500" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, body)
	}))
}

const path, length = "/1k.html", 1024

// launcher returns a launcher whose scratch directory must be empty at the
// end of the test, and a directory of documents.
func launcher(t *testing.T) (Launcher, string) {
	self, err := os.Executable()
	require.NoError(t, err)
	scratch, root := t.TempDir(), t.TempDir()
	require.NoError(t, origin.WriteTree(root, map[string]int{path: length}))
	t.Cleanup(func() {
		left, err := os.ReadDir(scratch)
		require.NoError(t, err)
		require.Empty(t, left, "files of servers that were stopped")
	})
	return Launcher{Programs: Programs{Harness: self, Atlas: "no-such-atlas"}, Scratch: scratch}, root
}

// program writes a shell script to stand in for Atlas's binary.
func program(t *testing.T, script string) string {
	file := filepath.Join(t.TempDir(), "atlas")
	require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return file
}

// requireInstalled skips without nginx, but never where CI promises it.
func requireInstalled(t *testing.T, s Subject, p Programs) {
	if err := s.Missing(p); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

func one(t *testing.T, name string) Subject {
	s, err := Named([]string{name})
	require.NoError(t, err)
	return s[0]
}

func TestStartStop(t *testing.T) {
	for _, origin := range Origins(false) {
		for _, name := range []string{"nginx-best", "nginx-readme", "haproxy", "go-nethttp"} {
			t.Run(origin.Name+"/"+name, func(t *testing.T) {
				l, root := launcher(t)
				s := one(t, name)
				requireInstalled(t, s, l.Programs)
				requireInstalled(t, origin, l.Programs)
				cores := host.Allowed()[:1]

				identity, err := cert.Make(t.TempDir(), scenarios.ECDSA)
				require.NoError(t, err)
				static := Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}
				up, err := l.Start(t.Context(), origin, static, cores)
				require.NoError(t, err)
				here, err := s.Here(l.Programs)
				requireThere(t, err)
				for _, site := range sites(root, up.Address, identity) {
					if !here.Serves(site.Kind) {
						continue
					}
					running, err := l.Start(t.Context(), s, site, cores)
					require.NoError(t, err)
					cpu, err := running.Meter.CPU()
					require.NoError(t, err)
					require.Positive(t, cpu)
					resident, err := running.Meter.Resident()
					require.NoError(t, err)
					require.Greater(t, resident, int64(1<<20))
					peak, err := running.Meter.Peak()
					require.NoError(t, err)
					require.GreaterOrEqual(t, peak, resident)
					require.NoError(t, running.Ended())
					require.NoError(t, running.Stop())
					requireSilent(t, running.Address)
				}
				require.NoError(t, up.Stop())
				requireSilent(t, up.Address)
			})
		}
	}
}

// sites are all kinds of work, plain and over TLS.
func sites(root, origin string, identity *cert.Identity) []Site {
	var all []Site
	for _, kind := range everything {
		site := Site{Kind: kind, Root: root, Path: path, Length: length}
		if kind.Forwards() {
			site.Root, site.Origin = "", origin
		}
		all = append(all, site)
		site.Identity = identity
		all = append(all, site)
	}
	return all
}

// requireThere fails for a missing part where CI promises it.
func requireThere(t *testing.T, missing error) {
	if missing != nil && os.Getenv("CI") != "" {
		t.Fatal(missing)
	}
}

func requireSilent(t *testing.T, address string) {
	_, err := net.Dial("tcp", address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "nobody listens after Stop")
}

func TestStartRefuses(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	body := strings.Repeat("x", length)
	for _, row := range []struct{ name, script, want string }{
		{"never listens", "exec sleep 1000", "not ready after 6s: "},
		{"ends at once", "echo no such key >&2; exit 3", "ended before it served anything (exit status 3)\n    | no such key"},
		{"wrong length", "exec " + self + ` answer 200 short "$1"`, "body of 5 bytes, want 1024"},
		{"wrong bytes", "exec " + self + " answer 200 " + body + ` "$1"`, "body of the right length with other bytes"},
		{"server error", "exec " + self + ` answer 500 oops "$1"`, "status 500"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			l, root := launcher(t)
			l.Programs.Atlas = program(t, row.script)
			l.StartTimeout = 6 * time.Second // the last word counts, and it must get to speak
			running, err := l.Start(t.Context(), one(t, "atlas"),
				Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
			require.ErrorContains(t, err, "atlas: ")
			require.ErrorContains(t, err, row.want)
			require.Nil(t, running)
		})
	}
}

func TestStartWithoutBinary(t *testing.T) {
	l, root := launcher(t)
	s := one(t, "atlas")
	require.ErrorContains(t, s.Missing(l.Programs), "no-such-atlas is missing: run `make build`")
	_, err := l.Start(t.Context(), s, Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
	require.ErrorContains(t, err, "run `make build`")
}

func TestStartInterrupted(t *testing.T) {
	l, root := launcher(t)
	l.Programs.Atlas = program(t, "exec sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := l.Start(ctx, one(t, "atlas"), Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A server that ignores SIGTERM is killed with its children, and said to be.
func TestStopKills(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	l, root := launcher(t)
	pidFile := filepath.Join(t.TempDir(), "child")
	l.Programs.Atlas = program(t, `trap '' TERM
port=$(sed -n 's/^port *= //p' "$1")
`+self+" serve-peer -listen 127.0.0.1:$port -root "+root+` &
echo $! > `+pidFile+`
wait; while :; do sleep 1; done`)
	l.StopTimeout = 100 * time.Millisecond
	running, err := l.Start(t.Context(), one(t, "atlas"), Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
	require.NoError(t, err)
	require.ErrorContains(t, running.Stop(), "still running 100ms after SIGTERM, killed")
	child, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		pid, err := strconv.Atoi(strings.TrimSpace(string(child)))
		require.NoError(t, err)
		return syscall.Kill(pid, 0) != nil
	}, 30*time.Second, 5*time.Millisecond, "the child of the killed server")
}

// Of a server that was loaded, one more answer is asked.
func TestAnswers(t *testing.T) {
	served := origin.Document(1024)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(served)
	}))
	defer server.Close()
	r := &Running{Address: server.Listener.Addr().String(), name: "one"}
	site := Site{Path: "/1k.html", Length: 1024}
	require.NoError(t, r.Answers(t.Context(), site))
	served = served[1:]
	require.ErrorContains(t, r.Answers(t.Context(), site), "one stalled, or answers wrongly, after it was measured: ")
	server.Close()
	require.ErrorContains(t, r.Answers(t.Context(), site), "connection refused")
}

func TestEnded(t *testing.T) {
	l, root := launcher(t)
	running, err := l.Start(t.Context(), one(t, "go-nethttp"), Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}, nil)
	require.NoError(t, err)
	require.NoError(t, running.command.Process.Kill())
	<-running.exited
	require.ErrorContains(t, running.Ended(), "go-nethttp ended while it was measured (signal: killed)")
	require.NoError(t, running.Stop())
}

// Every template must render for each kind it serves, and differ by kind.
func TestConfigs(t *testing.T) {
	identity := &cert.Identity{Chain: "/srv/chain", Key: "/srv/key", Bundle: "/srv/bundle"}
	for _, s := range append(All(), Origins(false)...) {
		if s.template == "" {
			continue
		}
		s.module = nil // which files there are is not under test
		var texts []string
		for _, site := range sites("/srv/documents", "10.9.8.7:81", identity) {
			if !s.Serves(site.Kind) {
				continue
			}
			site.Length = 1 << 20
			p, err := s.place(t.TempDir(), "", site)
			require.NoError(t, err)
			require.NoError(t, s.writeConfig(p))
			read, err := os.ReadFile(p.Config)
			require.NoError(t, err)
			text := string(read)
			require.Contains(t, text, fmt.Sprint(p.Port))
			require.NotContains(t, texts, text)
			texts = append(texts, text)
			if s.Name == "nginx-origin" {
				break // it serves files and nothing else
			}
			require.Equal(t, site.Kind == scenarios.Static, strings.Contains(text, "/srv/documents"), text)
			require.Equal(t, site.Kind.Forwards(), strings.Contains(text, "10.9.8.7"), text)
			require.Equal(t, site.Identity != nil, strings.Contains(text, "/srv/chain") || strings.Contains(text, "/srv/bundle"), text)
			if site.Identity != nil && !strings.HasPrefix(s.Name, "atlas") {
				for _, want := range []string{"TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519"} {
					require.Contains(t, text, want)
				}
			}
		}
	}
	require.NotEqual(t, one(t, "atlas").ConfigHash(), one(t, "atlas-netpoll").ConfigHash())
	require.Equal(t, one(t, "nginx-best").ConfigHash(), one(t, "nginx-best").ConfigHash())
	require.Equal(t, one(t, "atlas").ConfigHash(), one(t, "atlas-other").ConfigHash())
}

// One worker, or one for each core that all share.
func TestConfigsOfSharedCores(t *testing.T) {
	lines := map[string]string{"atlas": "workers = %d\n", "haproxy": "nbthread %d\n"}
	for _, s := range append(All(), Origins(false)...) {
		if !s.Scales() {
			continue
		}
		s.module = nil // which files there are is not under test
		line := "worker_processes %d;\n"
		for prefix, own := range lines {
			if strings.HasPrefix(s.Name, prefix) {
				line = own
			}
		}
		for share, workers := range map[int]int{0: 1, 4: 4} {
			kind := scenarios.Proxy
			if s.Name == "nginx-origin" {
				kind = scenarios.Static
			}
			site := Site{Kind: kind, Root: "/srv", Origin: "10.9.8.7:81", Path: path, Length: 1024, Share: share}
			p, err := s.place(t.TempDir(), "", site)
			require.NoError(t, err)
			require.NoError(t, s.writeConfig(p))
			text, err := os.ReadFile(p.Config)
			require.NoError(t, err)
			require.Contains(t, string(text), fmt.Sprintf(line, workers), s.Name)
		}
	}
	require.False(t, one(t, "floor").Scales())
	require.False(t, one(t, "go-nethttp").Scales())
}

// A bound on connections to the origin, and the end of a wait for one, which is
// told with status 503 by everybody.
func TestConfigsOfBounds(t *testing.T) {
	for name, want := range map[string][]string{
		"atlas":      {"max_connections = 20\n"},
		"haproxy":    {" maxconn 20\n", "timeout queue 100ms\n"},
		"nginx-best": {"max_conns=20;", "error_page 502 =503 @full;"}, "nginx-readme": {"max_conns=20;", "error_page 502 =503 @full;"},
	} {
		for _, bound := range []int{0, 20} {
			site := Site{Kind: scenarios.Proxy, Origin: "10.9.8.7:81", Path: path, Length: 1024, Bound: bound}
			p, err := one(t, name).place(t.TempDir(), "", site)
			require.NoError(t, err)
			require.NoError(t, one(t, name).writeConfig(p))
			text, err := os.ReadFile(p.Config)
			require.NoError(t, err)
			for _, line := range want {
				require.Equal(t, bound > 0, strings.Contains(string(text), line), "%s: %s", name, text)
			}
		}
	}
	require.False(t, one(t, "floor").Bounds())
	// nginx would refuse large bodies, and keep them in files.
	for _, name := range []string{"nginx-best", "nginx-readme"} {
		for _, greedy := range []bool{false, true} {
			site := Site{Kind: scenarios.Proxy, Origin: "10.9.8.7:81", Path: path, Length: 1024, Greedy: greedy}
			p, err := one(t, name).place(t.TempDir(), "", site)
			require.NoError(t, err)
			require.NoError(t, one(t, name).writeConfig(p))
			text, err := os.ReadFile(p.Config)
			require.NoError(t, err)
			require.Equal(t, greedy, strings.Contains(string(text), "client_max_body_size 0;"), "%s: %s", name, text)
		}
	}
	require.Equal(t, "go-origin", Origins(true)[0].Name)
	require.Equal(t, "nginx-origin", Origins(false)[0].Name)
}

// A load of many connections meets no limit of the configuration's.
func TestLimits(t *testing.T) {
	require.Equal(t, 2048, place{}.Clients())
	many := place{Site: Site{Conns: 10_000}}
	require.Greater(t, many.Clients(), 10_000)
	require.Greater(t, many.Sockets(), many.Clients())
	_, limit := host.Limits()
	require.Greater(t, uint64(many.Files()), min(uint64(many.Sockets()), limit-1))
	require.Greater(t, place{Site: Site{Kind: scenarios.Proxy, Conns: 10_000}}.Sockets(), 20_000)
}

// nginx is asked whether it has the module, and where.
func TestHere(t *testing.T) {
	module := filepath.Join(t.TempDir(), "ngx_stream_module.so")
	require.NoError(t, os.WriteFile(module, nil, 0o644))
	for _, row := range []struct {
		name, options, module string
		missing               bool
	}{
		{"compiled in", "--with-stream --with-stream_ssl_module", "", false},
		{"at the end", "--modules-path=/no --with-stream", "", false},
		{"a module", "--modules-path=" + filepath.Dir(module) + " --with-stream=dynamic --with-x", module, false},
		{"a module of a package that is not here", "--modules-path=/no --with-stream=dynamic", "", true},
		{"without", "--with-stream_ssl_module", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			fake := program(t, "echo built with OpenSSL 3.0.22 25 Aug 2026 >&2; echo configure arguments: "+row.options+" >&2")
			s := one(t, "nginx-best")
			s.program = func(Programs) (string, error) { return fake, nil }
			file, err := s.module(fake, scenarios.TCP)
			require.Equal(t, row.module, file)
			require.Equal(t, row.missing, err != nil)
			here, err := s.Here(Programs{})
			require.Equal(t, row.missing, err != nil)
			require.Equal(t, !row.missing, here.Serves(scenarios.TCP))
			require.True(t, here.Serves(scenarios.Proxy))
			require.Equal(t, "OpenSSL 3.0.22", OpenSSL(fake))
		})
	}
	newer := program(t, "echo 'built with OpenSSL 3.0.22 25 Aug 2026 (running with OpenSSL 3.0.19 27 Jan 2026)'")
	require.Equal(t, "OpenSSL 3.0.19", OpenSSL(newer))
	require.Empty(t, OpenSSL("/no/nginx"))
	_, err := one(t, "atlas").Here(Programs{Atlas: "no-such-atlas"})
	require.ErrorContains(t, err, "run `make build`")
}

func TestServes(t *testing.T) {
	require.False(t, one(t, "haproxy").Serves(scenarios.Static))
	require.True(t, one(t, "haproxy").Serves(scenarios.Proxy))
	require.True(t, one(t, "haproxy").Serves(scenarios.TCP))
	require.True(t, one(t, "atlas").Serves(scenarios.Static))
	secure := &scenarios.Scenario{Target: scenarios.Target{Kind: scenarios.Static, TLS: scenarios.ECDSA}}
	require.NoError(t, one(t, "atlas").Declines(secure))
	require.ErrorContains(t, one(t, "floor").Declines(secure), "no TLS")
	require.False(t, one(t, "floor").Closes(scenarios.Static))
	require.True(t, one(t, "floor").Closes(scenarios.Proxy), "it relays the end, too")
	require.True(t, one(t, "atlas").Closes(scenarios.Static))
	require.NoError(t, one(t, "floor").Declines(&scenarios.Scenario{Target: scenarios.Target{Kind: scenarios.TCP}}))
}

// The floor answers with the site's document, and relays to its origin.
func TestFloor(t *testing.T) {
	if reason := host.IOURing(); reason != "available" {
		requireRing(t, reason)
	}
	l, root := launcher(t)
	l.Programs.Floor = filepath.Join(t.TempDir(), "floor")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", l.Programs.Floor, "atlas/proxy/floor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the Makefile has compiled it
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	static := Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}
	up, err := l.Start(t.Context(), Origins(false)[1], static, nil)
	require.NoError(t, err)
	for _, site := range []Site{
		static,
		{Kind: scenarios.Proxy, Origin: up.Address, Path: path, Length: length},
		{Kind: scenarios.TCP, Origin: up.Address, Path: path, Length: length},
	} {
		running, err := l.Start(t.Context(), one(t, "floor"), site, nil)
		require.NoError(t, err)
		require.NoError(t, running.Stop())
	}
	require.NoError(t, up.Stop())
}

// requireRing skips without a ring, but never where CI said that it has to run.
func requireRing(t *testing.T, reason string) {
	if os.Getenv("REQUIRE_URING") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

func TestVersion(t *testing.T) {
	programs := Programs{Atlas: program(t, `echo "$0 $1 is here"`)}
	require.Contains(t, one(t, "atlas").Version(programs), "version is here")
	require.Equal(t, "not installed", one(t, "atlas").Version(Programs{Atlas: "no-such-atlas"}))
	require.Contains(t, one(t, "go-nethttp").Version(programs), "go1.")
	for _, row := range []struct{ name, want string }{{"nginx-best", `^nginx/\d`}, {"haproxy", `^HAProxy/\d`}} {
		requireInstalled(t, one(t, row.name), programs)
		require.Regexp(t, row.want, one(t, row.name).Version(programs))
	}
}

func TestNamed(t *testing.T) {
	got, err := Named([]string{"nginx-best", "atlas"})
	require.NoError(t, err)
	require.Equal(t, "nginx-best", got[0].Name)
	require.Equal(t, "atlas", got[1].Name)
	_, err = Named([]string{"apache"})
	require.ErrorContains(t, err, `no subject is named "apache"`)
	_, err = Named([]string{"atlas", "atlas"})
	require.ErrorContains(t, err, "named twice")
}
