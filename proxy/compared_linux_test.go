package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// TestUpgradeCompared puts nginx under the load of TestUpgradeUnderLoad, as many times
// in a row: new workers with a new configuration, and a new program, with the same
// number of workers and with others. It asserts nothing of nginx; its lines are for
// results/, so that only make upgrades wants them.
func TestUpgradeCompared(t *testing.T) {
	if os.Getenv("ATLAS_UPGRADES") == "" {
		t.Log("only where ATLAS_UPGRADES is set")
		return
	}
	requireInstalled(t, "nginx")
	s := newShore(t)
	s.either(t, func(t *testing.T, secure *tls.Config) {
		for _, row := range []struct {
			what, subject string
			change        func(n *nginx, p *pressure, i int)
		}{
			{"reload", "nginx", func(n *nginx, p *pressure, i int) {
				n.configure(i, 2)
				n.reload()
			}},
			{"upgrade", "nginx-same-workers", func(n *nginx, p *pressure, i int) {
				n.configure(i, 2)
				n.upgrade(p)
			}},
			{"upgrade", "nginx", func(n *nginx, p *pressure, i int) {
				n.configure(i, workersInTurn(i))
				n.upgrade(p)
			}},
		} {
			t.Run(row.what+"/"+row.subject, func(t *testing.T) {
				n := startNginx(t, s, secure != nil)
				p := press(n.address, secure, s.bodies)
				for i := range changesInRow(t) {
					row.change(n, p, i)
					p.another(t)
				}
				p.end()
				p.record(t, row.what, secure != nil, row.subject)
				assert.Positive(t, p.requests.Load())
			})
		}
	})
}

// nginx is one that runs, as a daemon: another one ignores USR2.
type nginx struct {
	t            testing.TB
	shore        *shore
	secure       bool
	dir, address string
}

func startNginx(t testing.TB, s *shore, secure bool) *nginx {
	t.Helper()
	dir, err := os.MkdirTemp("", "nginx")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	n := &nginx{t: t, shore: s, secure: secure, dir: dir, address: freeAddress(t)}
	n.configure(1, 2)
	program, err := exec.LookPath("nginx") // by its path: it starts that again at USR2
	require.NoError(t, err)
	out, err := exec.Command(program, "-p", dir, "-c", filepath.Join(dir, "conf")).CombinedOutput()
	require.NoError(t, err, string(out))
	t.Cleanup(func() {
		for _, file := range []string{"pid.oldbin", "pid"} {
			if pid := n.pid(file); pid > 0 {
				_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
			}
		}
		n.eventually("nginx to end", func() bool { return n.pid("pid") == 0 && n.pid("pid.oldbin") == 0 })
		_ = os.RemoveAll(dir)
	})
	n.eventually("nginx to start", func() bool { return n.pid("pid") > 0 && n.logged("start worker process ") == 2 })
	return n
}

// configure writes the i-th configuration.
func (n *nginx) configure(i, workers int) {
	n.t.Helper()
	with, pair := "", ""
	if n.secure {
		with = " ssl"
		pair = fmt.Sprintf("ssl_certificate %s; ssl_certificate_key %s;", n.shore.certs[i%2], n.shore.keys[i%2])
	}
	// As root it would serve as another user, who may not read the files of a test.
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	text := fmt.Sprintf(`%[1]s
worker_processes %[6]d;
pid %[2]s/pid;
error_log %[2]s/log notice;
events { worker_connections 1024; }
http {
	access_log off;
	client_body_temp_path %[2]s/a; proxy_temp_path %[2]s/b; fastcgi_temp_path %[2]s/c;
	uwsgi_temp_path %[2]s/d; scgi_temp_path %[2]s/e;
	keepalive_requests 1000000;
	keepalive_timeout %[7]ds;
	server { listen %[3]s%[4]s reuseport; root %[5]s; %[8]s }
}
`, user, n.dir, n.address, with, []string{n.shore.root, n.shore.other}[i/2%2], workers, 60+i, pair)
	require.NoError(n.t, os.WriteFile(filepath.Join(n.dir, "conf"), []byte(text), 0o644))
}

func freeAddress(t testing.TB) string {
	t.Helper()
	ln, err := loop.ListenTCP("127.0.0.1:0", 0)
	require.NoError(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// pid is the number in a file; 0 is none.
func (n *nginx) pid(file string) int {
	text, err := os.ReadFile(filepath.Join(n.dir, file))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (n *nginx) eventually(what string, cond func() bool) {
	n.t.Helper()
	for end := time.Now().Add(3 * patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
	}
	n.t.Errorf("waited in vain for %s", what)
}

// logged is how often a text is in the log.
func (n *nginx) logged(text string) int {
	log, err := os.ReadFile(filepath.Join(n.dir, "log"))
	require.NoError(n.t, err)
	return strings.Count(string(log), text)
}

// started and ended count workers.
func (n *nginx) started() int { return n.logged("start worker process ") }
func (n *nginx) ended() int   { return n.logged("gracefully shutting down") }

// reload gives it new workers, and waits until the old ones take no more.
func (n *nginx) reload() {
	n.t.Helper()
	started, ended := n.started(), n.ended()
	require.NoError(n.t, syscall.Kill(n.pid("pid"), syscall.SIGHUP))
	n.eventually("new workers", func() bool { return n.started() >= started+2 })
	n.eventually("the end of the old ones", func() bool { return n.ended() >= ended+2 })
}

// upgrade is what its manual says: a new program beside the old one, which ends in
// order when the new one serves.
func (n *nginx) upgrade(p *pressure) {
	n.t.Helper()
	old, before := n.pid("pid"), n.logged("start worker processes")
	require.NoError(n.t, syscall.Kill(old, syscall.SIGUSR2))
	n.eventually("a new program", func() bool {
		now := n.pid("pid")
		return now > 0 && now != old && n.logged("start worker processes") > before
	})
	p.another(n.t)
	require.NoError(n.t, syscall.Kill(old, syscall.SIGQUIT))
	// It has to be gone, not only its file: nginx ignores USR2 for as long as its
	// parent is the program before it (ngx_signal_handler).
	n.eventually("the end of the old one", func() bool { return n.pid("pid.oldbin") == 0 && parent(n.pid("pid")) != old })
}

// parent is the process that a process belongs to.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ppid, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return ppid
}
