package loop

import (
	"errors"
	"os"
	"time"
)

const (
	// offsMax is how many helpers may block for one worker.
	offsMax = 64
	// warmFileBytes is how much of a file is brought into memory at once.
	warmFileBytes = 1 << 20
	// sendFileBytes is how much one system call may send: other tasks run between
	// two of them. Over loopback it takes 20 to 100 us (design 0007).
	sendFileBytes = 512 << 10
	// warmFor is how long a piece that was in memory is believed to be so while
	// its client takes nothing.
	warmFor = time.Second
)

// Dir is a directory whose files are served. Names never lead out of it, by
// no "..", no absolute name and no symbolic link. Its methods block: handlers
// call them in Loop.Off, and any goroutine may.
type Dir struct {
	path string
	root *os.Root
	walk walk // how names are resolved where os.Root does not do it
}

// OpenDir opens a directory at start-up. It blocks.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, root: root}
	d.openWalk()
	return d, nil
}

// Path is the directory's name as it was given.
func (d *Dir) Path() string { return d.path }

// Close closes the directory; open files stay open.
func (d *Dir) Close() error { return errors.Join(d.closeWalk(), d.root.Close()) }

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

// File is an open regular file. One task uses it at a time.
type File struct {
	Stat
	os    *os.File
	fd    int
	warm  Instant // when all of it was in memory; 0: nobody knows
	probe probe   // scratch of asking what is in the page cache
}

// Load opens name and reads it whole if it is a regular file of at most bytesMax;
// or of at most blindMax, where the filesystem does not tell what of it is in
// memory (overlayfs, tmpfs, NFS): each piece is read there before it is sent.
//
//	stat, bytes, nil, nil   a small file, read and closed
//	stat, nil, file, nil    a larger one, open: the caller closes it
//	stat, nil, nil, nil     not a regular file
//	_, nil, nil, err        errors.Is fs.ErrNotExist, fs.ErrPermission, or another
func (d *Dir) Load(name string, bytesMax, blindMax int64) (Stat, []byte, *File, error) {
	f, err := d.open(name)
	if err != nil {
		return Stat{}, nil, nil, err
	}
	found, err := f.Stat()
	if err != nil {
		return Stat{}, nil, nil, errors.Join(err, f.Close())
	}
	stat := statOf(found)
	if !stat.Regular {
		return stat, nil, nil, f.Close()
	}
	if stat.Size > bytesMax {
		if file := newFile(f, stat); stat.Size > blindMax || file.tells() {
			return stat, nil, file, nil
		}
	}
	bytes := make([]byte, stat.Size)
	n, err := readFull(f, bytes)
	// A file that shrinks while it is read is served as long as it was found.
	stat.Size = int64(n)
	return stat, bytes[:n], nil, errors.Join(err, f.Close())
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

// ReadAt reads for sending through a stream that has no sendfile: fewer bytes
// than p holds only with an error, io.EOF where the file ends. It waits if they
// are not in memory.
func (f *File) ReadAt(l Loop, p []byte, off int64) (n int, err error) {
	if n = f.readNow(p, off); n == len(p) {
		return n, nil
	}
	m, err := l.(fileLoop).readFile(f, p[n:], off+int64(n))
	return n + m, err
}

// fileLoop is how an engine waits for the disk.
type fileLoop interface {
	// readFile is File.ReadAt of what is not in memory.
	readFile(f *File, p []byte, off int64) (int, error)
}

// Unchanged reports that the open file is still what Load has found, for who keeps
// one open between two uses. It may have lost its name since: Look tells that.
func (f *File) Unchanged() bool {
	now, err := f.stat()
	return err == nil && now.Same(f.Stat)
}

// Close closes the file. Closing a file that was only read does not block.
func (f *File) Close() {
	// Nothing was written, so no error of a close can matter.
	_ = f.os.Close()
}
