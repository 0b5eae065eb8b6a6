package loop

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// Dir is a directory whose files are served. Names never lead out of it, by
// no "..", no absolute name and no symbolic link.
type Dir struct {
	path string
	root *os.Root
}

// OpenDir opens a directory at start-up. It blocks.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{path: path, root: root}, nil
}

// Path is the directory's name as it was given.
func (d *Dir) Path() string { return d.path }

// Close closes the directory; open files stay open.
func (d *Dir) Close() error { return d.root.Close() }

// Stat is what a handler needs to know of a file.
type Stat struct {
	Size    int64
	ModTime time.Time
	Dir     bool
	Regular bool // not a directory, device, pipe or socket
	Inode   uint64
	Changed int64 // when content or metadata last changed, in ns, where the system tells: nobody can set it back
}

// Same reports whether two looks saw the same content.
func (s Stat) Same(t Stat) bool {
	return s.Size == t.Size && s.ModTime.Equal(t.ModTime) && s.Inode == t.Inode &&
		s.Changed == t.Changed && s.Dir == t.Dir && s.Regular == t.Regular
}

// File is an open regular file.
type File struct {
	Stat
	os *os.File
}

// Load opens name and reads it whole if it is a regular file of at most
// bytesMax. It waits, without stopping the worker.
//
//	stat, bytes, nil, nil   a small file, read and closed
//	stat, nil, file, nil    a larger one, open: the caller closes it
//	stat, nil, nil, nil     not a regular file
//	_, nil, nil, err        errors.Is fs.ErrNotExist, fs.ErrPermission, or another
func (d *Dir) Load(l Loop, name string, bytesMax int64) (stat Stat, bytes []byte, file *File, err error) {
	l.Off(func() { stat, bytes, file, err = d.load(name, bytesMax) })
	return stat, bytes, file, err
}

func (d *Dir) load(name string, bytesMax int64) (Stat, []byte, *File, error) {
	f, err := d.open(name)
	if err != nil {
		return Stat{}, nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return Stat{}, nil, nil, errors.Join(err, f.Close())
	}
	stat := statOf(info)
	if !stat.Regular {
		return stat, nil, nil, f.Close()
	}
	if stat.Size > bytesMax {
		return stat, nil, &File{Stat: stat, os: f}, nil
	}
	bytes := make([]byte, stat.Size)
	n, err := readFull(f, bytes)
	// A file that shrinks while it is read is served as long as it was found.
	stat.Size = int64(n)
	return stat, bytes[:n], nil, errors.Join(err, f.Close())
}

// Look tells what name is now, to see whether a cached file has changed. It
// waits, without stopping the worker.
func (d *Dir) Look(l Loop, name string) (stat Stat, err error) {
	l.Off(func() {
		var info fs.FileInfo
		if info, err = d.root.Stat(name); err == nil {
			stat = statOf(info)
		}
	})
	return stat, err
}

func readFull(f *os.File, p []byte) (n int, err error) {
	for n < len(p) {
		m, err := f.ReadAt(p[n:], int64(n))
		n += m
		if m == 0 || err != nil {
			return n, ignoreEOF(err)
		}
	}
	return n, nil
}

// ReadAt reads for sending through a stream that has no sendfile. It waits.
func (f *File) ReadAt(l Loop, p []byte, off int64) (n int, err error) {
	l.Off(func() { n, err = f.os.ReadAt(p, off) })
	return n, err
}

// Close closes the file. Closing a file that was only read does not block.
func (f *File) Close() {
	// Nothing was written, so no error of a close can matter.
	_ = f.os.Close()
}

func (f *File) fd() uintptr { return f.os.Fd() }
