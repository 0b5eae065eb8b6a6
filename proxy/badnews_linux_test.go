package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/admin"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// withAdmin has /status at the socket that configure fills in.
const withAdmin = "[admin]\n"

// status asks the process of now.
func (l *lineage) status() (r admin.Report) {
	l.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", l.path("admin"))
		},
	}}
	resp, err := client.Get("http://localhost/status")
	require.NoError(l.t, err)
	defer resp.Body.Close()
	require.NoError(l.t, json.NewDecoder(resp.Body).Decode(&r))
	return r
}

// says waits until /status says something.
func (l *lineage) says(what string, cond func(r *admin.Report) bool) {
	l.t.Helper()
	var r admin.Report
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if r = l.status(); cond(&r) {
			return
		}
	}
	l.t.Errorf("/status does not say %s: %+v %+v %v", what, r.Config, r.Upgrade, r.CertificateErrors)
}

// A configuration that is wrong, or that is wrong with the files beside it, changes
// nothing for clients. The log and /status say why, until it is right again.
func TestBadConfigurations(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := newShore(t)
		secure := func(cert, key string) string {
			return staticText(engine, s.root, 2, fmt.Sprintf("%s[listen.tls]\ncert = %q\nkey = %q\n", withAdmin, cert, key))
		}
		good := secure(s.certs[0], s.keys[0])
		l := startLineage(t, good)
		p := press(l.address, s.tls, s.bodies)
		for name, row := range map[string]struct{ text, reason string }{
			"no TOML":               {good + "[[[\n", "atlas.toml:"},
			"an unknown key":        {good + "nonsense = 1\n", "nonsense"},
			"a key for an upgrade":  {strings.Replace(good, "workers = 2", "workers = 3", 1), "needs an upgrade: listen.workers: 2 -> 3"},
			"a pair that is none":   {secure(s.certs[0], s.keys[1]), "private key does not match public key"},
			"a key that is gone":    {secure(s.certs[0], "/no/such/key"), "/no/such/key"},
			"a root that is gone":   {strings.Replace(good, s.root, "/no/such/root", 1), "/no/such/root"},
			"nothing in it":         {"", "upstream"},
			"a file that is a disk": {"\x7fELF\x00\x01", "atlas.toml"},
		} {
			l.configure(row.text)
			l.says(name, func(r *admin.Report) bool {
				return strings.Contains(strings.Join(r.Config.Errors, "; "), row.reason) && r.State == "ready"
			})
			assert.Contains(t, l.log(), row.reason, name)
			before := l.status().Config.Applied
			l.configure(good)
			require.NoError(t, syscall.Kill(l.now, syscall.SIGHUP))
			l.says("that it is right again", func(r *admin.Report) bool {
				return len(r.Config.Errors) == 0 && r.Config.Applied > before
			})
		}
		// The pair is replaced where it is, by one that does not match.
		cert, err := os.ReadFile(s.certs[1])
		require.NoError(t, err)
		first, err := os.ReadFile(s.certs[0])
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(s.certs[0], cert, 0o600))
		mismatch := "private key does not match public key"
		l.says("that the pair is none", func(r *admin.Report) bool {
			return strings.Contains(strings.Join(r.CertificateErrors, "; "), mismatch)
		})
		l.waitFor("certificate not taken over: what was there before stays in use", 1)
		require.NoError(t, os.WriteFile(s.certs[0], first, 0o600))
		l.says("that the pair is one", func(r *admin.Report) bool { return len(r.CertificateErrors) == 0 })
		p.end()
		assert.Zero(t, p.failures.Load(), "the first: %v", p.first)
		assert.Positive(t, p.requests.Load())
		l.ends()
	})
}

// badHeir is a program in the place of ours, or a configuration for it, that does
// not come to serve.
type badHeir struct {
	script, text string
	logged       []string
}

// try has a bad heir try, and returns to what was there.
func (l *lineage) try(name, good string, bad *badHeir) {
	l.t.Helper()
	l.configure(bad.text)
	switch {
	case bad.script == "none":
		require.NoError(l.t, os.Remove(l.path("atlas")))
	case bad.script != "":
		l.replace(bad.script)
	}
	failed := l.status().Upgrade.Failed
	require.NoError(l.t, syscall.Kill(l.now, syscall.SIGUSR2))
	l.says(name, func(r *admin.Report) bool { return r.Upgrade.Failed == failed+1 })
	l.waitFor("no upgrade: this process goes on", int(failed)+1)
	said := l.status()
	assert.Equal(l.t, l.now, said.PID, name)
	assert.Equal(l.t, "ready", said.State, name)
	u := said.Upgrade
	for _, text := range bad.logged {
		assert.Contains(l.t, l.log(), text, name)
		assert.Contains(l.t, u.Error+"\n"+u.Ended+"\n"+u.Printed, text, name)
	}
	l.install()
	l.configure(good)
}

// ill is a program that is given everything, and comes so far.
func (l *lineage) ill(stage string) string {
	l.t.Helper()
	self, err := os.Executable()
	require.NoError(l.t, err)
	_ = os.Symlink(self, l.path("heir")) // it may be there
	return fmt.Sprintf("ATLAS_HEIR='%s' exec %s", stage, l.path("heir"))
}

// A new process that does not come to serve changes nothing, and the log and /status
// say why. The next one that does takes over.
func TestUpgradeFails(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		root, bodies := files(t)
		good := staticText(engine, root, 2, withAdmin)
		l := startLineage(t, good)
		p := press(l.address, nil, bodies)
		for name, bad := range map[string]*badHeir{
			"a program that crashes": {"echo the disk is on fire >&2; exit 7", good,
				[]string{"it ended before it took over: exit status 7, having printed: the disk is on fire"}},
			"a program that is killed":                   {"kill -9 $$", good, []string{"signal: killed"}},
			"a program that is none":                     {"none", good, []string{"no such file"}},
			"a configuration that is wrong":              {"", good + "nonsense = 1\n", []string{"exit status 2", "nonsense"}},
			"a root that is gone":                        {"", strings.Replace(good, root, "/no/such/root", 1), []string{"/no/such/root"}},
			"one that panics with all that it was given": {l.ill("given"), good, []string{"exit status 2", "the heir is ill, given"}},
			"one that panics when it is to begin":        {l.ill("loaded"), good, []string{"exit status 2", "the heir is ill, loaded"}},
			"one that serves, and panics":                {l.ill("serving"), good, []string{"gone within", "the heir is ill, serving"}},
		} {
			l.try(name, good, bad)
		}
		before := l.now
		l.upgrade(false)
		l.says("whose place it took", func(r *admin.Report) bool {
			return r.PID == l.now && r.Upgrade.From == before && r.Upgrade.Failed == 0
		})
		p.end()
		assert.Zero(t, p.failures.Load(), "the first: %v", p.first)
		l.ends()
		assert.NoFileExists(t, l.path("admin"))
	})
}

// A new process that hangs has so much time and no more.
func TestUpgradeHangs(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		root, bodies := files(t)
		good := staticText(engine, root, 2, withAdmin+"[timeouts]\nupgrade = \"2s\"\n")
		l := startLineage(t, good)
		p := press(l.address, nil, bodies)
		for name, script := range map[string]string{
			"at once":                    "exec sleep 1000",
			"with all that it was given": l.ill("hanging"),
		} {
			l.try(name, good, &badHeir{script, good, []string{"not ready within 2s", "signal: killed"}})
		}
		p.end()
		assert.Zero(t, p.failures.Load(), "the first: %v", p.first)
		l.ends()
	})
}

// What became of the configuration while another process tried to take over is
// applied when that has failed.
func TestReloadDuringUpgrade(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		root, _ := files(t)
		good := staticText(engine, root, 2, withAdmin)
		l := startLineage(t, good)
		// It says that it was given everything, and waits to be told to end.
		l.replace("echo $$ > " + l.path("pid") + "; " + l.ill("hanging"))
		require.NoError(t, syscall.Kill(l.now, syscall.SIGUSR2))
		l.waitFor("msg=upgrading", 1)
		require.NoError(t, syscall.Kill(l.now, syscall.SIGUSR2))
		l.waitFor("SIGUSR2 ignored: an upgrade is under way", 1)
		l.configure(good + "[timeouts]\nidle = \"7s\"\n")
		// Until the heir has the sockets a reload is one as ever.
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			require.NoError(t, syscall.Kill(l.now, syscall.SIGHUP))
			if strings.Contains(l.log(), "another process is taking over") {
				break
			}
		}
		l.says("why not", func(r *admin.Report) bool {
			return strings.Contains(strings.Join(r.Config.Errors, "; "), "another process is taking over")
		})
		l.configure(good + "[timeouts]\nidle = \"8s\"\n")
		pid := 0
		text, err := os.ReadFile(l.path("pid"))
		require.NoError(t, err)
		_, err = fmt.Sscan(string(text), &pid)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		l.says("that it is applied", func(r *admin.Report) bool { return len(r.Config.Errors) == 0 && r.Upgrade.Failed == 1 })
		l.waitFor("-> \\\"8s\\\"", 1)
		l.install()
		l.upgrade(true)
		l.ends()
	})
}

// A process that is told to end while another one is about to take its place ends,
// and so does the other, which is not there yet.
func TestEndDuringUpgrade(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		root, _ := files(t)
		l := startLineage(t, staticText(engine, root, 2, withAdmin))
		l.replace("echo $$ > " + l.path("pid") + "; " + l.ill("hanging"))
		require.NoError(t, syscall.Kill(l.now, syscall.SIGUSR2))
		l.waitFor("msg=upgrading", 1)
		require.NoError(t, syscall.Kill(l.now, syscall.SIGTERM))
		l.waitFor("msg=ended", 1)
		pid := 0
		text, _ := os.ReadFile(l.path("pid")) // it may have ended before it wrote
		if _, err := fmt.Sscan(string(text), &pid); err == nil {
			assert.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "nobody is left")
		}
		_, err := net.DialTimeout("tcp", l.address, patience)
		assert.ErrorIs(t, err, syscall.ECONNREFUSED)
		assert.NoFileExists(t, l.path("admin"))
		assert.NoFileExists(t, l.path("s"))
	})
}
