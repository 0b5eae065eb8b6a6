package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// resident is the memory of the process, in bytes.
func (r *running) resident() int {
	r.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	require.NoError(r.t, err)
	_, value, _ := strings.Cut(string(text), "VmRSS:")
	kilobytes, err := strconv.Atoi(strings.Fields(value)[0])
	require.NoError(r.t, err)
	return kilobytes << 10
}

// forwarding launches the program in front of a handler.
func forwarding(t *testing.T, engine loop.Engine, h http.HandlerFunc, more string) *running {
	t.Helper()
	origin := httptest.NewServer(h)
	t.Cleanup(origin.Close)
	o := &slowOrigin{address: strings.TrimPrefix(origin.URL, "http://")}
	return launch(t, o.proxyConfig(engine, more))
}

// ping is a client that is served at once, whatever others do.
func (r *running) ping() {
	r.t.Helper()
	c, in := dial(r.t, r.address, "/ping")
	resp, body := receive(r.t, in)
	assert.Equal(r.t, 200, resp.StatusCode)
	assert.Equal(r.t, "pong", body)
	require.NoError(r.t, c.Close())
}

// Clients that ask for much and read nothing: what they asked for stays at the
// upstream and in the kernel, not with us.
func TestNeverReadingIsBounded(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	clients := 20
	if invariant.Enabled { // memory is not measured then, and what they ask for takes its time
		clients = 8
	}
	// Two buffers of 64 KiB, heads and a stack come to some 200 KiB. When the
	// collector runs, and what it gives back, is its own affair: what tells bounded from
	// not is the 10 MiB that each has asked for, so the bound lies well between the two.
	const perClient = 1 << 20
	large := make([]byte, size)
	for name, request := range map[string]string{
		"large":     "GET /large HTTP/1.1\r\nHost: a\r\n\r\n",
		"streamed":  "GET /streamed HTTP/1.1\r\nHost: a\r\n\r\n",
		"pipelined": strings.Repeat("GET /small HTTP/1.1\r\nHost: a\r\n\r\n", 3000),
	} {
		t.Run(name, func(t *testing.T) {
			looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
				r := forwarding(t, engine, func(w http.ResponseWriter, r *http.Request) {
					switch r.URL.Path {
					case "/large":
						w.Header().Set("Content-Length", strconv.Itoa(size))
						_, _ = w.Write(large)
					case "/streamed":
						for i := 0; i < size; i += 1000 {
							if _, err := w.Write(large[:1000]); err != nil {
								return
							}
						}
					case "/small":
						_, _ = w.Write(large[:3000])
					default:
						_, _ = io.WriteString(w, "pong")
					}
				}, "write = \"1h\"")
				for range 20 {
					r.ping()
				}
				// The first of them make a worker use what it has set aside.
				first, second := r.stuck(clients, request), r.stuck(clients, request)
				r.ping()
				t.Logf("%d kB for %d clients, %d kB for as many more; they asked for %d kB each",
					first>>10, clients, second>>10, size>>10)
				if !invariant.Enabled { // the race detector has memory of its own
					const arenas = 2 * 16 << 20 // of two workers, at most
					assert.Less(t, first, arenas+clients*perClient)
					assert.Less(t, second, clients*perClient)
				}
			})
		})
	}
}

// stuck adds clients that ask and do not read, and returns by how much the process
// has grown when nothing moves any more.
func (r *running) stuck(clients int, request string) (grown int) {
	r.t.Helper()
	before := r.resident()
	for range clients {
		c, err := net.Dial("tcp", r.address)
		require.NoError(r.t, err)
		r.t.Cleanup(func() { _ = c.Close() })
		go func() { _, _ = io.WriteString(c, request) }() // it is stuck, too
	}
	// Three looks alike: on a machine with other work, a pause is no end.
	for alike, end := 0, time.Now().Add(patience); alike < 3 && time.Now().Before(end); alike++ {
		time.Sleep(150 * time.Millisecond)
		if now := r.resident() - before; now != grown {
			grown, alike = now, 0
		}
	}
	return grown
}

// Clients that begin, and do not go on: each is told so when its time is over,
// and nobody else waits for them.
func TestSlowClients(t *testing.T) {
	const each = 30
	const total = 300 * time.Millisecond
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		r := forwarding(t, engine, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "pong")
		}, "header = \"300ms\"\nbody = \"300ms\"")
		var slow sync.WaitGroup
		for _, row := range []struct {
			first string
			drip  string // sent on, byte by byte
		}{
			{"GET / HTTP/1.1\r\nHost: a\r\nX: ", strings.Repeat("slow", 10_000)},
			{"G", "ET / HTTP/1.1"},
			{"GET / HTTP/1.1\r\nHost: a\r\n", ""},
			{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n", ""},
			{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc", ""},
			{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", ""},
			{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", ""},
		} {
			for range each {
				c, err := net.Dial("tcp", r.address)
				require.NoError(t, err)
				slow.Go(func() { assert.NoError(t, isTold(c, row.first, row.drip), "%q", row.first) })
			}
		}
		start := time.Now()
		for time.Since(start) < total {
			r.ping()
		}
		slow.Wait()
		r.ping()
	})
}

// isTold sends first, then the drip, and wants 408 and the end.
func isTold(c net.Conn, first, drip string) error {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, first); err != nil {
		return err
	}
	done := make(chan struct{})
	var dripping sync.WaitGroup
	dripping.Go(func() {
		for i := range drip {
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = io.WriteString(c, drip[i:i+1]) // it ends with the connection
			}
		}
	})
	text, err := io.ReadAll(c)
	close(done)
	dripping.Wait()
	if err == nil && !strings.HasPrefix(string(text), "HTTP/1.1 408 ") {
		err = fmt.Errorf("not told: %.100q", text)
	}
	return err
}
