package host

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Many pause at once: each for as long as it should, and not one after another.
func TestPause(t *testing.T) {
	const callers, length = 100, 20 * time.Millisecond
	pause := Pause(length)
	began := time.Now()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			from := time.Now()
			pause()
			require.GreaterOrEqual(t, time.Since(from), length)
		})
	}
	all.Wait()
	require.Less(t, time.Since(began), callers*length/2, "together, however late the machine is")
}
