package loop

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Requests of the FUSE protocol that the server below knows.
const (
	fuseLookup  = 1
	fuseForget  = 2
	fuseGetattr = 3
	fuseOpen    = 14
	fuseInit    = 26
	fuseOpendir = 27
)

// mute mounts a filesystem with one file, "a", whose server answers nothing any
// more once it is told so. Attributes that it gives are stale at once.
func mute(t *testing.T) (folder string, silence func()) {
	// Go's runtime asks the server whether a file can be polled, and keeps its processor
	// for as long as that takes: the server, which is here as well, needs another one.
	if before := runtime.GOMAXPROCS(0); before < 2 {
		runtime.GOMAXPROCS(2)
		t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	}
	folder = t.TempDir()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	requireInstalled(t, err)
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", fd, os.Getuid(), os.Getgid())
	if err = unix.Mount("atlas-test", folder, "fuse", 0, options); err != nil {
		_ = unix.Close(fd)
	}
	requireInstalled(t, err)
	var silent atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		answerFuse(fd, &silent)
	}()
	t.Cleanup(func() {
		// Closing the device would not end a read of it; this ends what waits, too.
		assert.NoError(t, unix.Unmount(folder, unix.MNT_FORCE|unix.MNT_DETACH))
		<-ended
		assert.NoError(t, unix.Close(fd))
	})
	return folder, func() { silent.Store(true) }
}

// requireInstalled skips where there is no such filesystem, or it is not for us.
func requireInstalled(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Skip("a filesystem is missing: ", err)
	}
}

func answerFuse(fd int, silent *atomic.Bool) {
	request := make([]byte, 1<<20)
	for {
		n, err := unix.Read(fd, request)
		if err == unix.EINTR || err == unix.ENOENT || err == unix.EAGAIN {
			continue
		}
		if err != nil || n < 40 {
			return // it is mounted no more
		}
		le := binary.LittleEndian
		op, node := le.Uint32(request[4:]), le.Uint64(request[16:])
		if op == fuseForget || silent.Load() {
			continue
		}
		var answer []byte
		var refused unix.Errno
		switch op {
		case fuseInit:
			answer = le.AppendUint32(le.AppendUint32(answer, 7), 31)
			answer = append(answer, make([]byte, 64-len(answer))...)
		case fuseLookup:
			answer = append(le.AppendUint64(answer, 2), make([]byte, 32)...)
			answer = appendFuseAttributes(answer, 2)
		case fuseGetattr:
			answer = appendFuseAttributes(make([]byte, 16), node)
		case fuseOpen, fuseOpendir:
			answer = make([]byte, 16)
		default:
			refused = unix.ENOSYS
		}
		reply := le.AppendUint32(nil, uint32(16+len(answer)))
		reply = le.AppendUint32(reply, uint32(-int32(refused)))
		reply = append(append(reply, request[8:16]...), answer...)
		_, _ = unix.Write(fd, reply) // to nobody, if who asked was interrupted
	}
}

func appendFuseAttributes(b []byte, node uint64) []byte {
	le := binary.LittleEndian
	mode, size := uint32(unix.S_IFDIR|0o755), uint64(0)
	if node == 2 {
		mode, size = unix.S_IFREG|0o644, 1000
	}
	b = le.AppendUint64(le.AppendUint64(b, node), size)
	b = append(b, make([]byte, 44)...) // blocks and times
	b = le.AppendUint32(le.AppendUint32(b, mode), 1)
	return append(b, make([]byte, 20)...)
}

// A worker asks whether a file has changed on its own thread: it waits for no server
// of a network's filesystem, which may have gone.
func TestUnchangedAsksNobody(t *testing.T) {
	var dir *Dir
	var f *File
	t.Cleanup(func() { // when nobody waits for the server any more
		if f != nil {
			f.Close()
			assert.NoError(t, dir.Close())
		}
	})
	folder, silence := mute(t)
	var err error
	dir, err = OpenDir(folder)
	require.NoError(t, err)
	_, _, f, err = dir.Load("a", 10, 10)
	require.NoError(t, err)
	silence()
	answer := make(chan bool, 1)
	go func() { answer <- f.Unchanged() }()
	select {
	case same := <-answer:
		assert.True(t, same)
	case <-time.After(5 * time.Second):
		t.Error("it waits for the server")
	}
}
