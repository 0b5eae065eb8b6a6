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
// or a name that leads out of the directory. Package os has no value for the last
// one.
func NotFound(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) ||
		errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) ||
		errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) ||
		strings.Contains(err.Error(), "escapes from parent")
}

// open opens for reading. O_NONBLOCK keeps a named pipe without a writer from
// blocking the helper for good; it means nothing for regular files.
func (d *Dir) open(name string) (*os.File, error) {
	return d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
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
