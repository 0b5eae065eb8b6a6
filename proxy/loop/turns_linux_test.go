package loop

import (
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func requireRing(t *testing.T) {
	t.Helper()
	err := probeRing()
	if err == nil {
		return
	}
	if os.Getenv("REQUIRE_URING") != "" {
		t.Fatalf("REQUIRE_URING is set: %v", err)
	}
	t.Skip(err)
}

// However many tasks have a piece of a file to send, a turn of the loop lets one
// of them, and all of them come to it equally often.
func TestOneSenderATurn(t *testing.T) {
	requireRing(t)
	started, err := Start(Config{Engine: IOUring, CPU: -1})
	require.NoError(t, err)
	l := started.(*ringLoop)
	const tasks, pieces = 5, 40
	type sent struct{ task, turn uint64 }
	var all []sent
	done := make(chan struct{})
	require.True(t, l.Post(func() {
		left := tasks
		for i := range uint64(tasks) {
			l.Go(func() {
				for n := range pieces {
					l.Yield()
					all = append(all, sent{i, l.ring.Enters()})
					if i == 0 && n+1 < pieces {
						l.wake(l.current) // a task may be woken too often
					}
				}
				if left--; left == 0 {
					close(done)
				}
			})
		}
	}))
	<-done
	l.Stop()
	l.Wait()
	require.Len(t, all, tasks*pieces)
	for i := 1; i < len(all); i++ {
		assert.Greater(t, all[i].turn, all[i-1].turn)
		if i >= tasks {
			assert.Equal(t, all[i-tasks].task, all[i].task, "piece %d", i)
		}
	}
}

// answerer answers each byte with one, for a "w" after a wait.
type answerer struct{ tasks chan *task }

func (a answerer) Open(Conn) {}

func (a answerer) Serve(c Conn) bool {
	l := c.Loop().(*ringLoop)
	asked := append([]byte(nil), c.Peek()...)
	c.Consume(len(asked))
	if string(asked) == "w" {
		l.Sleep(time.Millisecond)
	}
	a.tasks <- l.current
	if string(asked) == "p" {
		panic("asked to")
	}
	_, err := c.Write(asked)
	return err == nil && c.Flush() == nil
}

// A task that has answered without a wait turns the loop until the next request, whichever
// connection that comes from, and serves it; one that has waited goes back to run, as one does
// whose worker drains. A panic ends neither.
func TestLeader(t *testing.T) {
	requireRing(t)
	started, err := Start(Config{Engine: IOUring, CPU: -1})
	require.NoError(t, err)
	l := started.(*ringLoop)
	ln, err := ListenTCP("127.0.0.1:0", 16)
	require.NoError(t, err)
	served := answerer{make(chan *task, 1)}
	require.True(t, l.Post(func() { assert.NoError(t, l.Listen(ln, served)) }))
	leader := func() *task {
		now := make(chan *task)
		require.True(t, l.Post(func() { now <- l.leader }))
		return <-now
	}
	require.Nil(t, leader())
	clients := make([]net.Conn, 2)
	for i := range clients {
		clients[i], err = net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer clients[i].Close()
	}
	ask := func(client int, what string) *task {
		_, err := io.WriteString(clients[client], what)
		require.NoError(t, err)
		by := <-served.tasks
		if what != "p" {
			_, err = io.ReadFull(clients[client], make([]byte, 1))
			require.NoError(t, err)
		}
		return by
	}
	first := ask(0, "a")
	require.Same(t, first, leader())
	require.Same(t, first, ask(1, "b"))
	require.Same(t, first, leader())
	require.Same(t, first, ask(0, "w"))
	require.Nil(t, leader(), "it has waited")
	second := ask(1, "c")
	require.Same(t, second, leader())
	require.Same(t, second, ask(0, "p"))
	require.Same(t, second, leader())
	require.Same(t, second, ask(1, "d"))
	l.Stop()
	l.Wait()
	require.Nil(t, l.leader)
	require.EqualValues(t, 1, l.counters.Panics.Load())
}

// Where the loop was when it panicked is known, although a task turned it.
func TestLeaderPanics(t *testing.T) {
	next, _ := iter.Pull(func(func(struct{}) bool) {
		l := &ringLoop{}
		l.lead(nil) // without a ring
	})
	defer func() { require.Contains(t, recover(), "ringLoop).reap") }()
	next()
}

// A connection touches six lines of the cache, and is allocated without waste.
func TestConnSize(t *testing.T) {
	assert.EqualValues(t, 384, reflect.TypeFor[ringConn]().Size())
}

// The kernel's threads that wait for the disk leave the worker its core.
func TestThreadsElsewhere(t *testing.T) {
	requireRing(t)
	var allowed unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &allowed))
	own := 0
	for !allowed.IsSet(own) {
		own++
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), make([]byte, 64<<10), 0o644))
	f, err := os.Open(filepath.Join(dir, "file"))
	require.NoError(t, err)
	defer f.Close()
	started, err := Start(Config{Engine: IOUring, CPU: own})
	require.NoError(t, err)
	l := started.(*ringLoop)
	seen := make(chan []unix.CPUSet)
	require.True(t, l.Post(func() {
		l.Go(func() {
			l.bringIn(&File{fd: int(f.Fd()), Stat: Stat{Size: 64 << 10}}, 0, 64<<10)
			seen <- threadsOf(unix.Gettid())
		})
	}))
	threads := <-seen
	l.Stop()
	l.Wait()
	require.NotEmpty(t, threads, "somebody has read the file")
	for _, cpus := range threads {
		assert.Positive(t, cpus.Count())
		assert.False(t, cpus.IsSet(own) && allowed.Count() > 1, "there are others")
	}
}

// threadsOf is where those of the kernel's threads may run that work for a task.
func threadsOf(tid int) (all []unix.CPUSet) {
	paths, _ := filepath.Glob("/proc/self/task/*/comm")
	for _, path := range paths {
		name, _ := os.ReadFile(path)
		if strings.TrimSpace(string(name)) != fmt.Sprintf("iou-wrk-%d", tid) {
			continue
		}
		var cpus unix.CPUSet
		thread, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if unix.SchedGetaffinity(thread, &cpus) == nil { // it may have ended
			all = append(all, cpus)
		}
	}
	return all
}
