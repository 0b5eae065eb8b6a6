package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
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

// sockets are the open sockets of a process, each as the kernel's tables have it:
// "tcp 127.0.0.1:80 listen", "unix", "udp 0.0.0.0:0", and how often.
func (r *running) sockets() map[string]int {
	r.t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", r.cmd.Process.Pid))
	require.NoError(r.t, err)
	require.NotEmpty(r.t, links)
	known := make(map[string]string) // inode to what it is
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue // without IPv6
		}
		for line := range strings.Lines(string(text)) {
			inode, what := socketLine(table, strings.Fields(line))
			known[inode] = what
		}
	}
	found := make(map[string]int)
	for _, link := range links {
		target, _ := os.Readlink(link)
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			found[known[strings.TrimSuffix(inode, "]")]]++
		}
	}
	return found
}

// socketLine is the inode of a line of /proc/net, and what it says.
func socketLine(table string, fields []string) (inode, what string) {
	if len(fields) < 10 {
		if table == "unix" && len(fields) >= 7 {
			return fields[6], "unix"
		}
		return "", ""
	}
	const listening = "0A" // TCP_LISTEN, include/net/tcp_states.h
	host, port, _ := strings.Cut(fields[1], ":")
	number, _ := strconv.ParseUint(port, 16, 16)
	what = fmt.Sprintf("%s %s:%d", table, host, number)
	if fields[3] == listening {
		what += " listen"
	}
	return fields[9], what
}

// A process listens where its configuration says, and has no other door: no Unix
// socket that another user could find, no port of its own.
func TestOneDoor(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		o := startOrigin(t)
		r := launch(t, o.proxyConfig(engine, ""))
		_, in := dial(t, r.address, "/fast")
		receive(t, in)
		_, port, _ := net.SplitHostPort(r.address)
		door := "tcp 0100007F:" + port + " listen"
		found := r.sockets()
		listeners := 2 // of the ring's workers
		if engine == loop.Netpoll {
			listeners = 1
		}
		assert.Equal(t, listeners, found[door], "%v", found)
		for what := range found {
			assert.True(t, what == door || strings.HasPrefix(what, "tcp ") && !strings.HasSuffix(what, "listen"),
				"it has a socket that nobody asked for: %q", what)
		}
	})
}

// manyWorkers has more listeners than the kernel can fill with a few connections,
// so most of them are idle.
const manyWorkers = 20

// A signal ends a process whose workers have nothing to do, at once: none waits
// for one more connection. From then on everyone is refused: no listener is left
// in which a connection would wait for nobody.
func TestSignalRefuses(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("busy=%v", busy), func(t *testing.T) {
				o := startOrigin(t)
				text := strings.Replace(o.proxyConfig(engine, "drain = \"1h\""), "workers = 2", fmt.Sprintf("workers = %d", manyWorkers), 1)
				r := launch(t, text)
				for range 3 * manyWorkers { // every listener answers
					c, in := dial(t, r.address, "/fast")
					receive(t, in)
					require.NoError(t, c.Close())
				}
				var slow *bufio.Reader
				if busy {
					_, slow = dial(t, r.address, "/slow")
					<-o.asked
				}
				r.signal(syscall.SIGTERM)
				r.logs("msg=draining")
				refused := 0
				for end := time.Now().Add(patience); refused < 3*manyWorkers; {
					require.True(t, time.Now().Before(end), "it still accepts")
					if hangs := connectAnd(t, r.address); hangs == nil {
						refused = 0
					} else {
						refused++
					}
				}
				if busy {
					o.release()
					_, body := receive(t, slow)
					assert.Contains(t, body, "GET /slow")
				}
				r.exits(0)
				assert.NotContains(t, r.log.String(), "level=WARN")
			})
		}
	})
}

// connectAnd asks for something. It is refused, answered, or ended, and never
// left waiting. nil is what was not refused.
func connectAnd(t *testing.T, address string) error {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		// Reset is what the kernel had taken for a listener that closed then.
		require.True(t, errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET), "%v", err)
		if errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		return err
	}
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, _ = io.WriteString(c, "GET /fast HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = c.(*net.TCPConn).CloseWrite() // of a connection that is kept, else
	_, err = io.ReadAll(c)            // the end, behind an answer or not
	var timeout net.Error
	require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "it was accepted and left alone")
	return nil
}
