package loop

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
