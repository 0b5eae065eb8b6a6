package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// patience bounds what has to happen; nothing here is measured.
const patience = 20 * time.Second

// process is the program, running.
type process struct {
	cmd     *exec.Cmd
	log     *looptest.Printed
	address string
	exited  chan struct{}
}

// exitAtOnce keeps a program with the race detector in it from sleeping for a
// second at its end.
const exitAtOnce = "GORACE=atexit_sleep_ms=0"

var addressField = regexp.MustCompile(`msg=listening address=(\S+) `)

// startProcess runs a configuration and waits until it listens. The caller ends it.
func startProcess(file, dir string, stderr *os.File) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(self, file), log: new(looptest.Printed), exited: make(chan struct{})}
	p.cmd.Args[0] = "atlas"
	p.cmd.Env = append(os.Environ(), exitAtOnce)
	p.cmd.Dir = dir
	p.cmd.Stderr = p.log
	if stderr != nil {
		p.cmd.Stderr = stderr
	}
	if err := looptest.Start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // the state says how it ended
	}()
	if stderr != nil {
		return p, nil // whoever reads it knows when it listens
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if found := addressField.FindStringSubmatch(p.log.String()); found != nil {
			p.address = found[1]
			return p, nil
		}
		select {
		case <-p.exited:
			return nil, fmt.Errorf("it ended, %v:\n%s", p.cmd.ProcessState, p.log)
		default:
		}
	}
	p.kill()
	return nil, fmt.Errorf("it does not listen:\n%s", p.log)
}

// end waits until it has ended and returns its exit status.
func (p *process) end() (status int, err error) {
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return -1, fmt.Errorf("it does not end:\n%s", p.log)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// running is a process that a test started.
type running struct {
	*process
	t testing.TB
}

func launch(t testing.TB, text string) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "atlas.toml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	p, err := startProcess(file, "", nil)
	require.NoError(t, err)
	t.Cleanup(p.kill)
	return &running{p, t}
}

func (r *running) signal(s syscall.Signal) {
	r.t.Helper()
	require.NoError(r.t, r.cmd.Process.Signal(s))
}

func (r *running) exits(status int) {
	r.t.Helper()
	got, err := r.end()
	require.NoError(r.t, err)
	assert.Equal(r.t, status, got, r.log.String())
}

// logs waits for a text in the log.
func (r *running) logs(text string) {
	r.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(r.log.String(), text) {
			return
		}
	}
	r.t.Fatalf("%q is not in the log:\n%s", text, r.log)
}

// slowOrigin answers /slow when it is released, and everything else at once.
type slowOrigin struct {
	address string
	asked   chan struct{}
	release func()
	server  *http.Server
	served  chan struct{}
}

func newSlowOrigin() (*slowOrigin, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	released := make(chan struct{})
	o := &slowOrigin{
		address: ln.Addr().String(),
		asked:   make(chan struct{}, 10),
		release: sync.OnceFunc(func() { close(released) }),
		served:  make(chan struct{}),
	}
	o.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			o.asked <- struct{}{}
			<-released
		}
		w.Header().Set("X-Origin", "here")
		_, _ = fmt.Fprintf(w, "%s %s, body %q %v, for %s\n",
			r.Method, r.URL, body, err, r.Header.Get("X-Forwarded-For"))
	})}
	go func() {
		defer close(o.served)
		_ = o.server.Serve(ln) // it ends when it is closed
	}()
	return o, nil
}

func (o *slowOrigin) close() {
	o.release()
	_ = o.server.Close()
	<-o.served
}

// proxyConfig forwards to the origin.
func (o *slowOrigin) proxyConfig(engine loop.Engine, more string) string {
	_, port, _ := net.SplitHostPort(o.address)
	return fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = 0\nworkers = 2\npin = false\nengine = %q\n"+
		"[[upstreams]]\nname = \"origin\"\naddress = \"127.0.0.1\"\nport = %s\n[timeouts]\n%s\n", engine, port, more)
}

func startOrigin(t testing.TB) *slowOrigin {
	t.Helper()
	o, err := newSlowOrigin()
	require.NoError(t, err)
	t.Cleanup(o.close)
	return o
}

// dial connects and sends a request.
func dial(t testing.TB, address, path string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some tests have closed it
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	require.NoError(t, err)
	return c, bufio.NewReader(c)
}

func receive(t testing.TB, in *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// A process waits for every signal that it knows from the first moment on: the default
// of SIGUSR1, which whoever rotates logs may send at any time, ends one that starts.
func TestSignalsAreAwaited(t *testing.T) {
	t.Cleanup(func() { signal.Reset() })
	asked := listen()
	for sent, got := range map[syscall.Signal]chan os.Signal{
		syscall.SIGUSR1: asked.reopen, syscall.SIGUSR2: asked.upgrade, syscall.SIGHUP: asked.reload,
		syscall.SIGTERM: asked.end,
	} {
		require.NoError(t, syscall.Kill(os.Getpid(), sent))
		select {
		case s := <-got:
			assert.Equal(t, sent, s)
		case <-time.After(patience):
			t.Fatalf("%v does not arrive", sent)
		}
	}
}

// A signal lets what is in flight end, and only that: idle connections do not
// hold the process up.
func TestSignalDrains(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			o := startOrigin(t)
			r := launch(t, o.proxyConfig(engine, ""))
			var idle []*bufio.Reader
			for range 4 {
				_, in := dial(t, r.address, "/fast")
				receive(t, in)
				idle = append(idle, in)
			}
			_, slow := dial(t, r.address, "/slow")
			<-o.asked
			r.signal(signal)
			for _, in := range idle {
				_, err := in.ReadByte()
				assert.Equal(t, io.EOF, err)
			}
			r.logs(fmt.Sprintf("msg=draining signal=%s", signal))
			select {
			case <-r.exited:
				t.Error("it did not wait for the exchange in flight")
			default:
			}
			o.release()
			resp, body := receive(t, slow)
			assert.True(t, resp.Close)
			assert.Equal(t, "GET /slow, body \"\" <nil>, for 127.0.0.1\n", body)
			r.exits(0)
			r.logs("msg=ended")
			assert.NotContains(t, r.log.String(), "level=WARN")
		}
	})
}

// A second signal exits at once; so does a drain whose time is over. What was in
// flight ends visibly.
func TestSignalCuts(t *testing.T) {
	t.Parallel()
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		for name, drain := range map[string]string{"second": "1h", "timeout": "100ms"} {
			o := startOrigin(t)
			r := launch(t, o.proxyConfig(engine, fmt.Sprintf("drain = %q", drain)))
			_, slow := dial(t, r.address, "/slow")
			<-o.asked
			r.signal(syscall.SIGTERM)
			r.logs("msg=draining")
			if name == "second" {
				r.signal(syscall.SIGINT)
			}
			r.exits(0)
			r.logs("cut what had not ended in time")
			_, err := io.ReadAll(slow)
			assert.True(t, errors.Is(err, syscall.ECONNRESET), "%v", err)
			o.close()
		}
	})
}

// A signal during the start is a signal to end: nothing is lost in between.
func TestSignalAtOnce(t *testing.T) {
	t.Parallel()
	r := launch(t, good)
	r.signal(syscall.SIGTERM)
	r.exits(0)
}

// A log that nobody reads, though somebody could, holds nothing up: not what is
// served, and not the end.
func TestLogNotRead(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		file := filepath.Join(t.TempDir(), "atlas.toml")
		text := fmt.Sprintf("[listen]\naddress = \"127.0.0.1\"\nport = 0\nengine = %q\n"+
			"[[upstreams]]\nname = \"u\"\naddress = \"127.0.0.1\"\nport = 1\n", engine)
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		out, in, err := os.Pipe()
		require.NoError(t, err)
		defer out.Close()
		p, err := startProcess(file, "", in)
		require.NoError(t, err)
		t.Cleanup(p.kill)
		require.NoError(t, in.Close())
		line, err := bufio.NewReaderSize(out, 16).ReadString('\n')
		require.NoError(t, err)
		address := addressField.FindStringSubmatch(line)[1]
		for range 1000 { // a pipe holds 64 KB; each failure has some 200 bytes
			resp, err := http.Get("http://" + address)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 502, resp.StatusCode)
		}
		http.DefaultClient.CloseIdleConnections()
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
		status, err := p.end()
		require.NoError(t, err)
		assert.Zero(t, status)
	})
}

// A log that nobody reads any more does not end the server: a write to a broken
// pipe on standard error kills a Go program that does not prevent it.
func TestLogReaderGone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "atlas.toml")
	require.NoError(t, os.WriteFile(file, []byte(good), 0o644))
	out, in, err := os.Pipe()
	require.NoError(t, err)
	p, err := startProcess(file, "", in)
	require.NoError(t, err)
	t.Cleanup(p.kill)
	require.NoError(t, in.Close())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "msg=listening")
	require.NoError(t, out.Close())
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM)) // which is logged
	status, err := p.end()
	require.NoError(t, err)
	assert.Zero(t, status, "%v", p.cmd.ProcessState)
}
