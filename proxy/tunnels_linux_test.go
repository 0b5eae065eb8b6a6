package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// echoOrigin says back what it is told.
func echoOrigin(t testing.TB) (port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c) // until either end closes
				_ = c.Close()
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// tunnel is a connection through the tcp mode.
type tunnel struct {
	t  testing.TB
	c  net.Conn
	in *bufio.Reader
}

func openTunnel(t testing.TB, address string) *tunnel {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // most tests have closed it
	require.NoError(t, c.SetDeadline(time.Now().Add(3*patience)))
	return &tunnel{t, c, bufio.NewReader(c)}
}

// talk says a line, which comes back.
func (u *tunnel) talk(line string) {
	u.t.Helper()
	_, err := io.WriteString(u.c, line+"\n")
	require.NoError(u.t, err)
	got, err := u.in.ReadString('\n')
	require.NoError(u.t, err)
	assert.Equal(u.t, line+"\n", got)
}

func tcpText(engine loop.Engine, port, drain string) string {
	return fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = 0\nmode = \"tcp\"\nworkers = 2\npin = false\nengine = %q\n"+
		"[[upstreams]]\nname = \"echo\"\naddress = \"127.0.0.1\"\nport = %s\n[timeouts]\ndrain = %q\n", engine, port, drain)
}

// Tunnels outlive reloads and upgrades: the process that has them goes on until they
// end, and systemd knows by then which one is the service.
func TestUpgradeKeepsTunnels(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		dir, err := os.MkdirTemp("", "notify")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		n := listenNotices(t, dir+"/s")
		t.Setenv("NOTIFY_SOCKET", dir+"/s")
		port := echoOrigin(t)
		text := tcpText(engine, port, "1h")
		l := startLineage(t, text)
		first := openTunnel(t, l.address)
		first.talk("before")
		l.configure(strings.Replace(text, "[timeouts]", "[timeouts]\nconnect = \"3s\"", 1))
		l.reload()
		first.talk("after a reload")
		old := l.now
		l.upgrade(false)
		n.await(fmt.Sprintf("MAINPID=%d", l.now))
		require.NoError(t, syscall.Kill(old, 0), "the old process is there when systemd is told of the new one")
		second := openTunnel(t, l.address)
		second.talk("by the new one")
		first.talk("after an upgrade")
		l.upgrade(true)
		first.talk("after two")
		second.talk("after one")
		assert.NotContains(t, l.log(), "msg=ended")
		require.NoError(t, second.c.Close())
		l.waitFor("msg=ended", 1)
		first.talk("alone in its process")
		require.NoError(t, first.c.Close())
		l.waitFor("msg=ended", 2)
		assert.NotContains(t, l.log(), "cut what had not ended")
		l.ends()
	})
}

// A tunnel that does not end has as long as timeouts.drain says.
func TestUpgradeCutsTunnels(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		l := startLineage(t, tcpText(engine, echoOrigin(t), "200ms"))
		first := openTunnel(t, l.address)
		first.talk("before")
		l.upgrade(false)
		l.waitFor("cut what had not ended in time", 1)
		_, err := first.in.ReadByte()
		assert.Error(t, err)
		openTunnel(t, l.address).talk("by the new one")
		l.waitFor("msg=ended", 1)
	})
}
