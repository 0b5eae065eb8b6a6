package subject

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
	case "serve-origin": // -listen address -root dir
		exit(origin.Serve(context.Background(), os.Args[3], os.Args[5]))
	case "serve-peer": // -listen address -root dir, or -upstream address
		root, upstream := os.Args[5], ""
		if os.Args[4] == "-upstream" {
			root, upstream = "", os.Args[5]
		}
		exit(ServePeer(context.Background(), os.Args[3], root, upstream))
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
	for _, origin := range Origins() {
		for _, name := range []string{"nginx-best", "nginx-readme", "haproxy", "go-nethttp"} {
			t.Run(origin.Name+"/"+name, func(t *testing.T) {
				l, root := launcher(t)
				s := one(t, name)
				requireInstalled(t, s, l.Programs)
				requireInstalled(t, origin, l.Programs)
				cores := host.Allowed()[:1]

				static := Site{Kind: scenarios.Static, Root: root, Path: path, Length: length}
				up, err := l.Start(t.Context(), origin, static, cores)
				require.NoError(t, err)
				proxied := Site{Kind: scenarios.Proxy, Origin: up.Address, Path: path, Length: length}
				for _, site := range []Site{static, proxied} {
					if !s.Serves(site.Kind) {
						continue
					}
					running, err := l.Start(t.Context(), s, site, cores)
					require.NoError(t, err)
					cpu, err := running.Meter.CPU()
					require.NoError(t, err)
					require.Positive(t, cpu)
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

func requireSilent(t *testing.T, address string) {
	_, err := net.Dial("tcp", address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "nobody listens after Stop")
}

func TestStartRefuses(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	body := strings.Repeat("x", length)
	for _, row := range []struct{ name, script, want string }{
		{"never listens", "exec sleep 1000", "not ready after 2s: "},
		{"ends at once", "echo no such key >&2; exit 3", "ended before it served anything (exit status 3)\n    | no such key"},
		{"wrong length", "exec " + self + ` answer 200 short "$1"`, "body of 5 bytes, want 1024"},
		{"wrong bytes", "exec " + self + " answer 200 " + body + ` "$1"`, "body of the right length with other bytes"},
		{"server error", "exec " + self + ` answer 500 oops "$1"`, "status 500"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			l, root := launcher(t)
			l.Programs.Atlas = program(t, row.script)
			l.StartTimeout = 2 * time.Second // the last word counts, and it must get to speak
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
	}, 5*time.Second, 5*time.Millisecond, "the child of the killed server")
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
	for _, s := range append(All(), Origins()...) {
		if s.template == "" {
			continue
		}
		var texts []string
		for _, kind := range []scenarios.Kind{scenarios.Static, scenarios.Proxy} {
			dir := t.TempDir()
			p, err := s.place(dir, Site{Kind: kind, Root: "/srv/documents", Origin: "127.0.0.1:81"})
			require.NoError(t, err)
			require.NoError(t, s.writeConfig(p))
			text, err := os.ReadFile(p.Config)
			require.NoError(t, err)
			require.Contains(t, string(text), fmt.Sprint(p.Port))
			texts = append(texts, string(text))
		}
		require.Equal(t, s.Serves(scenarios.Static), strings.Contains(texts[0], "/srv/documents"))
		if s.Name != "nginx-origin" {
			require.NotContains(t, texts[1], "/srv/documents")
			require.Contains(t, texts[1], "81")
		}
	}
	require.NotEqual(t, one(t, "atlas").ConfigHash(), one(t, "atlas-netpoll").ConfigHash())
	require.Equal(t, one(t, "nginx-best").ConfigHash(), one(t, "nginx-best").ConfigHash())
}

func TestServes(t *testing.T) {
	require.False(t, one(t, "haproxy").Serves(scenarios.Static))
	require.True(t, one(t, "haproxy").Serves(scenarios.Proxy))
	require.True(t, one(t, "atlas").Serves(scenarios.Static))
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
