package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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

	"atlas/proxy/admin"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// troubled is a process whose logs are in trouble: what it does is asked of its
// admin listener.
type troubled struct {
	*process
	t     testing.TB
	admin *http.Client
}

// startTroubled runs a program by a shell, for what only a shell can do to it; $0 is
// the program and $1 its configuration.
func startTroubled(t testing.TB, text, shell string, stdout, stderr *os.File) *troubled {
	t.Helper()
	dir, err := os.MkdirTemp("", "logs") // a Unix socket has a short path
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	require.NoError(t, err)
	program, file, socket := dir+"/atlas", dir+"/atlas.toml", dir+"/admin"
	require.NoError(t, os.Symlink(self, program))
	text += fmt.Sprintf("[admin]\naddress = %q\n", "unix:"+socket)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	p := &process{cmd: exec.Command("sh", "-c", shell, program, file), log: new(looptest.Printed),
		exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), exitAtOnce)
	p.cmd.Stderr = p.log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	if stderr != nil {
		p.cmd.Stderr = stderr
	}
	require.NoError(t, looptest.Start(p.cmd))
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says how it ended
	}()
	t.Cleanup(p.kill)
	r := &troubled{process: p, t: t, admin: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
	t.Cleanup(r.admin.CloseIdleConnections)
	r.eventually("it serves", func() bool {
		if resp, err := r.admin.Get("http://admin/readyz"); err != nil || resp.Body.Close() != nil || resp.StatusCode != 200 {
			return false
		}
		r.address = r.status().Listeners[0].Address
		return true
	})
	return r
}

func (r *troubled) eventually(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-r.exited:
			r.t.Fatalf("%s: it ended, %v:\n%s", what, r.cmd.ProcessState, r.log)
		default:
		}
		if time.Now().After(end) {
			r.t.Fatalf("never: %s:\n%s", what, r.log)
		}
	}
}

func (r *troubled) status() (report admin.Report) {
	r.t.Helper()
	resp, err := r.admin.Get("http://admin/status")
	require.NoError(r.t, err)
	defer resp.Body.Close()
	require.NoError(r.t, json.NewDecoder(resp.Body).Decode(&report))
	return report
}

// metric is the value of a metric that has no label, or the one that name has.
func (r *troubled) metric(name string) int64 {
	r.t.Helper()
	resp, err := r.admin.Get("http://admin/metrics")
	require.NoError(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(r.t, err)
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindSubmatch(text)
	require.NotNil(r.t, found, name)
	value, err := strconv.ParseFloat(string(found[1]), 64)
	require.NoError(r.t, err)
	return int64(value)
}

// asks has a client make so many requests, each of which is answered.
func (r *troubled) asks(count int, target string, status int) {
	r.t.Helper()
	c, err := net.Dial("tcp", r.address)
	require.NoError(r.t, err)
	defer c.Close()
	require.NoError(r.t, c.SetDeadline(time.Now().Add(patience)))
	in := bufio.NewReader(c)
	for range count {
		_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target)
		require.NoError(r.t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(r.t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(r.t, err)
		require.Equal(r.t, status, resp.StatusCode)
	}
}

func (r *troubled) ends() {
	r.t.Helper()
	require.NoError(r.t, r.cmd.Process.Signal(syscall.SIGTERM))
	status, err := r.end()
	require.NoError(r.t, err)
	assert.Zero(r.t, status, "%v\n%s", r.cmd.ProcessState, r.log)
}

// plainShell runs the program as it is.
const plainShell = `exec "$0" "$1"`

// goneReader is a pipe that nobody will ever read.
func goneReader(t testing.TB) *os.File {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, out.Close())
	t.Cleanup(func() { _ = in.Close() })
	return in
}

// deafReader is a pipe that somebody could read.
func deafReader(t testing.TB) *os.File {
	t.Helper()
	out, in, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = in.Close(), out.Close() })
	return in
}

// Whatever becomes of the access log, requests are answered, the lines that are lost
// are counted, and the process ends as it should.
func TestAccessLogInTrouble(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for _, row := range []struct {
			name  string
			path  func(t *testing.T, dir string) string
			shell string
			out   func(t testing.TB) *os.File
		}{
			{name: "full disk", path: func(*testing.T, string) string { return "/dev/full" }},
			{name: "file that may not grow", shell: `ulimit -f 16; exec "$0" "$1"`, // SIGXFSZ
				path: func(_ *testing.T, dir string) string { return dir + "/log" }},
			{name: "fifo without a reader", path: fifo},
			{name: "fifo with a reader that reads nothing", path: func(t *testing.T, dir string) string {
				path := fifo(t, dir)
				reader, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
				require.NoError(t, err)
				t.Cleanup(func() { _ = reader.Close() })
				return path
			}},
			{name: "standard output without a reader", out: goneReader},
			{name: "standard output with a reader that reads nothing", out: deafReader},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				path, shell := "-", plainShell
				if row.path != nil {
					path = row.path(t, t.TempDir())
				}
				if row.shell != "" {
					shell = row.shell
				}
				var out *os.File
				if row.out != nil {
					out = row.out(t)
				}
				r := startTroubled(t, looptest.StaticConfig(t, engine, fmt.Sprintf("[access_log]\npath = %q\n", path)),
					shell, out, nil)
				long := "/a?" + strings.Repeat("x", 8000)
				r.eventually("lines are dropped", func() bool {
					r.asks(50, long, 200)
					return r.metric("atlas_access_log_dropped_total") > 0
				})
				r.asks(10, "/a", 200)
				assert.Positive(t, r.status().Counters["access_log_dropped_total"])
				r.eventually("the other log tells", func() bool {
					return strings.Contains(r.log.String(), "access log: lines dropped")
				})
				r.ends()
			})
		}
	})
}

func fifo(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	return path
}

// Nor does it matter what becomes of the log of errors.
func TestErrorLogInTrouble(t *testing.T) {
	full := func(t testing.TB) *os.File {
		t.Helper()
		file, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = file.Close() })
		return file
	}
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for _, row := range []struct {
			name    string
			to      func(t testing.TB) *os.File
			shell   string
			counted bool
		}{
			{"full disk", full, plainShell, true},
			{"no reader", goneReader, plainShell, true},
			{"a reader that reads nothing", deafReader, plainShell, true},
			{"no reader, for the standard output too", goneReader, `exec "$0" "$1" >&2`, true},
			// What is closed is /dev/null to a Go program, so there is nothing to count.
			{"both closed", nil, `exec "$0" "$1" >&- 2>&-`, false},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				var to *os.File
				if row.to != nil {
					to = row.to(t)
				}
				// Nobody is at port 1: each request is a line.
				r := startTroubled(t, looptest.ProxyConfig(engine, []string{"127.0.0.1:1"}), row.shell, nil, to)
				const lines = `atlas_log_dropped_total{what="lines"}`
				r.asks(100, "/", 502)
				if row.counted {
					r.eventually("lines are dropped", func() bool {
						if r.metric(lines) > 0 {
							return true
						}
						r.asks(200, "/"+strings.Repeat("x", 1000), 502)
						return false
					})
					assert.Positive(t, r.status().Dropped.Lines)
				}
				r.asks(10, "/", 502)
				r.ends()
			})
		}
	})
}

// Rotation is a rename and SIGUSR1: each line is in one of the files, in its place,
// and none is in the old one as soon as there is a new one.
func TestAccessLogRotates(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		dir := t.TempDir()
		file := filepath.Join(dir, "access.log")
		r := launch(t, strings.Replace(looptest.StaticConfig(t, engine, fmt.Sprintf("[access_log]\npath = %q\n", file)),
			"workers = 2", "workers = 1", 1)) // lines of two come in the order of neither
		n := 0
		_, in := dial(t, r.address, "/a?0")
		receive(t, in)
		n++
		c, err := net.Dial("tcp", r.address)
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		in = bufio.NewReader(c)
		ask := func() {
			_, err := fmt.Fprintf(c, "GET /a?%d HTTP/1.1\r\nHost: a\r\n\r\n", n)
			require.NoError(t, err)
			receive(t, in)
			n++
		}
		var old []string
		for i := range 5 {
			for range 20 {
				ask()
			}
			moved := fmt.Sprintf("%s.%d", file, i)
			require.NoError(t, os.Rename(file, moved))
			ask() // may be in either
			r.signal(syscall.SIGUSR1)
			ask() // the same
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				if _, err := os.Stat(file); err == nil {
					break
				}
				require.True(t, time.Now().Before(end), "no new file: %s", r.log)
				ask()
			}
			last, err := os.ReadFile(moved)
			require.NoError(t, err)
			old = append(old, string(last))
			ask()
		}
		r.signal(syscall.SIGTERM)
		r.exits(0)
		all := ""
		for i, text := range old {
			now, err := os.ReadFile(fmt.Sprintf("%s.%d", file, i))
			require.NoError(t, err)
			assert.Equal(t, text, string(now), "a line came late")
			all += text
		}
		last, err := os.ReadFile(file)
		require.NoError(t, err)
		decoder := json.NewDecoder(bytes.NewReader(append([]byte(all), last...)))
		for i := range n {
			var line struct{ Target string }
			require.NoError(t, decoder.Decode(&line), "line %d", i)
			require.Equal(t, fmt.Sprintf("/a?%d", i), line.Target)
		}
		assert.False(t, decoder.More(), "a line is there twice")
	})
}

// What a client sends stays within its value, in every format.
func TestAccessLogInjection(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for format, want := range map[string]string{
			"json":               `"agent":"x\" 200 \\ ä` + "\ufffd" + `[31m"`,
			"combined":           `"x\" 200 \\ \xc3\xa4\xff[31m"` + "\n",
			`{status} "{agent}"`: `200 "x\" 200 \\ \xc3\xa4\xff[31m"` + "\n",
		} {
			file := filepath.Join(t.TempDir(), "access.log")
			r := launch(t, looptest.StaticConfig(t, engine, fmt.Sprintf("[access_log]\npath = %q\nformat = '%s'\n", file, format)))
			c, err := net.Dial("tcp", r.address)
			require.NoError(t, err)
			require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a\r\nUser-Agent: x\" 200 \\ ä\xff[31m\r\nConnection: close\r\n\r\n")
			require.NoError(t, err)
			resp, _ := receive(t, bufio.NewReader(c))
			require.NoError(t, c.Close())
			require.Equal(t, 200, resp.StatusCode)
			r.signal(syscall.SIGTERM)
			r.exits(0)
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Contains(t, string(text), want)
			assert.Equal(t, 1, bytes.Count(text, []byte("\n")))
		}
	})
}
