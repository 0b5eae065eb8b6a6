package watch_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"atlas/proxy/watch"
)

// patience is less than the minute after which files are looked at whatever happens.
const patience = 30 * time.Second

// hears waits until the files may have changed.
func hears(t *testing.T, files *watch.Files) {
	t.Helper()
	select {
	case <-files.C:
	case <-time.After(patience):
		t.Fatal("nothing is told")
	}
}

// Who replaces a file in two steps leaves a time without it. If there are links to
// it, they lead nowhere then, and what comes in its place is seen all the same.
func TestMissingForAWhile(t *testing.T) {
	for _, row := range []struct {
		name string
		made func(t *testing.T) // of a file "real/a"
		file string
	}{
		{"no link", func(*testing.T) {}, "real/a"},
		{"a link", func(t *testing.T) { require.NoError(t, os.Symlink("real/a", "a")) }, "a"},
		{"a link through a folder that is one", func(t *testing.T) {
			require.NoError(t, os.Symlink("real", "current"))
			require.NoError(t, os.Symlink("current/a", "a"))
		}, "a"},
		{"a link to a link", func(t *testing.T) {
			require.NoError(t, os.Mkdir("between", 0o755))
			require.NoError(t, os.Symlink("../real/a", "between/a"))
			require.NoError(t, os.Symlink("between/a", "a"))
		}, "a"},
		{"a link to an absolute name", func(t *testing.T) {
			whole, err := filepath.Abs("real/a")
			require.NoError(t, err)
			require.NoError(t, os.Symlink(whole, "a"))
		}, "a"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			require.NoError(t, os.Mkdir("real", 0o755))
			write := func() { require.NoError(t, os.WriteFile("real/a", []byte("text"), 0o644)) }
			write()
			row.made(t)
			files, err := watch.Start()
			require.NoError(t, err)
			defer files.Stop()
			files.Set([]string{row.file})
			for range 2 {
				require.NoError(t, os.Rename("real/a", "real/old"))
				hears(t, files)
				write()
				hears(t, files)
			}
		})
	}
}

// A circle of links is no file, and no reason to look for ever.
func TestCircle(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.Symlink("a", "b"))
	require.NoError(t, os.Symlink("b", "a"))
	files, err := watch.Start()
	require.NoError(t, err)
	defer files.Stop()
	files.Set([]string{"a"})
	require.NoError(t, os.Remove("a"))
	hears(t, files)
}
