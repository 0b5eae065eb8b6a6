package loop

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What cannot be spliced is said to be so, and leaves the pipe as good as new.
func TestPipeWithoutSplice(t *testing.T) {
	var ps pipes
	var counters Counters
	defer ps.close()
	p, err := ps.take(&counters)
	require.NoError(t, err)
	fd, err := unix.Eventfd(1, unix.EFD_NONBLOCK)
	require.NoError(t, err)
	defer unix.Close(fd)
	n, err := p.moveIn(fd)
	assert.Zero(t, n)
	assert.Equal(t, ErrNoSplice, err)
	ps.put(p, &counters)
	assert.Len(t, ps.free, 1)
	again, err := ps.take(&counters)
	require.NoError(t, err)
	assert.Same(t, p, again)
	ps.put(again, &counters)
}

// A pipe goes back only if all that went in came out.
func TestPipesForget(t *testing.T) {
	var ps pipes
	var counters Counters
	defer ps.close()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	for _, row := range []struct {
		name string
		out  int // of four bytes
		kept bool
	}{{"nothing came out", 0, false}, {"some did", 3, false}, {"all did", 4, true}} {
		p, err := ps.take(&counters)
		require.NoError(t, err)
		_, err = unix.Write(ends[0], []byte("four"))
		require.NoError(t, err)
		n, err := p.moveIn(ends[1])
		require.NoError(t, err)
		require.Equal(t, 4, n)
		if row.out > 0 {
			held := p.held
			p.held = row.out // moveOut moves no more than that
			n, err = p.moveOut(ends[1])
			require.NoError(t, err)
			p.held = held - n
		}
		ps.put(p, &counters)
		assert.Equal(t, row.kept, len(ps.free) == 1, row.name)
		assert.Zero(t, counters.Pipes.Load())
	}
}
