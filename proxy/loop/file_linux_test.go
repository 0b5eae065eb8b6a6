package loop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Both ways to resolve a name keep the same rule, and name the same errors.
func TestWalk(t *testing.T) {
	top := t.TempDir()
	served := filepath.Join(top, "served")
	require.NoError(t, os.MkdirAll(filepath.Join(served, "sub"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(served, "real"), []byte("fine"), 0o644))
	for link, to := range map[string]string{
		"inside": "real", "sub/up": "../real", "out": "../secret", "absolute": filepath.Join(served, "real"),
		"climbing": "sub/../../secret", "circle": "circle", "parent": "..", "magic": "/proc/self/cwd",
	} {
		require.NoError(t, os.Symlink(to, filepath.Join(served, link)))
	}
	require.NoError(t, unix.Mkfifo(filepath.Join(served, "pipe"), 0o644))
	d, err := OpenDir(served)
	require.NoError(t, err)
	defer func() { assert.NoError(t, d.Close()) }()
	require.NotNil(t, d.walk.dir, "this kernel has openat2")
	plain := &Dir{path: d.path, root: d.root}

	for _, name := range []string{"real", "inside", "sub/up", "sub/../real", "./real"} {
		for _, dir := range []*Dir{d, plain} {
			stat, bytes, f, err := dir.Load(name, 100, 100)
			require.NoError(t, err, name)
			assert.Nil(t, f)
			assert.Equal(t, "fine", string(bytes))
			looked, err := dir.Look(name)
			require.NoError(t, err)
			assert.True(t, stat.Same(looked), name)
		}
	}
	for _, name := range []string{
		"none", "none/below", "real/below", "out", "absolute", "climbing", "circle", "parent", "parent/secret", "magic", "..",
		"../secret", "../served/real", "/etc/passwd", filepath.Join(served, "real"), "sub/../../secret",
	} {
		for _, dir := range []*Dir{d, plain} {
			_, bytes, f, err := dir.Load(name, 100, 100)
			require.Error(t, err, name)
			assert.True(t, NotFound(err), "%s: %v", name, err)
			assert.Nil(t, f)
			assert.Nil(t, bytes)
			_, err = dir.Look(name)
			require.Error(t, err, name)
			assert.True(t, NotFound(err), "%s: %v", name, err)
		}
	}
	for _, dir := range []*Dir{d, plain} {
		stat, bytes, f, err := dir.Load("pipe", 100, 100)
		assert.NoError(t, err)
		assert.Nil(t, f)
		assert.Nil(t, bytes)
		assert.False(t, stat.Regular || stat.Dir)
		looked, err := dir.Look("sub")
		assert.NoError(t, err)
		assert.True(t, looked.Dir)
	}
}

// loaded is a file of that size that is open to be sent.
func loaded(t *testing.T, size int) (path string, f *File) {
	dir := t.TempDir()
	path = filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, make([]byte, size), 0o644))
	d, err := OpenDir(dir)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, d.Close()) })
	_, _, f, err = d.Load("file", 0, 0)
	require.NoError(t, err)
	t.Cleanup(f.Close)
	return path, f
}

// Who may not write a file is not told how much of it is in memory: then pages
// are looked at.
func TestInMemory(t *testing.T) {
	const size = 3<<20 + 100
	path, f := loaded(t, size)
	for _, uncounted := range []bool{false, true} {
		f.probe.uncounted = uncounted
		f.bringIn(0, size)
		for _, off := range []int64{0, 1, 4095, 4096, 1 << 20, size - 1, size, size + 5000} {
			assert.True(t, f.inMemory(off, 1<<20), "%d of %d", off, size)
			assert.True(t, f.inMemory(off, 1), "%d of %d", off, size)
		}
		if !evict(t, path) {
			t.Log("this filesystem is memory, or does not tell")
			continue
		}
		for _, off := range []int64{0, 1, 4095, 4096, 1 << 20, size - 1} {
			assert.False(t, f.inMemory(off, 1<<20), off)
		}
		assert.True(t, f.inMemory(size, 1<<20), "behind the end is nothing to wait for")
		f.bringIn(1<<20, 1<<20)
		assert.True(t, f.inMemory(1<<20, 1<<20))
		p := make([]byte, 10)
		assert.Equal(t, 10, f.readNow(p, 1<<20))
	}
}

// A file that was in memory as a whole is believed to be for a moment; one of which a
// part was asked for is not.
func TestRemembers(t *testing.T) {
	const size = 100_000
	path, f := loaded(t, size)
	if !evict(t, path) {
		t.Log("this filesystem is memory, or does not tell")
		return
	}
	l := &ringLoop{now: 1}
	assert.False(t, l.remembers(f, 0, size))
	f.bringIn(0, size)
	assert.True(t, l.remembers(f, 0, size-1), "a part")
	require.True(t, evict(t, path))
	assert.False(t, l.remembers(f, 0, size), "of a part nothing is remembered")
	f.bringIn(0, size)
	assert.True(t, l.remembers(f, 0, size))
	require.True(t, evict(t, path))
	l.now = l.now.After(rememberedFor - 1)
	assert.True(t, l.remembers(f, 5, 10))
	l.now = l.now.After(1)
	assert.False(t, l.remembers(f, 0, size))
	l.now = 2
	assert.False(t, l.remembers(f, 0, size), "it is forgotten")
}

func evict(t *testing.T, path string) bool {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Sync())
	require.NoError(t, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	_, err = unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT)
	return err == unix.EAGAIN
}

// BenchmarkInMemory is what each half megabyte that is sent pays for never
// waiting for the disk.
func BenchmarkInMemory(b *testing.B) {
	dir := b.TempDir()
	require.NoError(b, os.WriteFile(filepath.Join(dir, "file"), make([]byte, warmFileBytes), 0o644))
	d, err := OpenDir(dir)
	require.NoError(b, err)
	defer d.Close()
	_, _, f, err := d.Load("file", 0, 0)
	require.NoError(b, err)
	defer f.Close()
	for _, how := range []struct {
		name      string
		uncounted bool
	}{{"counted", false}, {"sampled", true}} {
		b.Run("pages="+how.name, func(b *testing.B) {
			f.probe.uncounted = how.uncounted
			b.ReportAllocs()
			for b.Loop() {
				if !f.inMemory(0, warmFileBytes) {
					b.Fatal("it was just written")
				}
			}
		})
	}
}

// Where the filesystem does not tell what is in memory, larger files are read whole.
func TestLoadBlind(t *testing.T) {
	tmpfs, telling := makeTmpfs(t), t.TempDir()
	probe, err := os.Create(filepath.Join(telling, "probe"))
	require.NoError(t, err)
	_, err = unix.Preadv2(int(probe.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT)
	require.NoError(t, probe.Close())
	for name, row := range map[string]struct {
		folder  string
		size    int
		inWhole bool
	}{
		"small":       {telling, 10, true},
		"telling":     {telling, 11, err == unix.EOPNOTSUPP},
		"blind":       {tmpfs, 11, true},
		"large blind": {tmpfs, 101, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, os.WriteFile(filepath.Join(row.folder, "a"), make([]byte, row.size), 0o600))
			d, err := OpenDir(row.folder)
			require.NoError(t, err)
			defer func() { assert.NoError(t, d.Close()) }()
			_, bytes, f, err := d.Load("a", 10, 100)
			require.NoError(t, err)
			if assert.Equal(t, row.inWhole, f == nil) && f == nil {
				assert.Len(t, bytes, row.size)
			} else {
				f.Close()
			}
		})
	}
}

// makeTmpfs is a folder in the memory that POSIX shares: a tmpfs, which
// knows no RWF_NOWAIT.
func makeTmpfs(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("/dev/shm", "atlas-test-")
	requireInstalled(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(folder)) })
	return folder
}
