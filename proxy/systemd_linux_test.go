package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// notices are what processes tell systemd: the test plays it.
type notices struct {
	t    testing.TB
	conn *net.UnixConn
	seen []string
}

func listenNotices(t testing.TB, path string) *notices {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &notices{t: t, conn: conn}
}

// await reads until something has been told.
func (n *notices) await(text string) {
	n.t.Helper()
	require.NoError(n.t, n.conn.SetReadDeadline(time.Now().Add(patience)))
	for {
		p := make([]byte, 4096)
		read, err := n.conn.Read(p)
		require.NoError(n.t, err, "waited for %q after %q", text, n.seen)
		n.seen = append(n.seen, string(p[:read]))
		if strings.Contains(string(p[:read]), text) {
			return
		}
	}
}

// systemd is told when the process serves, that it lives, who takes its place, and
// when the last one ends.
func TestNotify(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		dir, err := os.MkdirTemp("", "notify")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		n := listenNotices(t, dir+"/s")
		t.Setenv("NOTIFY_SOCKET", dir+"/s")
		t.Setenv("WATCHDOG_USEC", "200000")
		root, _ := files(t)
		l := startLineage(t, staticText(engine, root, 2, "[timeouts]\ndrain_delay = \"50ms\"\n"))
		n.await(fmt.Sprintf("READY=1\nMAINPID=%d", l.now))
		n.await("WATCHDOG=1")
		n.await("WATCHDOG=1")
		require.NoError(t, syscall.Kill(l.now, syscall.SIGHUP))
		n.await("RELOADING=1\nMONOTONIC_USEC=")
		n.await("READY=1")
		n.seen = nil
		old := l.now
		l.upgrade(false)
		n.await(fmt.Sprintf("MAINPID=%d", l.now))
		assert.NotEqual(t, old, l.now)
		n.await("WATCHDOG=1")
		assert.NotContains(t, n.seen, "STOPPING=1", "the service goes on")
		l.ends()
		n.await("STOPPING=1")
	})
}

// systemd opens the socket and starts the program when a client comes; it goes on
// with the socket when that ends, so it is never made to refuse.
func TestActivation(t *testing.T) {
	t.Parallel()
	requireInstalled(t, "systemd-socket-activate")
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for name, options := range map[string][]string{"by address": nil, "by name": {"--fdname=listen"}} {
			root, bodies := files(t)
			port := fmt.Sprint(looptest.FreePort(t))
			address := "127.0.0.1:" + port
			asked := port
			if options != nil {
				asked = "1" // a name goes before an address
			}
			l := prepareLineage(t, strings.Replace(staticText(engine, root, 3, ""), "port = 0", "port = "+asked, 1))
			args := append(options, "-l", address, "-E", "PATH", "-E", "GORACE", l.path("atlas"), l.path("atlas.toml"))
			log, err := os.Create(l.path("log"))
			require.NoError(t, err)
			cmd := exec.Command("systemd-socket-activate", args...)
			cmd.Env = append(os.Environ(), exitAtOnce, "PATH="+l.dir+":"+os.Getenv("PATH"))
			cmd.Stderr = log
			require.NoError(t, looptest.Start(cmd))
			require.NoError(t, log.Close())
			l.now, l.pids, l.address = cmd.Process.Pid, []int{cmd.Process.Pid}, address
			l.waitFor("Listening on", 1)
			c, in := dial(t, address, "/small") // it waits for the program to start
			_, body := receive(t, in)
			assert.Equal(t, string(bodies["/small"]), body, name)
			require.NoError(t, c.Close())
			for range 20 {
				_, in := dial(t, address, "/small")
				receive(t, in)
			}
			l.upgrade(false) // the next process has it by the same name
			_, in = dial(t, address, "/small")
			receive(t, in)
			require.NoError(t, syscall.Kill(l.now, syscall.SIGTERM))
			l.waitFor("msg=ended", 2)
			_ = cmd.Wait()
			assert.NotContains(t, l.log(), "level=WARN", name)
		}
	})
}

// A systemd that does not read holds nobody up.
func TestNotifyUnread(t *testing.T) {
	dir, err := os.MkdirTemp("", "notify")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/s", Net: "unixgram"})
	require.NoError(t, err)
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", dir+"/s")
	for range 10_000 { // more than net.unix.max_dgram_qlen
		if err = sdNotify("WATCHDOG=1"); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	t.Setenv("NOTIFY_SOCKET", dir+"/nobody")
	require.ErrorIs(t, sdNotify("READY=1"), os.ErrNotExist)
}
