package loop

import (
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// walk is the directory for openat2, with which the kernel itself refuses every
// way out, in one system call. dir is nil where openat2 is missing, before Linux
// 5.6 and under some seccomp filters: os.Root keeps the same rule then.
type walk struct {
	dir *os.File
	fd  int
}

// walkTries bounds how often a name is resolved again because somebody renamed
// directories meanwhile: then the kernel cannot tell whether ".." led out.
const walkTries = 8

func (d *Dir) openWalk() {
	dir, err := d.root.Open(".")
	if err != nil {
		return
	}
	d.walk = walk{dir: dir, fd: int(dir.Fd())}
	fd, err := d.walk.openat2(".", unix.O_PATH)
	if err != nil {
		_ = dir.Close()
		d.walk.dir = nil
		return
	}
	_ = unix.Close(fd)
}

func (d *Dir) closeWalk() error {
	if d.walk.dir == nil {
		return nil
	}
	return d.walk.dir.Close()
}

func (w *walk) openat2(name string, flags uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for range walkTries {
		fd, err = unix.Openat2(w.fd, name, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	return fd, err
}

func (d *Dir) open(name string) (*os.File, error) {
	if d.walk.dir == nil {
		return d.openRoot(name)
	}
	fd, err := d.walk.openat2(name, uint64(openFlags|unix.O_LARGEFILE))
	if err != nil {
		return nil, &fs.PathError{Op: "openat2", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Look tells what name is now, to see whether a cached file has changed. It opens
// nothing: O_PATH is a place, not a file.
func (d *Dir) Look(name string) (Stat, error) {
	if d.walk.dir == nil {
		return d.lookRoot(name)
	}
	fd, err := d.walk.openat2(name, unix.O_PATH)
	if err != nil {
		return Stat{}, &fs.PathError{Op: "openat2", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var sys unix.Stat_t
	if err := unix.Fstat(fd, &sys); err != nil {
		return Stat{}, &fs.PathError{Op: "fstat", Path: name, Err: err}
	}
	return newStat(sys.Mode, sys.Size, sys.Ino, time.Unix(sys.Mtim.Unix()), time.Unix(sys.Ctim.Unix())), nil
}

// newStat is of what fstat and statx say.
func newStat(mode uint32, size int64, inode uint64, modified, changed time.Time) Stat {
	kind := mode & unix.S_IFMT
	return Stat{
		Size: size, ModTime: modified, Dir: kind == unix.S_IFDIR, Regular: kind == unix.S_IFREG,
		Inode: inode, Changed: changed.UnixNano(),
	}
}
