package static

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"atlas/proxy/exchange"
	"atlas/proxy/loop"
	"atlas/proxy/looptest"
	"atlas/proxy/stats"
)

// For figures that count, ask for a file of its own size, and for some rounds:
//
//	go test ./proxy/static -run '^$' -bench ColdReaders -benchtime 5x -cold-bytes 1073741824
var coldBytes = flag.Int64("cold-bytes", 64<<20, "BenchmarkColdReaders: size of the file that is not in memory")

const (
	coldReaders  = 64
	coldRoleEnv  = "STATIC_TEST_COLD"      // serve or read: what a child of the benchmark does
	coldSiteEnv  = "STATIC_TEST_COLD_SITE" // the directory to serve, or the address to read from
	coldInterval = 500 * time.Microsecond  // between two requests for the cached file
	dontNeed     = 4                       // POSIX_FADV_DONTNEED of include/uapi/linux/fadvise.h
)

// BenchmarkColdReaders is what a worker's other clients notice of 64 that read a
// large file which is not in memory, each a part of its own: the latency of a
// cached file of 1 KB, alone and beside the readers, in turns. Server and readers
// are processes of their own. It is as good as the machine is quiet.
func BenchmarkColdReaders(b *testing.B) {
	for _, engine := range []struct {
		name string
		loop loop.Engine
	}{{"ring", loop.IOUring}, {"netpoll", loop.Netpoll}} {
		b.Run("engine="+engine.name, func(b *testing.B) {
			if engine.loop == loop.IOUring {
				looptest.RequireRing(b)
			}
			root := b.TempDir()
			require.NoError(b, os.WriteFile(filepath.Join(root, "small"), looptest.Pattern(1<<10), 0o644))
			large := writeLarge(b, filepath.Join(root, "large"))
			address := coldChild(b, "serve", string(engine.loop)+" "+root)
			p := newProbe(b, address)
			looptest.RunFirst(b)
			p.measure(b, 100*time.Millisecond, nil) // the first requests find nothing warm
			var alone, cold, warm latencies
			for b.Loop() {
				alone.add(p.measure(b, time.Second, nil))
				drop(large)
				cold.add(p.measure(b, time.Minute, coldReading(b, address)))
				warm.add(p.measure(b, time.Minute, coldReading(b, address)))
			}
			b.ReportMetric(0, "ns/op")
			alone.report(b, "alone")
			cold.report(b, "cold")
			warm.report(b, "warm")
			coldEnd(b, "serve")
		})
	}
}

// latencies are those of some measurements.
type latencies struct{ p50, p99 []float64 }

func (l *latencies) add(p50, p99 float64) {
	l.p50, l.p99 = append(l.p50, p50), append(l.p99, p99)
}

func (l *latencies) report(b *testing.B, name string) {
	b.ReportMetric(median(l.p50), name+"-p50-us")
	b.ReportMetric(median(l.p99), name+"-p99-us")
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

func writeLarge(b *testing.B, path string) *os.File {
	f, err := os.Create(path)
	require.NoError(b, err)
	b.Cleanup(func() { _ = f.Close() })
	block := looptest.Pattern(1 << 20)
	for written := int64(0); written < *coldBytes; written += int64(len(block)) {
		_, err := f.Write(block)
		require.NoError(b, err)
	}
	require.NoError(b, f.Sync())
	return f
}

// drop drops a file from memory.
func drop(f *os.File) {
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0)
}

// coldReading starts the readers, and is closed when they have read the file.
func coldReading(b *testing.B, address string) <-chan struct{} {
	ended := make(chan struct{})
	require.Equal(b, "reading", coldChild(b, "read", address))
	end := coldChildren["read"]
	go func() {
		end(b)
		close(ended)
	}()
	return ended
}

// coldChildren are the processes by role, and what ends them.
var coldChildren = map[string]func(testing.TB){}

// coldChild starts this binary in a role and returns its first line.
func coldChild(b testing.TB, role, site string) string {
	argv := []string{os.Args[0], "-test.run=^TestColdChild$", "-test.v=false", "-test.timeout=0"}
	if role == "read" {
		// Readers may cost the server time, but take none of its core, nor who measures: all
		// threads of theirs, so from the start. At nice 19 a thread still gets a turn of
		// milliseconds now and then.
		argv = append([]string{"nice", "-n", "19"}, argv...)
		if cores := runtime.NumCPU(); cores > 1 {
			argv = append([]string{"taskset", "-c", fmt.Sprintf("1-%d", cores-1)}, argv...)
		}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), coldRoleEnv+"="+role, coldSiteEnv+"="+site)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	coldChildren[role] = func(t testing.TB) {
		delete(coldChildren, role)
		assert.NoError(t, stdin.Close())
		_, _ = io.Copy(io.Discard, stdout) // its verdict
		assert.NoError(t, cmd.Wait())
	}
	b.Cleanup(func() { coldEnd(b, role) })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	return strings.TrimSpace(line)
}

func coldEnd(b testing.TB, role string) {
	if end := coldChildren[role]; end != nil {
		end(b)
	}
}

// TestColdChild is no test but the children of BenchmarkColdReaders. They end
// with their standard input.
func TestColdChild(t *testing.T) {
	role, site := os.Getenv(coldRoleEnv), os.Getenv(coldSiteEnv)
	switch role {
	case "":
		return
	case "serve":
		engine, root, _ := strings.Cut(site, " ")
		fmt.Println(coldServer(t, loop.Engine(engine), root))
	case "read":
		var readers sync.WaitGroup
		fmt.Println("reading")
		for i := range int64(coldReaders) {
			part := *coldBytes / coldReaders
			readers.Go(func() { coldReader(t, site, i*part, part) })
		}
		readers.Wait()
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// coldServer serves root with one worker, on a core of its own where it can.
func coldServer(t *testing.T, engine loop.Engine, root string) (address string) {
	env := looptest.New(t, loop.Config{Engine: engine, CPU: 0})
	dir, err := loop.OpenDir(root)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, dir.Close()) })
	h := New(Config{Dir: dir, Index: "index.html", CacheBytes: 64 << 20, Precompressed: true})
	client := exchange.Config{Header: time.Minute, Body: time.Minute, Write: time.Minute, Idle: time.Minute, Stats: new(stats.Stats)}
	return env.Listen(exchange.NewServer(client, h))
}

// coldReader reads a part of the file. The kernel throws the bytes away
// (MSG_TRUNC).
func coldReader(t *testing.T, address string, first, length int64) {
	c, err := net.Dial("tcp", address)
	if !assert.NoError(t, err) {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\nRange: bytes=%d-%d\r\n\r\n", first, first+length-1)
	raw, err := c.(*net.TCPConn).SyscallConn()
	assert.NoError(t, err)
	nothing, read := make([]byte, 1<<20), int64(0)
	for n := 1; n > 0; read += int64(n) {
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			n, _, readErr = syscall.Recvfrom(int(fd), nothing, syscall.MSG_TRUNC)
			return readErr != syscall.EAGAIN
		})
		if !assert.NoError(t, err) || !assert.NoError(t, readErr) {
			return
		}
	}
	assert.Greater(t, read, length)
}

// probe asks for the small file, by a socket that blocks: when the answer is there,
// its thread goes on, and no other of the runtime has to be awake for that.
type probe struct {
	fd       int
	response []byte
}

var probeRequest = []byte("GET /small HTTP/1.1\r\nHost: a\r\n\r\n")

func newProbe(b *testing.B, address string) *probe {
	c, err := net.Dial("tcp", address)
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	_, err = c.Write(probeRequest)
	require.NoError(b, err)
	in, head := bufio.NewReader(c), 0
	for line := ""; line != "\r\n"; head += len(line) {
		line, err = in.ReadString('\n')
		require.NoError(b, err)
	}
	_, err = io.CopyN(io.Discard, in, 1<<10)
	require.NoError(b, err)
	f, err := c.(*net.TCPConn).File() // a duplicate, which Fd has block
	require.NoError(b, err)
	b.Cleanup(func() { _ = f.Close() })
	return &probe{int(f.Fd()), make([]byte, head+1<<10)}
}

// measure asks every coldInterval for a time, or until something has ended, and
// returns the median and the 99th of a hundred, in microseconds.
func (p *probe) measure(b *testing.B, length time.Duration, ended <-chan struct{}) (p50, p99 float64) {
	var all []float64
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(coldInterval) {
		select {
		case <-ended:
			end = time.Now()
		default:
		}
		sent := time.Now()
		_, err := syscall.Write(p.fd, probeRequest)
		require.NoError(b, err)
		for n := 0; n < len(p.response); {
			m, err := syscall.Read(p.fd, p.response[n:])
			require.NoError(b, err)
			require.Positive(b, m, "the server has closed")
			n += m
		}
		all = append(all, float64(time.Since(sent))/1e3)
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}
