//go:build unix

package loop

import (
	"io"
	"io/fs"
	"os"
	"syscall"
)

// open opens for reading. O_NONBLOCK keeps a named pipe without a writer from
// blocking the helper for good; it means nothing for regular files.
func (d *Dir) open(name string) (*os.File, error) {
	return d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func statOf(info fs.FileInfo) Stat {
	s := Stat{Size: info.Size(), ModTime: info.ModTime(), Dir: info.IsDir(), Regular: info.Mode().IsRegular()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Inode = uint64(sys.Ino)
	}
	return s
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
