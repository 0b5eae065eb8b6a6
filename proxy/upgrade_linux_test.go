package main

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// lineage is a program that is upgraded: one process after another, all with the same
// log. The last one is now.
type lineage struct {
	t       testing.TB
	dir     string // with atlas, atlas.toml and log; a short path, for the socket in it
	address string
	now     int
	pids    []int
}

var heirField = regexp.MustCompile(`msg=draining heir=(\d+)`)

// startLineage runs a configuration. What it serves is of the caller's choice; where
// it meets its heirs is here.
func startLineage(t testing.TB, text string) *lineage {
	t.Helper()
	l := prepareLineage(t, text)
	l.begin()
	return l
}

// prepareLineage puts the program and its configuration in a directory.
func prepareLineage(t testing.TB, text string) *lineage {
	t.Helper()
	dir, err := os.MkdirTemp("", "atlas")
	require.NoError(t, err)
	l := &lineage{t: t, dir: dir}
	l.install()
	l.configure(text)
	t.Cleanup(func() {
		for _, pid := range l.pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // most have ended
		}
		if t.Failed() {
			t.Log(l.log())
		}
		_ = os.RemoveAll(dir)
	})
	return l
}

// begin starts the first process.
func (l *lineage) begin() {
	l.t.Helper()
	require.NoError(l.t, os.WriteFile(l.path("log"), nil, 0o600))
	cmd, err := l.run(l.path("atlas.toml"))
	require.NoError(l.t, err)
	l.now = cmd.Process.Pid
	l.pids = []int{l.now}
	l.waitFor("msg=listening", 1)
	l.address = addressField.FindStringSubmatch(l.log())[1]
}

func (l *lineage) path(name string) string { return filepath.Join(l.dir, name) }

// install puts the program where the first process is started from.
func (l *lineage) install() {
	l.t.Helper()
	self, err := os.Executable()
	require.NoError(l.t, err)
	_ = os.Remove(l.path("atlas")) // there may be none
	require.NoError(l.t, os.Symlink(self, l.path("atlas")))
}

// replace puts another program there, a script.
func (l *lineage) replace(script string) {
	l.t.Helper()
	require.NoError(l.t, os.Remove(l.path("atlas")))
	require.NoError(l.t, os.WriteFile(l.path("atlas"), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

func (l *lineage) configure(text string) {
	l.t.Helper()
	text = strings.Replace(text, "[listen]\n", fmt.Sprintf("[listen]\nhandover = %q\n", l.path("s")), 1)
	text = strings.Replace(text, "[admin]\n", fmt.Sprintf("[admin]\naddress = %q\n", "unix:"+l.path("admin")), 1)
	require.NoError(l.t, os.WriteFile(l.path("atlas.toml"), []byte(text), 0o644))
}

// run starts the program. What it prints goes to the log.
func (l *lineage) run(args ...string) (*exec.Cmd, error) {
	log, err := os.OpenFile(l.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(l.path("atlas"), args...)
	// A program of testscript is called by its name alone, whatever it was started as.
	cmd.Env = append(os.Environ(), exitAtOnce, "PATH="+l.dir+":"+os.Getenv("PATH"))
	cmd.Dir = l.dir
	cmd.Stderr = log
	if err := looptest.Start(cmd); err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait() }()
	return cmd, nil
}

func (l *lineage) log() string {
	text, err := os.ReadFile(l.path("log"))
	require.NoError(l.t, err)
	return string(text)
}

// waitFor waits until something has been logged n times.
func (l *lineage) waitFor(text string, n int) {
	l.t.Helper()
	for end := time.Now().Add(3 * patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Count(l.log(), text) >= n {
			return
		}
	}
	l.t.Fatalf("%q is not in the log %d times:\n%s", text, n, l.log())
}

// reload applies what is in the file by now, and waits for it.
func (l *lineage) reload() {
	l.t.Helper()
	text, err := os.ReadFile(l.path("atlas.toml"))
	require.NoError(l.t, err)
	n := strings.Count(l.log(), "why=SIGHUP")
	require.NoError(l.t, syscall.Kill(l.now, syscall.SIGHUP))
	l.waitFor("why=SIGHUP", n+1)
	assert.Contains(l.t, l.log(), fmt.Sprintf("sum=%.6x why=", sha256.Sum256(text)))
}

// upgrade puts the next process in the place of this one.
func (l *lineage) upgrade(byCommand bool) {
	l.t.Helper()
	n := len(l.pids)
	if byCommand {
		_, err := l.run("upgrade", l.path("atlas.toml"))
		require.NoError(l.t, err)
	} else {
		require.NoError(l.t, syscall.Kill(l.now, syscall.SIGUSR2))
	}
	l.waitFor("msg=\"took over\"", n)
	l.waitFor("msg=draining heir=", n)
	all := heirField.FindAllStringSubmatch(l.log(), -1)
	pid, err := strconv.Atoi(all[n-1][1])
	require.NoError(l.t, err)
	l.now = pid
	l.pids = append(l.pids, pid)
}

// ends has the last process end, and waits until all have.
func (l *lineage) ends() {
	l.t.Helper()
	require.NoError(l.t, syscall.Kill(l.now, syscall.SIGTERM))
	l.waitFor("msg=ended", len(l.pids))
}

func staticText(engine loop.Engine, root string, workers int, more string) string {
	return fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = 0\nmode = \"static\"\nworkers = %d\npin = false\n"+
		"engine = %q\nroot = %q\n%s", workers, engine, root, more)
}

// The command says why it cannot take over, and leaves alone what runs. A second
// process has a place of its own, or none.
func TestUpgradeNobody(t *testing.T) {
	t.Parallel()
	root, _ := files(t)
	text := staticText(loop.Auto, root, 1, "")
	l := startLineage(t, text)
	second, err := l.run(l.path("atlas.toml"))
	require.NoError(t, err)
	l.pids = append(l.pids, second.Process.Pid)
	l.waitFor("belongs to another process", 1)
	require.NoError(t, syscall.Kill(second.Process.Pid, syscall.SIGTERM))
	l.waitFor("msg=ended", 1)
	l.pids = l.pids[:1]
	l.upgrade(true) // the first one's socket is where it was
	l.ends()

	_, err = l.run("upgrade", l.path("atlas.toml"))
	require.NoError(t, err)
	l.waitFor("nothing taken over at "+l.path("s")+": no Atlas waits there (no such file or directory)", 1)

	stale, err := net.Listen("unix", l.path("s"))
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close()) // what a process that was killed leaves
	l.begin()
	l.upgrade(true)
	l.ends()
}

// A process that is told to end goes on for the delay, and is cut by a second signal;
// SIGQUIT ends it as the others do.
func TestDrainDelay(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		root, bodies := files(t)
		r := launch(t, staticText(engine, root, 1, "[timeouts]\ndrain_delay = \"1h\"\n"))
		c, in := dial(t, r.address, "/small")
		receive(t, in)
		r.signal(syscall.SIGTERM)
		r.logs("about to drain")
		for range 3 {
			_, err := io.WriteString(c, "GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
			require.NoError(t, err)
			resp, body := receive(t, in)
			assert.False(t, resp.Close)
			assert.Equal(t, string(bodies["/small"]), body)
			_, fresh := dial(t, r.address, "/small")
			receive(t, fresh)
		}
		r.signal(syscall.SIGTERM)
		r.exits(0)

		r = launch(t, staticText(engine, root, 1, "[timeouts]\ndrain_delay = \"50ms\"\n"))
		r.signal(syscall.SIGQUIT)
		r.logs("signal=quit")
		r.exits(0)
	})
}

// A session that began with one process goes on with the next.
func TestUpgradeResumesSessions(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		root, _ := files(t)
		authority := looptest.NewAuthority(t)
		cert, key := looptest.WritePair(t, t.TempDir(), "a", authority.Issue(t, looptest.Leaf{Names: []string{"a.test"}}))
		l := startLineage(t, staticText(engine, root, 2, fmt.Sprintf("[listen.tls]\ncert = %q\nkey = %q\n", cert, key)))
		cfg := &tls.Config{RootCAs: authority.Pool, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		resumed := func() bool {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: patience}
			resp, err := client.Get("https://" + l.address + "/small")
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			return resp.TLS.DidResume
		}
		assert.False(t, resumed())
		for range 2 {
			l.upgrade(false)
			assert.True(t, resumed())
		}
		l.ends()
	})
}
