package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// ticks is the processor time that the child has used, in hundredths of a second.
func (c *child) ticks() (n int) {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):])) // from field 2
	for _, field := range fields[12:14] {                                             // utime and stime, 14 and 15
		used, err := strconv.Atoi(field)
		require.NoError(c.t, err)
		n += used
	}
	return n
}

// More clients than descriptors: those that have one are served, the others wait
// until there is one, and nobody spins meanwhile.
func TestNoDescriptorsLeft(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		const limit, clients = 64, 150
		c := prepare(t, looptest.StaticConfig(t, engine, "[limits]\nconnections = 1000\n")) // so that it is the system that says no
		c.cmd.Path = "/bin/sh"
		c.cmd.Args = []string{"sh", "-c", fmt.Sprintf("ulimit -n %d && exec \"$0\"", limit), os.Args[0]}
		require.NoError(t, looptest.Start(c.cmd))
		c.started().listening()
		var waiting []*client
		for range clients {
			one := dial(t, c.address) // the kernel has room for them
			// In the middle of a request, or it would be ended to make room.
			one.send("DELETE /a HTTP/1.1\r\nHost: a\r\n")
			waiting = append(waiting, one)
		}
		descriptors := func() int {
			entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
			require.NoError(t, err)
			return len(entries)
		}
		eventually(t, "all descriptors to be in use", func() bool { return descriptors() >= limit })
		const watched = 1500 * time.Millisecond
		before := c.ticks()
		time.Sleep(watched)
		used := c.ticks() - before
		t.Logf("%d ms of processor time in %v", used*10, watched)
		assert.Less(t, used, 30, "hundredths of a second: it spins")
		for _, one := range waiting { // each that ends makes room for the next
			one.send("Connection: close\r\n\r\n") // DELETE needs no file
		}
		for _, one := range waiting {
			resp, _ := one.receive()
			assert.Equal(t, 405, resp.StatusCode)
			require.NoError(t, one.Close())
		}
		assert.Empty(t, c.log.lines("level=ERROR"))
		assert.NotEmpty(t, c.log.lines("no descriptors or memory left"))
	})
}

// Twenty workers, twenty listeners: each of them has somebody who accepts.
func TestNoListenerIsDeaf(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		s := launch(t, strings.Replace(looptest.StaticConfig(t, engine), "workers = 2", "workers = 20", 1), nil)
		reached := make(map[int]bool)
		for range 2000 { // the chance that one of twenty is left out is 20 * (19/20)^2000
			if len(reached) == len(s.listeners()) {
				break
			}
			c := dial(t, s.Addr())
			assert.Equal(t, "hello", c.get("/a"))
			for i, w := range s.workers {
				if w.Counters().Open.Load() > 0 {
					reached[i] = true
				}
			}
			require.NoError(t, c.SetLinger(0)) // leaves no port behind
			require.NoError(t, c.Close())
		}
		if len(s.listeners()) > 1 { // else they share one
			assert.Len(t, reached, 20)
		}
	})
}
