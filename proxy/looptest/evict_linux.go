package looptest

import (
	"os"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Evict drops a file from memory and reports whether it is out: it stays in on a
// filesystem that is memory, or does not tell.
func (e *Env) Evict(path string) bool {
	e.Helper()
	f, err := os.Open(path)
	require.NoError(e, err)
	defer f.Close()
	require.NoError(e, f.Sync()) // what is not on the disk yet stays
	if unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) != nil {
		return false
	}
	_, err = unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT)
	return err == unix.EAGAIN
}
