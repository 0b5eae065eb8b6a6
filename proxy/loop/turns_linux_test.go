package loop

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

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
