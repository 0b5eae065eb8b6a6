package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// textMax is more than a configuration may have, and than a system's authorities: a
// disk image that is named by mistake must not fill the memory.
const textMax = 8 << 20

// errNotRegular is a pipe, a device or a folder.
var errNotRegular = errors.New("no regular file, which could be read again when it changes")

// readRegular reads a file, and refuses what is none: to open a pipe would wait for
// somebody to write to it, and what waits here keeps the process from its end.
func readRegular(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: file, Err: errNotRegular}
	}
	if stat.Size() > textMax {
		return nil, &fs.PathError{Op: "read", Path: file, Err: fmt.Errorf("more than %d MiB", textMax>>20)}
	}
	return io.ReadAll(io.LimitReader(f, textMax))
}
