package server

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"atlas/proxy/invariant"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
)

// rings counts the io_uring descriptors of a process.
func (c *child) rings() (n int) {
	c.t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	require.NotEmpty(c.t, links)
	for _, link := range links {
		if target, _ := os.Readlink(link); target == "anon_inode:[io_uring]" {
			n++
		}
	}
	return n
}

// status reads a line of /proc/PID/status, in kilobytes.
func (c *child) status(field string) (kilobytes int) {
	c.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	_, value, found := strings.Cut(string(text), field+":")
	require.True(c.t, found)
	value, _, _ = strings.Cut(strings.TrimSpace(value), " ")
	kilobytes, err = strconv.Atoi(value)
	require.NoError(c.t, err)
	return kilobytes
}

// pinned lists the threads of the child that may run on one core only, by core.
func (c *child) pinned() map[string]int {
	c.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", c.cmd.Process.Pid))
	require.NoError(c.t, err)
	require.NotEmpty(c.t, files)
	cores := make(map[string]int)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // that thread has ended
		}
		_, list, _ := strings.Cut(string(text), "Cpus_allowed_list:")
		list, _, _ = strings.Cut(strings.TrimSpace(list), "\n")
		if !strings.ContainsAny(list, "-,") {
			cores[list]++
		}
	}
	return cores
}

// A worker of the ring has one ring; on netpoll there is none.
func TestRings(t *testing.T) {
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		c := spawn(t, looptest.StaticConfig(t, engine))
		want := 0
		if engine == loop.IOUring {
			want = 2
		}
		assert.Equal(t, want, c.rings())
		assert.Equal(t, "hello", dial(t, c.address).get("/a"))
		assert.Equal(t, want, c.rings())
	})
}

// Each worker has a core for itself, and no other thread of the process is kept
// from any.
func TestWorkersArePinned(t *testing.T) {
	looptest.RequireRing(t)
	cores := allowedCPUs()
	if len(cores) < 2 {
		t.Log("with one core everything is on it")
		return
	}
	text := strings.Replace(looptest.StaticConfig(t, loop.IOUring), "workers = 2\npin = false", "workers = 2", 1)
	c := spawn(t, text)
	for range 20 { // helper threads start
		assert.Equal(t, "hello", dial(t, c.address).get("/a"))
	}
	want := map[string]int{strconv.Itoa(cores[0]): 1, strconv.Itoa(cores[1]): 1}
	assert.Equal(t, want, c.pinned())

	unpinned := spawn(t, looptest.StaticConfig(t, loop.IOUring))
	assert.Empty(t, unpinned.pinned())
}

// withoutRing starts the child under a filter that makes io_uring_setup answer
// EPERM, as Docker's does.
func (c *child) withoutRing() *child {
	c.t.Helper()
	return c.refused(0, unix.EPERM)
}

// refused starts the child under a filter that refuses rings of that many entries
// and more. Such a filter is a thread's and its children's, so a thread that ends
// starts the child.
func (c *child) refused(entries uint32, errno syscall.Errno) *child {
	c.t.Helper()
	const entriesLow = 16 // offset of the first argument in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the system call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: entriesLow},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: entries, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		if err == nil {
			// program is on the heap, where nothing moves, and alive until the end of this function.
			address := reflect.ValueOf(program).Pointer()
			err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, address, 0, 0)
		}
		if err == nil {
			err = c.cmd.Start()
		}
		result <- err
	}()
	require.NoError(c.t, <-result)
	runtime.KeepAlive(program)
	return c.started()
}

// Where the kernel refuses a ring, auto serves without one and says why, once.
func TestFallBack(t *testing.T) {
	c := prepare(t, looptest.StaticConfig(t, loop.Auto)).withoutRing().listening()
	assert.Equal(t, "hello", dial(t, c.address).get("/a"))
	assert.Zero(t, c.rings())
	require.Len(t, c.log.lines(""), 2)
	reasons := c.log.lines("level=WARN")
	require.Len(t, reasons, 1)
	assert.Contains(t, reasons[0], "engine=netpoll")
	assert.Contains(t, reasons[0], "io_uring unavailable")
	assert.Contains(t, reasons[0], "operation not permitted")
	assert.Contains(t, c.log.lines("msg=listening")[0], "engine=netpoll")
}

// The probe's small ring may fit where a worker's does not: then, too, all workers
// use the other engine.
func TestFallBackOfWorkers(t *testing.T) {
	c := prepare(t, looptest.StaticConfig(t, loop.Auto)).refused(512, unix.ENOMEM).listening()
	assert.Equal(t, "hello", dial(t, c.address).get("/a"))
	assert.Zero(t, c.rings())
	reasons := c.log.lines("level=WARN")
	require.Len(t, reasons, 1)
	assert.Contains(t, reasons[0], "engine=netpoll")
	assert.Contains(t, reasons[0], "cannot allocate memory")
}

// Who asks for the ring by name and cannot have it is told why, and gets nothing
// else in its place.
func TestNoFallBack(t *testing.T) {
	c := prepare(t, looptest.StaticConfig(t, loop.IOUring)).withoutRing()
	err := <-c.exited
	assert.ErrorContains(t, err, "exit status 1")
	c.exited <- nil
	lines := c.log.lines("")
	require.Len(t, lines, 1)
	for _, want := range []string{`engine "io_uring"`, "io_uring unavailable", "operation not permitted"} {
		assert.Contains(t, lines[0], want)
	}
}

// Ten thousand connections are opened, used, left alone, and used again. On the
// ring an idle connection holds no goroutine. The figure is the growth of the
// process's resident memory, so it has all: the connections' own memory, what
// the runtime has not given back, and pages that the first requests touched.
func TestManyIdleConnections(t *testing.T) {
	skipShort(t)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	conns := min(10_000, int(limit.Max)-500) // the runtime has raised ours as far as allowed
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		c := spawn(t, looptest.StaticConfig(t, engine))
		first := dial(t, c.address)
		for range 1000 {
			first.get("/a")
		}
		before := c.status("VmRSS")
		many := openMany(t, c.address, conns)
		idle := c.status("VmRSS")
		goroutines := c.goroutines()
		t.Logf("%d idle connections: %d goroutines, %d kB instead of %d kB resident, %.0f bytes a connection",
			conns, goroutines, idle, before, float64(idle-before)*1024/float64(conns))
		if engine == loop.IOUring {
			assert.Less(t, goroutines, 100)
		}
		many.ask(t)
		many.ask(t)
		t.Logf("used twice more: %d kB resident", c.status("VmRSS"))
		if engine == loop.IOUring {
			assert.Less(t, c.goroutines(), 100)
		}
	})
}

// crowd is many connections, each of which has got an answer.
type crowd []net.Conn

// openMany opens connections from many addresses, or the ports would run out, and
// uses each once.
func openMany(t *testing.T, address string, conns int) crowd {
	t.Helper()
	many := make(crowd, conns)
	t.Cleanup(func() {
		for _, c := range many {
			if c != nil {
				_ = c.(*net.TCPConn).SetLinger(0) // leaves no port in TIME_WAIT
				_ = c.Close()
			}
		}
	})
	many.each(t, func(i int) (err error) {
		dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(i>>8), byte(i%200+1))}}
		many[i], err = dialer.Dial("tcp", address)
		return err
	})
	many.ask(t)
	return many
}

// ask has every connection ask once and get its answer.
func (many crowd) ask(t *testing.T) {
	t.Helper()
	many.each(t, func(i int) error {
		c := many[i]
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return err
		}
		p := make([]byte, 1000)
		for n := 0; ; {
			m, err := c.Read(p[n:])
			if err != nil {
				return err
			}
			if n += m; strings.HasSuffix(string(p[:n]), "\r\n\r\nhello") {
				return nil
			}
		}
	})
}

// each calls f for every connection, some at a time.
func (many crowd) each(t *testing.T, f func(i int) error) {
	t.Helper()
	next := make(chan int)
	failed := make(chan error, len(many))
	var work sync.WaitGroup
	for range 64 {
		work.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					failed <- fmt.Errorf("connection %d: %w", i, err)
				}
			}
		})
	}
	for i := range many {
		next <- i
	}
	close(next)
	work.Wait()
	close(failed)
	require.Empty(t, len(failed), "%v", <-failed)
}

// digestOrigin answers an upload with its digest, and sends the bytes of seed 1
// to who downloads.
func digestOrigin(size int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			sum := sha256.New()
			n, err := io.Copy(sum, r.Body)
			_, _ = fmt.Fprintf(w, "%d %v %x", n, err, sum.Sum(nil))
			return
		}
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		}
		_, _ = io.CopyN(w, rand.NewChaCha8([32]byte{1}), size)
	}
}

// 100 MB in either direction, with a length and in chunks, arrive as they were
// sent, and the proxy needs no more memory for them than for small bodies.
func TestLargeBodies(t *testing.T) {
	skipShort(t)
	const size = 100 << 20
	want := sha256.New()
	_, err := io.CopyN(want, rand.NewChaCha8([32]byte{1}), size)
	require.NoError(t, err)
	digest := fmt.Sprintf("%x", want.Sum(nil))
	looptest.Engines(t, func(t *testing.T, engine loop.Engine) {
		c := spawn(t, looptest.ProxyConfig(engine, []string{origin(t, digestOrigin(size))}))
		transport := &http.Transport{DisableCompression: true}
		defer transport.CloseIdleConnections()
		web := &http.Client{Transport: transport, Timeout: 10 * patience}
		upload := func(length, bytes int64) string {
			body := io.LimitReader(rand.NewChaCha8([32]byte{1}), bytes)
			req, err := http.NewRequest("POST", "http://"+c.address+"/", body)
			require.NoError(t, err)
			req.ContentLength = length
			resp, err := web.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			return string(answer)
		}
		for range 20 { // what small bodies need
			upload(1<<16, 1<<16)
			upload(-1, 1<<16)
		}
		before := c.status("VmHWM")
		for _, length := range []int64{size, -1} {
			assert.Equal(t, fmt.Sprintf("%d <nil> %s", size, digest), upload(length, size))
		}
		for _, path := range []string{"/length", "/chunks"} {
			resp, err := web.Get("http://" + c.address + path)
			require.NoError(t, err)
			got := sha256.New()
			n, err := io.Copy(got, resp.Body)
			require.NoError(t, err, "after %d bytes", n)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, digest, fmt.Sprintf("%x", got.Sum(nil)))
		}
		grown := c.status("VmHWM") - before
		t.Logf("400 MB moved: at most %d kB resident, %d kB more than before", before+grown, grown)
		if !invariant.Enabled { // the race detector has memory of its own
			assert.Less(t, grown, 32<<10)
		}
	})
}
