//go:build unix

package loop

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// NotFound reports errors of Load and Look that mean no more to a client than
// that there is no such file: none of that name, a segment that is no
// directory, a socket (ENXIO), a name too long for any, too many symbolic links,
// or a name that leads out of the directory. For the last one openat2 says
// EXDEV, and package os has no value.
func NotFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) ||
		errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.EXDEV) ||
		strings.Contains(err.Error(), "escapes from parent")
}

// openFlags keep an open from waiting and from doing anything: O_NONBLOCK for a
// named pipe without a writer, which would block the helper for good, and
// O_NOCTTY for a terminal. They mean nothing for regular files.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY

func (d *Dir) openRoot(name string) (*os.File, error) { return d.root.OpenFile(name, openFlags, 0) }

func (d *Dir) lookRoot(name string) (Stat, error) {
	found, err := d.root.Stat(name)
	if err != nil {
		return Stat{}, err
	}
	return statOf(found), nil
}

func statOf(info fs.FileInfo) Stat {
	s := Stat{Size: info.Size(), ModTime: info.ModTime(), Dir: info.IsDir(), Regular: info.Mode().IsRegular()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Inode = uint64(sys.Ino)
		s.Changed = changed(sys)
	}
	return s
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
