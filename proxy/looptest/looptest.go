// Package looptest is the contract of package loop as a suite of tests, which
// every engine has to pass, and a few helpers for tests of handlers.
//
// It tests what handlers may rely on and nothing else: no timing, no system
// call counts, no engine by name.
//
// Clients are plain sockets of package net in the test's goroutine; handler
// code runs in tasks, where assertions report but never stop the test
// (Goexit would end the worker).
package looptest

import (
	"cmp"
	"io"
	"maps"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/loop"
)

// patience is how long a test waits for what has to happen. It is long because
// nothing is measured here; a test that fails takes this long.
const patience = 30 * time.Second

// drainQuiet is the worker's, unless a test says another: each drain takes this long.
const drainQuiet = 300 * time.Millisecond

// Run runs the whole suite on one engine.
func Run(t *testing.T, engine loop.Engine) {
	for name, test := range tests() {
		t.Run(name, func(t *testing.T) {
			test(New(t, loop.Config{Engine: engine, CPU: -1}))
		})
	}
}

// tests are those of all groups.
func tests() map[string]func(*Env) {
	all := make(map[string]func(*Env))
	for _, group := range []map[string]func(*Env){
		streamTests, sendTests, progressTests, awaitTests, taskTests, lifeTests, edgeTests, stressTests, fileTests,
		layerTests, spliceTests, greetTests, gateTests, listenTests, shareTests,
	} {
		maps.Copy(all, group)
	}
	return all
}

// RequireRing skips where this machine has no io_uring, and fails where CI said
// that it has (REQUIRE_URING).
func RequireRing(t testing.TB) {
	t.Helper()
	_, _, err := loop.Choose(loop.IOUring)
	if err == nil {
		return
	}
	if os.Getenv("REQUIRE_URING") != "" {
		t.Fatalf("REQUIRE_URING is set: %v", err)
	}
	t.Skip(err)
}

// Engines calls test once for each engine, as a subtest. ATLAS_TEST_ENGINE
// forces one.
func Engines(t *testing.T, test func(t *testing.T, engine loop.Engine)) {
	for _, engine := range []loop.Engine{loop.IOUring, loop.Netpoll} {
		if only := os.Getenv("ATLAS_TEST_ENGINE"); only != "" && only != string(engine) {
			continue
		}
		t.Run("engine="+string(engine), func(t *testing.T) {
			if engine == loop.IOUring {
				RequireRing(t)
			}
			test(t, engine)
		})
	}
}

// Env is one worker under test. When the test ends, the worker is stopped, and
// descriptors and goroutines have to be as many as before.
type Env struct {
	testing.TB
	Loop   loop.Loop
	panics chan any
	config loop.Config
	layer  *Layer // nil: none
}

// New starts a worker for the test.
func New(t testing.TB, cfg loop.Config) *Env {
	t.Helper()
	e := &Env{TB: t, panics: make(chan any, 16)}
	checkLeaks(t)
	cfg.Panicked = func(value any, stack []byte) {
		assert.Contains(t, string(stack), "goroutine")
		select {
		case e.panics <- value:
		default: // counted all the same; the worker must not wait
		}
	}
	cfg.DrainQuiet = cmp.Or(cfg.DrainQuiet, drainQuiet)
	e.config = cfg
	e.restart(cfg)
	return e
}

// spokenTo gives clients who speak in a drain the time that they have by default.
func (e *Env) spokenTo() {
	e.Helper()
	cfg := e.config
	cfg.DrainQuiet = 0
	e.restart(cfg)
}

// restart replaces the worker by one with another configuration.
func (e *Env) restart(cfg loop.Config) {
	e.Helper()
	if e.Loop != nil {
		e.Loop.Stop()
		e.Loop.Wait()
	}
	l, err := loop.Start(cfg)
	require.NoError(e, err)
	e.Loop = l
	e.Cleanup(func() { l.Stop(); wait(e, "worker to end", l.Wait) })
}

// checkLeaks compares descriptors and goroutines when everything else of the
// test has been cleaned up.
func checkLeaks(t testing.TB) {
	fds, goroutines := descriptors(), runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if descriptors() <= fds && runtime.NumGoroutine() <= goroutines {
				return
			}
		}
		stacks := make([]byte, 1<<16)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Errorf("leak: %d descriptors, were %d; %d goroutines, were %d\n%s",
			descriptors(), fds, runtime.NumGoroutine(), goroutines, stacks)
	})
}

// descriptors counts the open ones, but for those that Go's poller makes when
// it is first used and keeps for ever.
func descriptors() (n int) {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		target, _ := os.Readlink("/dev/fd/" + entry.Name())
		if !strings.Contains(target, "eventpoll") && !strings.Contains(target, "[eventfd]") {
			n++
		}
	}
	return n
}

// wait runs f in a goroutine and fails the test if it takes too long.
func wait(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		t.Fatalf("waited in vain for %s\n%s", what, stacks)
	}
}

// eventually waits until cond holds.
func (e *Env) eventually(what string, cond func() bool) {
	e.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if cond() {
			return
		}
	}
	e.Fatalf("waited in vain for %s", what)
}

// Task runs f as a task and waits for its end.
func (e *Env) Task(f func()) {
	e.Helper()
	wait(e, "task", func() {
		done := make(chan struct{})
		if !e.Loop.Post(func() { e.Loop.Go(func() { defer close(done); f() }) }) {
			close(done)
		}
		<-done
	})
}

// Post runs f on the worker and waits for it.
func (e *Env) Post(f func()) {
	e.Helper()
	wait(e, "post", func() {
		done := make(chan struct{})
		e.Loop.Post(func() { defer close(done); f() })
		<-done
	})
}

// Funcs is a Handler made of functions.
type Funcs struct {
	OnOpen  func(loop.Conn)
	OnServe func(loop.Conn) bool
}

func (f Funcs) Open(c loop.Conn) {
	if f.OnOpen != nil {
		f.OnOpen(c)
	}
}

func (f Funcs) Serve(c loop.Conn) bool { return f.OnServe(c) }

// Listen has connections to a new address served.
func (e *Env) Listen(h loop.Handler) (address string) {
	e.Helper()
	ln, err := loop.ListenTCP("127.0.0.1:0", 0)
	require.NoError(e, err)
	// Registered before the worker's own end runs: cleanups run backwards,
	// so the worker is drained first by hand.
	e.Cleanup(func() {
		e.Loop.Stop()
		wait(e, "worker to end", e.Loop.Wait)
		assert.NoError(e, ln.Close())
	})
	if e.layer != nil {
		h = e.layer.Serve(h)
	}
	e.Post(func() { assert.NoError(e, e.Loop.Listen(ln, h)) })
	return ln.Addr().String()
}

// Serve is Listen with one function.
func (e *Env) Serve(serve func(loop.Conn) bool) (address string) {
	e.Helper()
	return e.Listen(Funcs{OnServe: serve})
}

// Dial connects a client of package net.
func (e *Env) Dial(address string) *net.TCPConn {
	e.Helper()
	c, err := e.connect(address)
	require.NoError(e, err)
	e.Cleanup(func() { _ = c.Close() }) // most tests have closed it
	return c
}

// peers returns both ends of a connection: a client's, and the loop's, which
// was dialled. Use the second one in tasks only.
func (e *Env) peers() (*net.TCPConn, loop.Conn) {
	e.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(e, err)
	defer ln.Close()
	var c loop.Conn
	e.Task(func() {
		c, err = e.Loop.Dial(loop.Address{AddrPort: ln.Addr().(*net.TCPAddr).AddrPort()}, patience)
	})
	require.NoError(e, err)
	accepted, err := ln.Accept()
	require.NoError(e, err)
	peer := accepted.(*net.TCPConn)
	if e.layer != nil {
		peer = e.bridge(peer, e.layer.Accept)
		e.Task(func() { c, err = e.layer.Dialled(c) })
		require.NoError(e, err)
	}
	e.Cleanup(func() { _ = peer.Close() })
	require.NoError(e, peer.SetDeadline(time.Now().Add(patience)))
	return peer, c
}

// write sends all of text from the client's side.
func (e *Env) write(c net.Conn, text string) {
	e.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(e, err)
}

// read wants exactly text on the client's side.
func (e *Env) read(c net.Conn, text string) {
	e.Helper()
	got := make([]byte, len(text))
	n, err := io.ReadFull(c, got)
	require.NoError(e, err, "after %q", got[:n])
	require.Equal(e, text, string(got))
}

// readEnd wants the client to see the end in order.
func (e *Env) readEnd(c net.Conn) {
	e.Helper()
	rest, err := io.ReadAll(c)
	require.NoError(e, err)
	require.Empty(e, rest)
}

// echo answers every byte until the other direction ends, then ends its own.
// Not io.Copy between the sockets themselves: that keeps a pipe for splicing.
func echo(peer *net.TCPConn) {
	_, _ = io.Copy(struct{ io.Writer }{peer}, struct{ io.Reader }{peer})
	_ = peer.CloseWrite()
}
